"""A partition changes its owner: when the new one may go on with the clock of its logs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from bandstand.kafka import producer_config
from bandstand.local import Kafka
from tests.streams.bench import Bench
from tests.waiting import PATIENCE_S

PARTITIONS = 4
PRODUCERS = 8
OUTAGE_S = 6
SETTLES = "no ticks until it settles"
BACKOFF_MS = 4_000
SETTLE_S = 9
"""Longer than producers' back-off, which the client library makes up to half as long again."""


@pytest.fixture
def bench(bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Make a lane whose outages are longer than its pause, and shorter than fifteen seconds."""
    bench = Bench(
        bandstand_kafka,
        bandstand_prefix,
        tmp_path,
        PARTITIONS,
        None,
        BANDSTAND_JOIN__SESSION_TIMEOUT="4s",
        BANDSTAND_JOIN__PAUSE="2500ms",
        BANDSTAND_JOIN__SETTLE=f"{SETTLE_S}s",
        BANDSTAND_LANES__DEFAULT__WINDOW="3s",
    )
    yield bench
    bench.close()


def _two_at_work(bench: Bench) -> None:
    for _ in range(2):
        bench.start().wait_until_logged("took over")
    bench.wait_for(bench.decide(20 * PARTITIONS, reward_every=1))


def _started_in_vain(bench: Bench) -> Producer:
    """Make a producer that finds a frozen broker, and tries to connect every few seconds only."""
    return Producer(
        producer_config(
            bench.settings,
            api_version_request_timeout_ms=500,
            reconnect_backoff_ms=BACKOFF_MS,
            reconnect_backoff_max_ms=BACKOFF_MS,
        )
    )


def test_rewards_that_wait_while_an_outage_moves_their_partition_are_joined(
    bench: Bench, bandstand_kafka: Kafka
) -> None:
    """The worker that takes over knows that the leader was away: what waited lands first."""
    _two_at_work(bench)
    ids = bench.decide(50 * PARTITIONS, reward_every=1_000)
    now = int(time.time() * 1_000)
    bandstand_kafka.pause()
    try:
        bench.workers[0].kill()
        producers = [_started_in_vain(bench) for _ in range(PRODUCERS)]
        for number, decision_id in enumerate(ids):
            bench.reward(decision_id, now, producer=producers[number % PRODUCERS])
        time.sleep(OUTAGE_S)
    finally:
        bandstand_kafka.resume()
    assert [producer.flush(PATIENCE_S) for producer in producers] == [0] * PRODUCERS
    bench.wait_for(ids)
    states = bench.states()
    assert Counter(states[i] for i in ids) == {"joined": len(ids)}
    assert not bench.dead_letters()
    bench.assert_equal_to_the_pure_core()


def test_a_worker_that_saw_the_leader_answer_goes_on_at_once_for_a_killed_one(
    bench: Bench,
) -> None:
    """The last tick is older than a pause by then, but no outage was there: nothing settles."""
    _two_at_work(bench)
    survivor = bench.workers[1].log
    settled_before = survivor.read_text().count(SETTLES)
    bench.workers[0].kill()
    ids = bench.decide(20 * PARTITIONS)
    bench.wait_for(ids)
    assert survivor.read_text().count(SETTLES) == settled_before
    bench.assert_equal_to_the_pure_core()
