"""A lane on a real broker, workers as processes, and what the pure core makes of the final logs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from bandstand.kafka import TopicReader, admin, producer_config
from bandstand.partitioner import partition_for
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings, load_settings
from bandstand.streams import topics
from bandstand.streams.audit import audit
from bandstand.streams.audit_partition import Span
from bandstand.streams.audit_topics import TopicSource
from bandstand.streams.join_types import Record
from bandstand.watchdog import MARK
from tests.waiting import PATIENCE_S, until

RUN = (
    "from bandstand.settings import load_settings; from bandstand.streams.join import run; "
    "run(load_settings())"
)
WIRE = Wire.single_object()
STUCK = 70
"""Exit code of a worker that can't go on."""
LONG_FAULTS = "LONG_FAULTS" in os.environ
long_fault = pytest.mark.skipif(not LONG_FAULTS, reason="takes long: run 'make faults'")


def decision(decision_id: str, ts: int) -> dict[str, Any]:
    """Make a small decision."""
    return {
        "bandit": "b",
        "decision_id": decision_id,
        "subject": "s",
        "ts": ts,
        "action": "a",
        "propensity": 0.5,
    }


class Bench:
    """One lane of a test.

    Where `placed` names topics of the lane or others (``rewards``, ``clock``), with the brokers of
    each partition, all topics are placed: those that it doesn't name on broker 1.
    """

    def __init__(
        self,
        kafka: Any,
        prefix: str,
        folder: Path,
        partitions: int = 2,
        placed: Mapping[str, list[list[int]]] | None = None,
        **environment: str,
    ) -> None:
        self.environment = {
            "BANDSTAND_CONFIG": str(folder / "bandstand.toml"),
            "BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "BANDSTAND_TOPICS__PREFIX": prefix,
            "BANDSTAND_JOIN__GROUP": f"{prefix}join",
            "BANDSTAND_JOIN__SESSION_TIMEOUT": "1s",
            "BANDSTAND_JOIN__TICK": "200ms",
            "BANDSTAND_JOIN__PROGRESS": "1s",
            "BANDSTAND_JOIN__SETTLE": "3s",
            "BANDSTAND_LANES__DEFAULT__WINDOW": "1s",
            "BANDSTAND_LANES__DEFAULT__GRACE": "200ms",
            "BANDSTAND_LANES__DEFAULT__SKEW": "10s",
            "BANDSTAND_LANES__DEFAULT__PARTITIONS": str(partitions),
            "BANDSTAND_LOG__FORMAT": "console",
            **environment,
        }
        (folder / "bandstand.toml").write_text("")
        self.folder = folder
        self.partitions = partitions
        self.settings = self._settings()
        self.names = TopicNames(prefix)
        if placed is not None:
            self._place(placed)
        topics.create(self.settings)
        # Whoever waits out an outage must be back before the join has settled: in 2 s at least.
        back = {"reconnect_backoff_max_ms": 500}
        self.producer = Producer(producer_config(self.settings, linger_ms=1, **back))
        self.sent = 0
        self.workers: list[Worker] = []
        self.started = 0
        self._kept: dict[int, list[tuple[int, bytes]]] = {}

    @cached_property
    def _outcomes(self) -> TopicReader:
        return TopicReader(self.settings, self.names.outcomes("default"))

    def _settings(self) -> Settings:
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            return load_settings()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _place(self, placed: Mapping[str, list[list[int]]]) -> None:
        """Create topics on certain brokers; all of a partition's replicas must be in sync."""
        new = []
        for plan in topics.plan(self.settings):
            brokers = placed.get(plan.name.rpartition(".")[2], [[1]] * plan.partitions)
            config = {rule.setting: rule.value for rule in plan.rules}
            config["min.insync.replicas"] = str(len(brokers[0]))
            new.append(NewTopic(plan.name, len(brokers), replica_assignment=brokers, config=config))
        client = admin(self.settings)
        for future in client.create_topics(new).values():
            future.result(PATIENCE_S)

    def start(self, command: Sequence[str] = (sys.executable, "-c", RUN)) -> Worker:
        """Start one worker."""
        self.started += 1
        worker = Worker(self, command, self.started - 1)
        self.workers.append(worker)
        return worker

    def decide(self, count: int, reward_every: int = 4, *, flush: bool = True) -> list[str]:
        """Send decisions of now, and rewards for some of them; give the decisions' ids."""
        ids = [f"d{self.sent + i}" for i in range(count)]
        self.sent += count
        for i, decision_id in enumerate(ids):
            now = int(time.time() * 1_000)
            value = WIRE.dumps("decision", decision(decision_id, now))
            self.send("decisions", decision_id, value, now)
            if i % reward_every == 0:
                self.reward(decision_id, now)
            self.producer.poll(0)
        if flush:
            self.producer.flush(PATIENCE_S)
        return ids

    def reward(
        self, decision_id: str, ts: int, value: float = 1.0, producer: Producer | None = None
    ) -> None:
        """Send one reward."""
        reward = {
            "bandit": "b",
            "decision_id": decision_id,
            "reward_id": f"r-{decision_id}-{ts}",
            "name": "click",
            "value": value,
            "ts": ts,
        }
        self.send("rewards", decision_id, WIRE.dumps("reward", reward), ts, producer)

    def partition(self, key: str) -> int:
        """Give the partition of a decision and its rewards."""
        return partition_for(key.encode(), self.partitions)

    def send(
        self,
        log: str,
        key: str,
        value: bytes | None,
        ts: int,
        producer: Producer | None = None,
    ) -> None:
        """Send any record."""
        topic = f"{self.settings.topics.prefix}default.{log}"
        partition = self.partition(key)
        chosen = producer or self.producer
        chosen.produce(topic, value, key.encode(), partition, timestamp=ts)

    def read(self, topic: str) -> dict[int, list[Record]]:
        """Read a whole topic as it is now."""
        reader = TopicReader(self.settings, topic)
        found: dict[int, list[Record]] = {}
        try:
            for message in reader.read_to_end(PATIENCE_S):
                found.setdefault(message.partition() or 0, []).append(_record(message))
        finally:
            reader.close()
        return found

    def outcomes(self) -> dict[int, list[tuple[int, bytes]]]:
        """Give each partition's outcomes after the reader's filter, with their source offsets."""
        while messages := self._outcomes.poll(0.05):
            for message in messages:
                record = _record(message)
                kept = self._kept.setdefault(message.partition() or 0, [])
                if record.value is not None:
                    source = WIRE.loads("outcome", record.value)["source_offset"]
                    if not kept or source > kept[-1][0]:
                        kept.append((source, record.value))
        return self._kept

    def states(self) -> dict[str, str]:
        """Give the state of each decision that has an outcome."""
        outcomes = [
            WIRE.loads("outcome", value)
            for outcomes in self.outcomes().values()
            for _, value in outcomes
        ]
        return {outcome["decision"]["decision_id"]: outcome["state"] for outcome in outcomes}

    def wait_for(self, ids: Iterable[str], within: float = PATIENCE_S) -> None:
        """Wait until all these decisions have an outcome."""
        wanted = set(ids)

        def all_there() -> bool:
            self._start_stuck_ones_again()
            missing.clear()
            missing.update(wanted - self.states().keys())
            return not missing

        missing: set[str] = set()
        until(all_there, lambda: f"{len(missing)} of {len(wanted)} outcomes\n{self.logs()}", within)

    def _start_stuck_ones_again(self) -> None:
        """Start workers that have ended because of librdkafka's #5301, as a supervisor does."""
        for worker in list(self.workers):
            if worker.process.poll() == STUCK and MARK in worker.log.read_text():
                self.workers.remove(worker)
                self.start(worker.command)

    def logs(self) -> str:
        """Give what all workers logged."""
        return "\n".join(f"--- {w.log.name}\n{w.log.read_text()}" for w in self.workers)

    def assert_equal_to_the_pure_core(self) -> None:
        """Check that the outcomes are those that the core gives when it reads the logs alone."""
        with closing(TopicSource(self.settings)) as source:
            reports = audit(self.settings, source, ["default"], Span(), lambda _: None)
        for report in reports:
            assert not report.faults, report.differences
            assert report.closes, report
            assert not report.outcomes["unjudged"], report

    def ticks(self, log: str, partition: int) -> list[int]:
        """Give the times of one log's ticks, in its order."""
        topic = f"{self.settings.topics.prefix}default.{log}"
        records = self.read(topic).get(partition, [])
        return [record.timestamp for record in records if record.key == TICK_KEY]

    def furthest_behind(self) -> int:
        """Give by how many ms a record of the inputs lies behind the largest tick before it."""
        furthest = 0
        for topic in (self.names.decisions("default"), self.names.rewards("default")):
            for records in self.read(topic).values():
                watermark = 0
                for record in records:
                    if record.key == TICK_KEY:
                        watermark = max(watermark, record.timestamp)
                    else:
                        furthest = max(furthest, watermark - record.timestamp)
        return furthest

    def dead_letters(self) -> list[dict[str, Any]]:
        """Read the dead letters, each origin once."""
        letters = {
            record.key: WIRE.loads("dead_letter", record.value)
            for records in self.read(self.names.dead_letters).values()
            for record in records
        }
        return list(letters.values())

    def close(self) -> None:
        """End whatever still runs."""
        for worker in self.workers:
            worker.kill()
        if "_outcomes" in vars(self):
            self._outcomes.close()


