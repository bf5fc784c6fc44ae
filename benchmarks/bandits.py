"""``python -m benchmarks.bandits``: one learner and one publisher, and bandits by the thousand.

Real roles on a real broker: how long it takes to apply their specs, to learn outcomes that lie
there, to publish a snapshot of each, to be ready after a restart; and what a steady flow costs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from bandstand.kafka import producer_config
from bandstand.local import Kafka
from bandstand.output import stderr
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.in_force import Wanted
from bandstand.streams.specs import SpecFollower, apply
from benchmarks.events import WIRE, decision
from benchmarks.join.page import FOLDER, put, where_and_when
from benchmarks.join.process_tree import Cost, cost
from benchmarks.report import machine

_LANE = "default"
_ACTIONS = ("action-0", "action-1", "action-2")
_WITHIN_S = 600.0
_STEADY_S = 20.0


class Role:
    """A role as a process of its own, with its metrics.

    Parameters
    ----------
    name
        ``learn`` or ``publish``.
    settings
        Its settings.
    folder
        Where its log goes.
    """

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        self._log = folder / f"{name}-{time.monotonic_ns()}.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("BANDSTAND_")}
        environment = {
            **clean,
            "BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": str(settings.kafka.bootstrap_servers),
            "BANDSTAND_TOPICS__PREFIX": settings.topics.prefix,
            "OPENBLAS_NUM_THREADS": "1",
        }
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bandstand", name],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    @property
    def cost(self) -> Cost:
        """What it has used so far."""
        return cost([self.process.pid])

    def total(self, metric: str) -> float:
        """Add up a metric over all labels; 0 while it can't be asked."""
        text = self._ask("/metrics") or ""
        lines = [line.rpartition(" ") for line in text.splitlines()]
        return sum(float(value) for name, _, value in lines if name.startswith(metric))

    def is_ready(self) -> bool:
        """Tell whether it does its work."""
        return self._ask("/readyz") is not None

    def wait(self, condition: Callable[[], bool]) -> float:
        """Wait until a condition holds; gives the seconds."""
        began = time.monotonic()
        while not condition():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() - began < _WITHIN_S, self._log.read_text()
            time.sleep(0.05)
        return time.monotonic() - began

    def _ask(self, path: str) -> str | None:
        url = re.search(r"http://[0-9.:]+", self._log.read_text())
        if url is None:
            return None
        try:
            with urllib.request.urlopen(url[0] + path, timeout=60) as answer:
                return str(answer.read().decode())
        except OSError:
            return None


@contextmanager
def running(name: str, settings: Settings, folder: Path) -> Iterator[Role]:
    """Run a role while the block runs."""
    role = Role(name, settings, folder)
    try:
        yield role
    finally:
        role.process.terminate()
        role.process.wait(60)


class Writer:
    """Writes outcomes of all bandits in turn at random, as a join does.

    Parameters
    ----------
    settings
        Where the broker is.
    bandits
        How many there are.
    """

    def __init__(self, settings: Settings, bandits: int) -> None:
        self._topic = TopicNames(settings.topics.prefix).outcomes(_LANE)
        self._partitions = settings.lanes[_LANE].partitions
        self._bandits = bandits
        self._random = Random(2)
        self._producer = Producer(producer_config(settings, linger_ms=20))
        self.written = 0

    def write(self, count: int) -> None:
        """Write some more."""
        for _ in range(count):
            source_offset, partition = divmod(self.written, self._partitions)
            ts = round(time.time() * 1_000)
            value = WIRE.dumps("outcome", self._outcome(source_offset, ts))
            key = str(self.written).encode()
            self._producer.produce(self._topic, value, key, partition, timestamp=ts)
            self.written += 1
            if not self.written % 1_000:
                self._producer.poll(0)
                while len(self._producer) > 50_000:
                    self._producer.poll(0.1)
        self._producer.flush()

    def _outcome(self, source_offset: int, ts: int) -> dict[str, Any]:
        random = self._random
        chosen = decision(random, ts, eligible=len(_ACTIONS), features=False)
        chosen["bandit"] = f"bandit-{random.randrange(self._bandits)}"
        chosen["action"] = random.choice(_ACTIONS)
        reward = {"reward_id": "r", "name": "click", "value": 1.0, "ts": ts, "offset": 0}
        rewarded = random.random() < 0.3
        return {
            "state": "joined" if rewarded else "defaulted",
            "source_offset": source_offset,
            "before": ts,
            "window_ms": 1_000,
            "backward_ms": 0,
            "grace_ms": 0,
            "rewards": [reward] if rewarded else [],
            "decision": chosen,
        }


def spec_of(number: int) -> Spec:
    """Give a small contextual bandit: three actions, five features."""
    return parse_spec(
        f"""
        bandit: bandit-{number}
        actions: [{", ".join(_ACTIONS)}]
        features:
          - {{name: age, kind: numeric, low: 18, high: 90}}
          - {{name: country, kind: categorical, values: [ch, de, no]}}
        policy: {{name: linear_thompson}}
        reward: {{name: click}}
        """,
        "bandits.yaml",
    )


