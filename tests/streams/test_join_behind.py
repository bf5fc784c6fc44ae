"""A reward log that is hours behind its decisions, on a real broker: it holds up itself alone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from bandstand.kafka import producer_config
from bandstand.local import Kafka
from bandstand.partitioner import partition_for
from bandstand.streams.join_types import Rules
from benchmarks.join.workload import Topics, Traffic, Workload, load
from tests.streams.bench import Bench, Worker
from tests.waiting import PATIENCE_S, until

HELD, FREE = 0, 1
DECISIONS = 7_500
BYTES = 8_000
ROOM_BYTES = 16 * 2**20
BATCH_BYTES = 2_000_000
"""Decisions of a partition may be read until they have so many bytes, a batch at a time; each
partition has 30 MB of them."""
FILLED = 0.85
"""What decisions may fill of it: every other one or third has a line of 2.5 kB to itself."""


@pytest.fixture
def bench(bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Make a lane of two partitions."""
    bench = Bench(bandstand_kafka, bandstand_prefix, tmp_path)
    yield bench
    bench.close()


def _held_back(bench: Bench, ts: int) -> Producer:
    """Begin a transaction in one reward log: what comes behind can't be read before it ends."""
    nobody = next(name for name in map(str, range(100)) if bench.partition(name) == HELD)
    name = f"{bench.settings.topics.prefix}rewards"
    producer = Producer(producer_config(bench.settings, transactional_id=name))
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    bench.reward(nobody, ts, producer=producer)
    assert producer.flush(PATIENCE_S) == 0
    return producer


def _gauge(worker: Worker, name: str) -> dict[int, float]:
    found = re.findall(
        rf'^bandstand_join_{name}{{.*partition="(\d)".*}} (\S+)$', worker.get("/metrics"), re.M
    )
    return {int(partition): float(value) for partition, value in found}


def test_rewards_two_hours_behind_neither_stop_nor_fill_the_worker(bench: Bench) -> None:
    """The decision cursor waits in its room, other partitions go on, and all comes in the end."""
    rules = Rules.from_settings(bench.settings.lanes["default"])
    traffic = Traffic(rewarded_percent=20, decision_bytes=BYTES, per_second=1, rules=rules)
    workload = Workload(DECISIONS, int(time.time() * 1_000), traffic, tick_ms=5_000)
    of = [partition_for(workload.key(number), 2) for number in range(DECISIONS)]
    transaction = _held_back(bench, next(workload.ticks()).ts)
    load(bench.settings, Topics(*bench.names.lane("default")), workload, ticks=True)
    worker = bench.start()

    def waits_for_rewards_alone() -> bool:
        waiting, out = _gauge(worker, "waiting_decisions"), _gauge(worker, "outcomes_total")
        read_ahead = waiting.get(HELD, 0) * BYTES
        assert read_ahead <= ROOM_BYTES + BATCH_BYTES
        return read_ahead >= FILLED * ROOM_BYTES and out == {FREE: of.count(FREE)}

    until(waits_for_rewards_alone, "two hours of one partition, none of the other")
    oldest = _gauge(worker, "oldest_waiting_seconds")
    assert oldest.keys() == {HELD}
    assert oldest[HELD] > 7_200
    assert '"waiting": {}' in worker.get("/readyz")
    transaction.commit_transaction(PATIENCE_S)
    until(lambda: _gauge(worker, "outcomes_total").get(HELD) == of.count(HELD), "the others, too")
    assert worker.states("decisions") == {"joined": DECISIONS // 5, "defaulted": DECISIONS * 4 // 5}
    assert worker.states("rewards") == {"joined": DECISIONS // 5, "unmatched": 1}
    bench.assert_equal_to_the_pure_core()
