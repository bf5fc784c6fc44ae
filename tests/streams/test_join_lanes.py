"""Several lanes in one worker, on a real broker: one lane's trouble leaves the others running."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from bandstand.kafka import admin, producer_config
from bandstand.schemas.topics import TICK_KEY
from bandstand.streams.join_types import TICK_HEADER, Rules
from tests.streams.bench import WIRE, Bench, Worker, decision
from tests.waiting import PATIENCE_S, until

OTHER: dict[str, Any] = {
    "BANDSTAND_LANES__OTHER__PARTITIONS": "1",
    "BANDSTAND_LANES__OTHER__SKEW": "10s",
}
OTHER |= {"BANDSTAND_LANES__OTHER__WINDOW": "1s", "BANDSTAND_LANES__OTHER__GRACE": "200ms"}


@pytest.fixture
def bench(bandstand_kafka: Any, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Give a bench with a second lane."""
    bench = Bench(bandstand_kafka, bandstand_prefix, tmp_path, partitions=1, **OTHER)
    yield bench
    bench.close()


class Other:
    """The second lane of a bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._producer = Producer(producer_config(bench.settings, linger_ms=1))
        self.sent = 0

    def decide(self, count: int) -> None:
        """Send decisions of now."""
        for number in range(self.sent, self.sent + count):
            key, now = f"o{number}", int(time.time() * 1_000)
            value = WIRE.dumps("decision", decision(key, now))
            topic = self._bench.names.decisions("other")
            self._producer.produce(topic, value, key, 0, timestamp=now)
        self._producer.flush(PATIENCE_S)
        self.sent += count

    def tick(self, rules: Rules) -> None:
        """Write a tick of the present with rules of one's own."""
        topic, now = self._bench.names.rewards("other"), int(time.time() * 1_000)
        headers: list[tuple[str, str | bytes | None]] = [(TICK_HEADER, rules.to_header())]
        self._producer.produce(topic, None, TICK_KEY, 0, timestamp=now, headers=headers)
        self._producer.flush(PATIENCE_S)

    def outcomes(self) -> list[str]:
        """Give the ids of all outcomes after the reader's filter, in their order."""
        largest, ids = -1, []
        for record in self._bench.read(self._bench.names.outcomes("other")).get(0, []):
            if record.value is not None:
                outcome = WIRE.loads("outcome", record.value)
                if outcome["source_offset"] > largest:
                    largest = outcome["source_offset"]
                    ids.append(outcome["decision"]["decision_id"])
        return ids

    def limit(self, size: int) -> None:
        """Let the broker refuse outcomes above a size."""
        topic = self._bench.names.outcomes("other")
        entry = ConfigEntry(
            "max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        client = admin(self._bench.settings)
        for future in client.incremental_alter_configs([resource]).values():
            future.result(PATIENCE_S)


def readiness(worker: Worker) -> str:
    """Give what the worker says of itself when it is asked whether it's ready."""
    try:
        return worker.get("/readyz")
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"


def assert_given_up(bench: Bench, worker: Worker, why: str) -> None:
    """Check that the other lane is told of as given up, while the first one goes on."""
    worker.wait_until_logged("lane given up")
    assert "503" in readiness(worker)
    assert why in readiness(worker)
    assert 'bandstand_join_lane_given_up{lane="other"} 1.0' in worker.get("/metrics")
    bench.wait_for(bench.decide(20))
    assert worker.process.poll() is None


def test_a_lane_whose_log_contradicts_the_settings_is_given_up(bench: Bench) -> None:
    """The lane beside it is joined on, and the one given up gets no tick any more."""
    other, worker = Other(bench), bench.start()
    other.decide(5)
    bench.wait_for(bench.decide(20))
    until(lambda: len(other.outcomes()) == 5, "outcomes of the other lane")
    rules = Rules.from_settings(bench.settings.lanes["other"])
    other.tick(rules._replace(lateness_ms=1))
    assert_given_up(bench, worker, "for good")
    rewards = bench.names.rewards("other")
    before = len(bench.read(rewards)[0])
    bench.wait_for(bench.decide(20))
    assert len(bench.read(rewards)[0]) <= before + 1
    bench.assert_equal_to_the_pure_core()


def test_a_lane_that_cannot_be_written_is_given_up_without_a_gap(bench: Bench) -> None:
    """What its broker refuses comes out later, all of it, in order, by a worker that may."""
    other, worker = Other(bench), bench.start()
    other.decide(5)
    until(lambda: len(other.outcomes()) == 5, "outcomes of the other lane")
    other.limit(50)
    other.decide(10)
    assert_given_up(bench, worker, "could not be delivered")
    other.limit(1_000_000)
    worker.stop()
    bench.start()
    other.decide(5)
    until(lambda: len(other.outcomes()) == 20, "all outcomes of the other lane")
    assert other.outcomes() == [f"o{number}" for number in range(20)]
    bench.assert_equal_to_the_pure_core()


def test_a_worker_that_has_given_up_its_last_lane_dies(bench: Bench) -> None:
    """With nothing left to do it says so with its exit code."""
    other, worker = Other(bench), bench.start()
    other.decide(1)
    bench.wait_for(bench.decide(5))
    bad = Rules.from_settings(bench.settings.lanes["other"])._replace(backward_ms=7)
    other.tick(bad)
    worker.wait_until_logged("lane given up")
    bench.producer.produce(
        bench.names.decisions("default"),
        None,
        TICK_KEY,
        0,
        timestamp=int(time.time() * 1_000),
        headers=[(TICK_HEADER, bad.to_header())],
    )
    bench.producer.flush(PATIENCE_S)
    assert worker.process.wait(PATIENCE_S) == 70