def measure(settings: Settings, folder: Path, bandits: int, outcomes: int, rate: int) -> list[Any]:
    """Do it all; gives rows: what, seconds, each a second, CPU seconds, MB."""
    rows: list[tuple[str, float, float, float, float]] = []

    def note(what: str, count: float, seconds: float, used: Cost | None = None) -> None:
        used = used or Cost(0.0, 0.0)
        stderr.print(f"{what}: {seconds:.1f} s")
        rows.append((what, seconds, count / seconds, used.cpu_s, used.peak_mb))

    topics.create(settings)
    began = time.monotonic()
    with SpecFollower(settings) as specs:
        apply(settings, specs, [Wanted(spec_of(n)) for n in range(bandits)], "benchmark")
    note("specs applied", bandits, time.monotonic() - began)
    writer = Writer(settings, bandits)
    writer.write(outcomes)
    with running("learn", settings, folder) as learner:
        seconds = learner.wait(lambda: _learned(learner) >= outcomes)
        note("outcomes learned that lay there", outcomes, seconds, learner.cost)
        learner.wait(learner.is_ready)
    with running("learn", settings, folder) as learner:
        seconds = learner.wait(learner.is_ready)
        note("bandits restored at a restart", bandits, seconds, learner.cost)
        with running("publish", settings, folder) as publisher:
            seconds = publisher.wait(lambda: _published(publisher) >= outcomes)
            note("first snapshots published", bandits, seconds, publisher.cost)
            flow = rate * _STEADY_S
            before = learner.cost.cpu_s, publisher.cost.cpu_s
            seconds = _flow(writer, rate)
            waited = publisher.wait(lambda: _published(publisher) >= writer.written)
            for name, role, cpu in zip(
                ("learner", "publisher"), (learner, publisher), before, strict=True
            ):
                used = Cost(role.cost.cpu_s - cpu, role.cost.peak_mb)
                note(f"a flow of outcomes until published, {name}", flow, seconds + waited, used)
    return rows


def _learned(learner: Role) -> float:
    return learner.total('bandstand_learn_outcomes_total{lane="default",state="learned"}')


def _published(publisher: Role) -> float:
    return publisher.total("bandstand_publish_outcomes{")


def _flow(writer: Writer, rate: int) -> float:
    began = time.monotonic()
    for tenth in range(round(_STEADY_S * 10)):
        writer.write(rate // 10)
        time.sleep(max(0.0, began + (tenth + 1) / 10 - time.monotonic()))
    return time.monotonic() - began


def main(
    bandits: Annotated[int, typer.Option(min=1, help="How many bandits.")] = 2_000,
    outcomes: Annotated[int, typer.Option(min=1, help="Outcomes that lie there.")] = 200_000,
    rate: Annotated[int, typer.Option(min=10, help="Outcomes a second of the flow.")] = 1_000,
    docs: Annotated[bool, typer.Option(help="Write the table into docs/benchmarks.md.")] = False,
) -> None:
    """Measure many small bandits; write build/bench/bandits.json."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the roles would go on
    with (
        tempfile.TemporaryDirectory(prefix="bandstand-bandits-") as folder,
        Kafka(Path(folder) / "kafka", heap_mb=1024) as kafka,
    ):
        settings = Settings.model_validate(
            {"kafka": {"bootstrap_servers": kafka.bootstrap_servers}, "topics": {"prefix": "many."}}
        )
        rows = measure(settings, Path(folder), bandits, outcomes, rate)
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "bandits": bandits,
        "outcomes": outcomes,
        "rate": rate,
    }
    Console(highlight=False).print(_table(f"{bandits:,} bandits", rows))
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = {"facts": facts, "rows": rows}
    (FOLDER / "bandits.json").write_text(json.dumps(found, indent=2) + "\n")
    if docs:
        put("bandits", _page(facts, rows))


_COLUMNS = ("what", "seconds", "a second", "CPU seconds", "peak MB")


def _cells(row: tuple[Any, ...]) -> list[str]:
    what, seconds, each, cpu, megabytes = row
    return [
        what,
        f"{seconds:.1f}",
        f"{each:,.0f}",
        *(f"{x:.1f}" if x else "" for x in (cpu, megabytes)),
    ]


def _table(title: str, rows: list[Any]) -> Table:
    table = Table(title=title)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _page(facts: dict[str, Any], rows: list[Any]) -> str:
    work = f"{facts['bandits']:,} bandits, {facts['outcomes']:,} outcomes"
    lines = [
        f"{work}, a flow of {facts['rate']:,} a second; {where_and_when(facts)}.\n",
        f"| {' | '.join(_COLUMNS)} |",
        "|---|" + "---:|" * (len(_COLUMNS) - 1),
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
