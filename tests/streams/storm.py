"""A storm: a lane on a real broker while workers and broker are killed, frozen, added and removed.

``python -m tests.streams.storm --rounds 200 --seed 7``. In each round producers send, and the
faults of `storm_plan` strike; then the senders stop, and everything in the topics must be what the
pure core makes of the two logs alone, byte for byte. The same seed gives the same faults.
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
from typing import Any, Self

from bandstand.kafka import LIBRARY_LOGGER, TopicReader
from bandstand.local import Kafka
from bandstand.streams.join_types import Record, Rules
from bandstand.streams.records import record_of
from bandstand.watchdog import MARK
from tests.streams.bench import Bench, Worker
from tests.streams.storm_check import Checks, DifferenceError, Follower, PartitionCheck
from tests.streams.storm_load import Ledger, Load
from tests.streams.storm_plan import SLOTS_AT_START, Fault, plan

__all__ = ["Storm", "StormError", "run"]

_PARTITIONS = 6
_LEAST_S = 3.0
_AFTER_FAULTS_S = 1.0
_DONE_WITHIN_S = 120.0
_LOOK_S = 0.05
_STOPS_WITHIN_S = 20.0
_READ_S = 60.0
_LAST_LINES = 5

# As the defaults are to each other, but quick: `settle` is longer than the producers' back-off plus
# linger, `grace` than a pause that needs no settling, `lateness` than any outage.
_SETTINGS = {
    "BANDSTAND_LOG__FORMAT": "json",
    "BANDSTAND_KAFKA__RECONNECT_BACKOFF_MS": "20",
    "BANDSTAND_KAFKA__RECONNECT_BACKOFF_MAX_MS": "200",
    "BANDSTAND_JOIN__SESSION_TIMEOUT": "1s",
    "BANDSTAND_JOIN__TICK": "200ms",
    "BANDSTAND_JOIN__IDLE_TICK": "1s",
    "BANDSTAND_JOIN__PAUSE": "1s",
    "BANDSTAND_JOIN__SETTLE": "2s",
    "BANDSTAND_JOIN__PROGRESS": "500ms",
    "BANDSTAND_LANES__DEFAULT__WINDOW": "1s",
    "BANDSTAND_LANES__DEFAULT__GRACE": "1s",
    "BANDSTAND_LANES__DEFAULT__BACKWARD": "300ms",
    "BANDSTAND_LANES__DEFAULT__LATENESS": "30s",
    "BANDSTAND_LANES__DEFAULT__SKEW": "10s",
    "BANDSTAND_LANES__DEFAULT__MAX_OUTCOME_BYTES": "1500",
}


class StormError(AssertionError):
    """A round went wrong; says which, and where to look."""


class Storm:
    """A lane under fire; a context manager.

    Parameters
    ----------
    folder
        Where the broker's data and everybody's logs go.
    seed
        Of the faults and of the producers' random numbers.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.seed = seed
        self.faults: Counter[str] = Counter()
        self.rounds: list[float] = []
        """Seconds that each took."""
        self.stuck = 0
        """Workers that ended because a client of theirs found no broker any more."""
        self._workers: dict[int, Worker] = {}
        self._measured = False
        self._starting = threading.Lock()
        self._life = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(_client_log(self.folder / "clients.log"))
            self._kafka = Kafka(self.folder / "kafka").start()
            stack.callback(self._kafka.stop, grace=0.0)
            self._address = self._kafka.bootstrap_servers
            self._bench = Bench(self._kafka, "storm.", self.folder, _PARTITIONS, None, **_SETTINGS)
            stack.callback(self._bench.close)
            grace = self._bench.settings.lanes["default"].grace
            self._ledger = Ledger(patience=grace.total_seconds())
            self._load = Load(self._bench.settings, self._ledger, self.seed)
            self.checks = Checks(self._bench.settings, self._ledger)
            self._follower = Follower(self._bench.settings, self.checks.topics)
            stack.callback(self._follower.close)
            self._workers = {slot: self._bench.start() for slot in SLOTS_AT_START}
            self._workers[SLOTS_AT_START[0]].wait_until_logged("took over")
            self._life = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._life.close()

    def round(self, faults: Sequence[Fault]) -> None:
        """Let faults strike while producers send, then wait until all is as it must be.

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
        self.checks.forget_kills()
        self.faults.update(fault.kind for fault in faults)
        self.rounds.append(time.monotonic() - began)

    def check_from_scratch(self) -> None:
        """Let a new core read the whole logs at once: it must give the same outcomes.

        Raises
        ------
        StormError
            If it doesn't.
        """
        for partition, check in enumerate(self.checks.partitions):
            fresh = self._from_scratch(partition)
            if (fresh.expected, fresh.digest.digest()) != (check.expected, check.digest.digest()):
                raise StormError(
                    f"seed {self.seed}: partition {partition}: one core that read the whole logs "
                    f"gives {fresh.expected} outcomes, those found are {check.expected} others; "
                    f"all is kept in {self.folder}"
                )

    def summary(self) -> dict[str, Any]:
        """Give what happened, for a report."""
        checks = self.checks
        states: dict[str, Counter[str]] = {"decisions": Counter(), "rewards": Counter()}
        for check in checks.partitions:
            for log, counts in check.states.items():
                states[log] += counts
            states["rewards"]["open"] += check.core.open_rewards
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
            f"Python {platform.python_version()}",
            "seed": self.seed,
            "rounds": len(self.rounds),
            "seconds_per_round": _spread(self.rounds),
            "workers_started": len(self._bench.workers),
            "workers_stuck": self.stuck,
            "faults": dict(sorted(self.faults.items())),
            "decisions": dict(states["decisions"]),
            "rewards": dict(states["rewards"]),
            "outcomes": sum(check.comparison.counts["equal"] for check in checks.partitions),
            "repeats_dropped": sum(
                check.comparison.counts["repeated"] for check in checks.partitions
            ),
            "letters": checks.letters.total(),
            "letter_repeats": checks.letter_repeats,
            "records_repeated_by_producers": self._ledger.client_repeats,
            "rewards_too_long_under_way": self._ledger.excused,
            "differences": sum(check.comparison.faults for check in checks.partitions),
            "seconds_to_next_outcome": {
                kind: _spread([seconds for of, seconds in checks.recoveries if of == kind])
                for kind in sorted({kind for kind, _ in checks.recoveries})
            },
        }

    def _strike_all(self, faults: Sequence[Fault], began: float) -> None:
        with self._load.running(), ThreadPoolExecutor(2) as pool:
            strikes = [pool.submit(self._strike, fault, began) for fault in faults]
            ended: float | None = None
            while ended is None or time.monotonic() < max(began + _LEAST_S, ended):
                if ended is None and all(strike.done() for strike in strikes):
                    ended = time.monotonic() + _AFTER_FAULTS_S
                self.checks.take(self._follower.take())
                time.sleep(_LOOK_S)
            _raise_first(strikes)

    def _wait_until_done(self) -> None:
        deadline = time.monotonic() + _DONE_WITHIN_S
        while unfinished := self._unfinished():
            self._see_alive(self._workers)
            if time.monotonic() > deadline:
                raise DifferenceError(
                    f"not within {_DONE_WITHIN_S:g} s: {unfinished}; the reader's last error: "
                    f"{self._follower.last_error or 'none'}"
                )
            time.sleep(_LOOK_S)
        self.checks.account()

    def _unfinished(self) -> str:
        self.checks.take(self._follower.take())
        return self.checks.unfinished

    def _see_alive(self, slots: Iterable[int]) -> None:
        """No worker may have ended but by its watchdog; one that did is started again."""
        for slot in list(slots):
            worker = self._workers[slot]
            code = worker.process.poll()
            if code is None:
                continue
            if code != 70 or MARK not in worker.log.read_text():
                raise DifferenceError(f"worker {slot} ended by itself, code {code}; {worker.log}")
            self.stuck += 1
            self._start([slot])

    def _strike(self, fault: Fault, began: float) -> None:
        time.sleep(max(0.0, began + fault.at - time.monotonic()))
        if fault.kind == "add worker":
            self._start(fault.slots)
        elif fault.kind == "remove worker":
            self._remove(fault)
        elif fault.kind.startswith("freeze"):
            self._freeze(fault)
        else:
            self._kill(fault)

    def _start(self, slots: Sequence[int]) -> None:
        with self._starting:
            for slot in slots:
                self._workers[slot] = self._bench.start()

    def _remove(self, fault: Fault) -> None:
        for slot in fault.slots:
            self._see_alive([slot])
            worker = self._workers.pop(slot)
            at, moved = time.monotonic(), _owned(worker)
            code, _ = worker.stop(_STOPS_WITHIN_S)
            early = "role starts" not in worker.log.read_text()
            assert code == 0 or (early and code == -signal.SIGTERM), (
                f"worker {slot} ended with code {code} after SIGTERM; {worker.log}"
            )
            self._measure(fault, at, moved)

    def _freeze(self, fault: Fault) -> None:
        frozen = [self._workers[slot] for slot in fault.slots]
        with self._ledger.outage() if fault.broker else nullcontext():
            for worker in frozen:
                worker.process.send_signal(signal.SIGSTOP)
            if fault.broker:
                self._kafka.pause()
            time.sleep(fault.lasts)
            if fault.broker:
                self._kafka.resume()
        for worker in frozen:
            worker.process.send_signal(signal.SIGCONT)

    def _kill(self, fault: Fault) -> None:
        self._see_alive(fault.slots)
        killed = [self._workers[slot] for slot in fault.slots]
        everything = set(range(_PARTITIONS))
        moved = everything if fault.broker else set[int]().union(*map(_owned, killed))
        at = time.monotonic()
        with self._ledger.outage() if fault.broker else nullcontext():
            for worker in killed:
                worker.kill()
            if fault.broker:
                self._kafka.kill()
            self._measure(fault, at, moved)
            time.sleep(fault.lasts)
            if fault.broker:
                self._kafka.restart()
                assert self._kafka.bootstrap_servers == self._address, "its port was taken"
        self._start(fault.slots)

    def _measure(self, fault: Fault, at: float, moved: Iterable[int]) -> None:
        """Measure the time to the next outcome, where no other fault prolongs it."""
        if self._measured:
            self.checks.killed(fault.kind, at, moved)

    def _from_scratch(self, partition: int) -> PartitionCheck:
        settings, names = self._bench.settings, self._bench.names
        lane = settings.lanes["default"]
        fresh = PartitionCheck(partition, Rules.from_settings(lane), lane.max_outcome_bytes)
        # The other way round than a worker reads them.
        fresh.read("rewards", self._whole(names.rewards("default"), partition))
        fresh.read("decisions", self._whole(names.decisions("default"), partition))
        return fresh

    def _whole(self, topic: str, partition: int) -> list[Record]:
        reader = TopicReader(self._bench.settings, topic, partitions=[partition])
        try:
            return [record_of(message) for message in reader.read_to_end(_READ_S)]
        finally:
            reader.close()

    def _report(self, faults: Sequence[Fault], error: Exception) -> str:
        logs = [f"{slot}: {worker.log}" for slot, worker in self._workers.items()]
        return "\n".join(
            [
                f"seed {self.seed}, round {len(self.rounds) + 1}: {type(error).__name__}: {error}",
                *(f"  fault: {fault}" for fault in faults),
                f"  the broker's data: {self.folder / 'kafka'}",
                *(f"  the log of worker {log}" for log in logs),
            ]
        )


def run(
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
    with Storm(folder, seed) as storm:
        ends = time.monotonic() + 60 * minutes
        for number, faults in enumerate(plan(seed, rounds)):
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


def _owned(worker: Worker) -> set[int]:
    """Read from a worker's log which partitions it has."""
    owned: set[int] = set()
    for line in worker.log.read_text().splitlines():
        if "partitions assigned" not in line:
            continue
        event = json.loads(line)
        owned -= {partition for _, partition in event["gone"]}
        owned |= {partition for _, partition in event["new"]}
    return owned


def _raise_first(strikes: Sequence[Future[None]]) -> None:
    for strike in strikes:
        strike.result()


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Give count, least, median and most."""
    return {
        "count": len(values),
        "min": round(min(values), 2),
        "median": round(statistics.median(values), 2),
        "max": round(max(values), 2),
    }


def main() -> int:
    """Run a storm from the command line."""
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--folder", type=Path, default=Path("build/storm"))
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = given.folder.absolute() / f"{stamp}-seed-{seed}"

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else workers would go on
    say(f"seed {seed}, {given.rounds} rounds, in {folder}")
    try:
        summary = run(folder, rounds=given.rounds, seed=seed, say=say, minutes=given.minutes)
    except StormError as error:
        say(str(error))
        return 1
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
