"""A storm: roles on a real broker while they and the broker are killed, frozen, added and removed.

In each round something is sent, and the faults of `storm_plan` strike; then the senders stop, and
everything in the topics must be what it must be. The same seed gives the same faults. What is sent
and what must come of it is the `Scene`'s: `storm_join` and `storm_learn`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from bandstand.kafka import LIBRARY_LOGGER
from bandstand.local import Kafka
from bandstand.watchdog import MARK
from tests.streams.bench import STUCK, Bench, Worker
from tests.streams.storm_follower import DifferenceError, Follower
from tests.streams.storm_plan import Fault, plan, slots_at_start
from tests.streams.storm_scene import Play

__all__ = ["PARTITIONS", "Storm", "StormError", "main", "run", "spread"]

PARTITIONS = 6
"""Of each topic of the lane."""

_LEAST_S = 3.0
_AFTER_FAULTS_S = 1.0
_DONE_WITHIN_S = 360.0
"""A group may wait for members that are gone until its rebalance times out, after 300 s."""

_LOOK_S = 0.05
_STOPS_WITHIN_S = 20.0


class StormError(AssertionError):
    """A round went wrong; says which, and where to look."""


class _Running(NamedTuple):
    group: str
    worker: Worker


class Storm:
    """A play under fire; a context manager.

    Parameters
    ----------
    play
        Who runs, and what is sent.
    folder
        Where the broker's data and everybody's logs go.
    seed
        Of the faults and of the senders' random numbers.
    """

    def __init__(self, play: Play, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.seed = seed
        self.faults: Counter[str] = Counter()
        self.rounds: list[float] = []
        """Seconds that each took."""
        self.stuck = 0
        """Processes that ended because a client of theirs found no broker any more."""
        self._play = play
        self._running: dict[int, _Running] = {}
        self._measured = False
        self._starting = threading.Lock()
        self._life = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(_client_log(self.folder / "clients.log"))
            self._kafka = Kafka(self.folder / "kafka").start()
            stack.callback(self._kafka.stop, grace=0.0)
            self._address = self._kafka.bootstrap_servers
            settings = self._play.settings
            self._bench = Bench(self._kafka, "storm.", self.folder, PARTITIONS, None, **settings)
            stack.callback(self._bench.close)
            self._scene = self._play.stage(self._bench, self.seed)
            self._follower = Follower(self._bench.settings, self._scene.topics)
            stack.callback(self._follower.close)
            for group, slots in slots_at_start(self._play.groups).items():
                self._start(group, slots)
            self._running[0].worker.wait_until_logged(self._play.ready)
            self._life = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._life.close()

    def round(self, faults: Sequence[Fault]) -> None:
        """Let faults strike while something is sent, then wait until all is as it must be.

        Raises
        ------
        StormError
            If it isn't.
        """
        began = time.monotonic()
        self._measured = len(faults) == 1
        try:
            self._strike_all(faults, began)
            self._wait_until_done()
        except Exception as error:
            raise StormError(self._report(faults, error)) from error
        self.faults.update(str(fault.kind) for fault in faults)
        self.rounds.append(time.monotonic() - began)

    def check_from_scratch(self) -> None:
        """Let new cores read everything at once: they must come to the same.

        Raises
        ------
        StormError
            If they don't.
        """
        try:
            self._scene.check_from_scratch()
        except DifferenceError as error:
            raise StormError(f"seed {self.seed}: {error}; all is kept in {self.folder}") from error

    def summary(self) -> dict[str, Any]:
        """Give what happened, for a report."""
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
            f"Python {platform.python_version()}",
            "seed": self.seed,
            "rounds": len(self.rounds),
            "seconds_per_round": spread(self.rounds),
            "processes_started": len(self._bench.workers),
            "processes_stuck": self.stuck,
            "faults": dict(sorted(self.faults.items())),
            **self._scene.summary(),
        }

    def _strike_all(self, faults: Sequence[Fault], began: float) -> None:
        with self._scene.sending(), ThreadPoolExecutor(2) as pool:
            strikes = [pool.submit(self._strike, fault, began) for fault in faults]
            ended: float | None = None
            while ended is None or time.monotonic() < max(began + _LEAST_S, ended):
                if ended is None and all(strike.done() for strike in strikes):
                    ended = time.monotonic() + _AFTER_FAULTS_S
                self._scene.take(self._follower.take())
                time.sleep(_LOOK_S)
            _raise_first(strikes)

    def _wait_until_done(self) -> None:
        deadline = time.monotonic() + _DONE_WITHIN_S
        while unfinished := self._unfinished():
            self._see_alive(self._running)
            if time.monotonic() > deadline:
                raise DifferenceError(
                    f"not within {_DONE_WITHIN_S:g} s: {unfinished}; the reader's last error: "
                    f"{self._follower.last_error or 'none'}"
                )
            time.sleep(_LOOK_S)
        self._scene.close_round()

    def _unfinished(self) -> str:
        self._scene.take(self._follower.take())
        return self._scene.unfinished

    def _see_alive(self, slots: Iterable[int]) -> None:
        """No process may have ended but by its watchdog; one that did is started again."""
        for slot in list(slots):
            group, worker = self._running[slot]
            code = worker.process.poll()
            if code is None:
                continue
            if code != STUCK or MARK not in worker.log.read_text():
                raise DifferenceError(f"{group} {slot} ended by itself, code {code}; {worker.log}")
            self.stuck += 1
            self._start(group, [slot])

    def _strike(self, fault: Fault, began: float) -> None:
        time.sleep(max(0.0, began + fault.at - time.monotonic()))
        match fault.kind.act:
            case "add":
                self._start(fault.kind.group, fault.slots)
            case "remove":
                self._remove(fault)
            case "freeze":
                self._freeze(fault)
            case _:
                self._kill(fault)

    def _start(self, group: str, slots: Sequence[int]) -> None:
        with self._starting:
            for slot in slots:
                worker = self._bench.start(self._play.commands[group])
                self._running[slot] = _Running(group, worker)

    def _remove(self, fault: Fault) -> None:
        for slot in fault.slots:
            self._see_alive([slot])
            group, worker = self._running.pop(slot)
            at = time.monotonic()
            code, _ = worker.stop(_STOPS_WITHIN_S)
            early = "role starts" not in worker.log.read_text()
            assert code == 0 or (early and code == -signal.SIGTERM), (
                f"{group} {slot} ended with code {code} after SIGTERM; {worker.log}"
            )
            self._measure(fault, at, [worker])

    def _freeze(self, fault: Fault) -> None:
        frozen = [self._running[slot].worker for slot in fault.slots]
        broker = fault.kind.broker
        with self._scene.outage() if broker else nullcontext():
            for worker in frozen:
                worker.freeze()
            if broker:
                self._kafka.pause()
            time.sleep(fault.lasts)
            if broker:
                self._kafka.resume()
        for worker in frozen:
            worker.thaw()

    def _kill(self, fault: Fault) -> None:
        self._see_alive(fault.slots)
        killed = [self._running[slot].worker for slot in fault.slots]
        broker = fault.kind.broker
        self._measure(fault, time.monotonic(), None if broker else killed)
        with self._scene.outage() if broker else nullcontext():
            for worker in killed:
                worker.kill()
            if broker:
                self._kafka.kill()
            time.sleep(fault.lasts)
            if broker:
                self._kafka.restart()
                assert self._kafka.bootstrap_servers == self._address, "its port was taken"
        self._start(fault.kind.group, fault.slots)

    def _measure(self, fault: Fault, at: float, workers: Sequence[Worker] | None) -> None:
        """Measure how long a fault is felt, where no other one prolongs it."""
        if self._measured:
            self._scene.struck(str(fault.kind), at, workers)

    def _report(self, faults: Sequence[Fault], error: Exception) -> str:
        logs = [f"{one.group} {slot}: {one.worker.log}" for slot, one in self._running.items()]
        return "\n".join(
            [
                f"seed {self.seed}, round {len(self.rounds) + 1}: {type(error).__name__}: {error}",
                *(f"  fault: {fault}" for fault in faults),
                f"  the broker's data: {self.folder / 'kafka'}",
                *(f"  the log of {log}" for log in logs),
            ]
        )


def run(
    play: Play,
    folder: Path,
    *,
    rounds: int,
    seed: int,
    say: Callable[[str], None],
    minutes: float = math.inf,
) -> dict[str, Any]:
    """Run a storm, and give its summary.

    Parameters
    ----------
    play
        Who runs, and what is sent.
    folder
        Where everything goes; must not be there. The broker's data is kept where a round fails.
    rounds, seed
        How many rounds, and of what.
    say
        Told about each round.
    minutes
        After how long no further round begins.

    Raises
    ------
    StormError
        If a round went wrong.
    """
    with Storm(play, folder, seed) as storm:
        ends = time.monotonic() + 60 * minutes
        for number, faults in enumerate(plan(seed, rounds, play.groups)):
            if time.monotonic() > ends:
                break
            storm.round(faults)
            what = ", ".join(map(str, faults))
            say(f"round {number + 1}/{rounds}, {storm.rounds[-1]:.1f} s: {what}")
        storm.check_from_scratch()
        summary = storm.summary()
    shutil.rmtree(folder / "kafka")
    (folder / "clients.log").unlink()
    (folder / "result.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


@contextmanager
def _client_log(path: Path) -> Iterator[None]:
    """Write what the client library says, which is a lot while the broker is away, to a file."""
    logger, handler = logging.getLogger(LIBRARY_LOGGER), logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        handler.close()


def _raise_first(strikes: Sequence[Future[None]]) -> None:
    for strike in strikes:
        strike.result()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Give count, least, median and most."""
    return {
        "count": len(values),
        "min": round(min(values), 2),
        "median": round(statistics.median(values), 2),
        "max": round(max(values), 2),
    }


def main(play: Play) -> int:
    """Run a storm from the command line."""
    parser = argparse.ArgumentParser(prog=f"make {play.name}", description=play.about)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--folder", type=Path, default=Path("build") / play.name)
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = given.folder.absolute() / f"{stamp}-seed-{seed}"

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the processes would go on
    say(f"seed {seed}, {given.rounds} rounds, in {folder}")
    try:
        summary = run(play, folder, rounds=given.rounds, seed=seed, say=say, minutes=given.minutes)
    except StormError as error:
        say(str(error))
        return 1
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    return 0