def _record(message: Any) -> Record:
    _, timestamp = message.timestamp()
    headers = message.headers() or ()
    return Record(message.offset(), timestamp, message.key(), message.value(), headers)


class Crowd:
    """Producers that send decisions, each with its reward, whatever the broker does."""

    def __init__(self, bench: Bench, size: int, every: float, **overrides: object) -> None:
        self.ids: list[str] = []
        self._bench = bench
        self._every = every
        self._overrides = overrides
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(size)]
        for thread in self._threads:
            thread.start()

    def _send(self, number: int) -> None:
        producer = Producer(producer_config(self._bench.settings, **self._overrides))
        count = 0
        while not self._stop.wait(self._every):
            decision_id, ts = f"crowd-{number}-{count}", int(time.time() * 1_000)
            value = WIRE.dumps("decision", decision(decision_id, ts))
            self._bench.send("decisions", decision_id, value, ts, producer)
            self._bench.reward(decision_id, ts, producer=producer)
            self.ids.append(decision_id)
            producer.poll(0)
            count += 1
        assert producer.flush(PATIENCE_S) == 0

    def stop(self) -> list[str]:
        """Send no more; give the ids of all decisions, once they were delivered."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.ids


class Worker:
    """One join process."""

    def __init__(self, bench: Bench, command: Sequence[str], number: int) -> None:
        self.command = command
        self.log = bench.folder / f"worker-{number}.log"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("BANDSTAND_")
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env={**environment, **bench.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=bench.folder,
            )

    def wait_until_logged(self, text: str) -> str:
        """Wait for a line in the log, and give it."""

        def line() -> str | None:
            assert self.process.poll() is None, self.log.read_text()
            return next((row for row in self.log.read_text().splitlines() if text in row), None)

        found = until(line, lambda: f"{text!r} in {self.log.read_text()}")
        return str(found)

    def get(self, path: str) -> str:
        """Ask the worker's web server."""
        return self._ask(path, None)

    def post(self, path: str) -> str:
        """Tell the worker's web server to do something."""
        return self._ask(path, b"")

    def _ask(self, path: str, data: bytes | None) -> str:
        found = re.search(r"http://[0-9.:]+", self.wait_until_logged("http://"))
        assert found is not None
        with urllib.request.urlopen(found[0] + path, data, PATIENCE_S) as answer:
            text: str = answer.read().decode()
        return text

    def states(self, what: str) -> dict[str, int]:
        """Give how many decisions or rewards reached which state in this process."""
        pattern = rf'bandstand_join_{what}_total{{.*state="(\w+)"}} ([0-9.e+]+)'
        states: Counter[str] = Counter()
        for state, count in re.findall(pattern, self.get("/metrics")):
            states[state] += int(float(count))
        return dict(states)

    def freeze(self) -> None:
        """Send SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self, within: float = PATIENCE_S) -> tuple[int, float]:
        """Send SIGTERM; give the exit code and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within), time.monotonic() - began

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
