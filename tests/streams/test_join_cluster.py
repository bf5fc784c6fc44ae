"""The join on a cluster of two brokers, of which the second one goes away.

It has what a test puts there: a partition, the clock, or the replicas that must be in sync. The
group and all the rest stay on the first one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bandstand.kafka import admin
from bandstand.local import Kafka
from bandstand.streams.leaders import Answer, Leaders, Place
from tests.streams.bench import Bench, long_fault
from tests.waiting import PATIENCE_S, until

PAUSE_S, SETTLE_S, OUTAGE_S, TICK_S = 2, 3, 5, 0.2
LATEST_S = PAUSE_S / 2
"""The join takes no answer of the clock that comes later; a pile of an outage is far more."""
GUARDS = {"BANDSTAND_JOIN__PAUSE": f"{PAUSE_S}s", "BANDSTAND_JOIN__SETTLE": f"{SETTLE_S}s"}


class Cluster(NamedTuple):
    """Two brokers; the first is the controller, too."""

    first: Kafka
    second: Kafka

    @property
    def bootstrap_servers(self) -> str:
        """Both addresses."""
        return f"{self.first.bootstrap_servers},{self.second.bootstrap_servers}"


def _asks_its_group(member: Consumer) -> bool:
    """Ask for a group's offsets; a broker that has just started may not know its groups yet."""
    try:
        member.committed([TopicPartition("any", 0)], timeout=20)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.NOT_COORDINATOR:
            raise
        return False
    return True


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run two brokers; consumer groups live on the first one."""
    with Kafka(tmp_path_factory.mktemp("first")) as first:
        member = Consumer({"bootstrap.servers": first.bootstrap_servers, "group.id": "first"})
        until(lambda: _asks_its_group(member))  # which makes the topic of all groups
        member.close()
        with Kafka(tmp_path_factory.mktemp("second"), joins=first, node_id=2) as second:
            yield Cluster(first, second)


class Make(Protocol):
    """Makes a lane of two partitions, its topics placed on the brokers."""

    def __call__(self, placed: dict[str, list[list[int]]], **environment: str) -> Bench:
        """Make it."""


@pytest.fixture
def make(cluster: Cluster, bandstand_prefix: str, tmp_path: Path) -> Iterator[Make]:
    """Give what makes a lane of two partitions, placed on the brokers."""
    made: list[Bench] = []

    def make_one(placed: dict[str, list[list[int]]], **environment: str) -> Bench:
        given = {**GUARDS, **environment}
        made.append(Bench(cluster, bandstand_prefix, tmp_path, 2, placed, **given))
        return made[0]

    yield make_one
    for bench in made:
        bench.close()


def _in_sync(bench: Bench) -> int:
    topic = bench.names.decisions("default")
    client = admin(bench.settings)
    return len(client.list_topics(topic, timeout=10).topics[topic].partitions[0].isrs)


def _assert_paced(ticks: list[int]) -> None:
    """Check that ticks don't pile up.

    Of one round and another the one's answer may come late, but no later than it is of use.
    """
    ahead = [at - number * TICK_S * 1_000 for number, at in enumerate(ticks)]
    lost = [most - at for most, at in zip(accumulate(ahead, max), ahead, strict=True)]
    assert max(lost) <= LATEST_S * 1_000, [b - a for a, b in pairwise(ticks)]


def test_a_leader_that_answers_and_refuses_records_closes_nothing(
    make: Make, cluster: Cluster
) -> None:
    """With too few replicas in sync producers wait; what they hold lands before the next tick."""
    both = {"decisions": [[1, 2]] * 2, "rewards": [[1, 2]] * 2}
    bench = make(both)
    bench.start()
    bench.wait_for(bench.decide(20, reward_every=1))
    cluster.second.kill()
    try:
        until(lambda: _in_sync(bench) == 1, "one replica alone")
        ids = bench.decide(40, reward_every=1, flush=False)
        time.sleep(OUTAGE_S)
        assert len(bench.producer) > 0
    finally:
        cluster.second.start()
    assert bench.producer.flush(PATIENCE_S) == 0
    bench.wait_for(ids)
    states = bench.states()
    assert {states[i] for i in ids} == {"joined"}
    assert bench.furthest_behind() < OUTAGE_S * 1_000 / 2
    assert not bench.dead_letters()
    bench.assert_equal_to_the_pure_core()


@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=long_fault)])
def test_one_leader_gone_stops_its_partition_only(make: Make, cluster: Cluster, how: str) -> None:
    """The other partition goes on, no ticks pile up, and what waited lands before the next one."""
    halves = [[1], [2]]
    bench = make({"decisions": halves, "rewards": halves})
    worker = bench.start()
    bench.wait_for(bench.decide(40, reward_every=1))
    (cluster.second.kill if how == "killed" else cluster.second.pause)()
    try:
        gone = int(time.time() * 1_000)
        worker.wait_until_logged("no ticks until it settles")
        ids = bench.decide(40, reward_every=1, flush=False)
        there = [i for i in ids if bench.partition(i) == 0]
        bench.wait_for(there)
        time.sleep(OUTAGE_S)
        assert not set(ids) - set(there) & bench.states().keys()
    finally:
        back = int(time.time() * 1_000)
        (cluster.second.start if how == "killed" else cluster.second.resume)()
    assert bench.producer.flush(PATIENCE_S) == 0
    bench.wait_for(ids)
    states = bench.states()
    assert {states[i] for i in ids} == {"joined"}
    for log in ("decisions", "rewards"):
        ticks = bench.ticks(log, 1)
        _assert_paced(ticks)
        assert not [t for t in ticks if gone + 3_000 < t < back]
    assert bench.furthest_behind() < OUTAGE_S * 1_000 / 2
    assert not bench.dead_letters()
    bench.assert_equal_to_the_pure_core()


@pytest.mark.parametrize("how", ["frozen", pytest.param("killed", marks=long_fault)])
def test_without_the_clock_there_are_no_ticks_and_nothing_piles_up(
    make: Make, cluster: Cluster, how: str
) -> None:
    """Producers go on, nothing closes; when the clock is back, ticks are, without settling."""
    long = 60
    bench = make({"clock": [[2]]}, BANDSTAND_JOIN__SETTLE=f"{long}s")
    bench.start()
    bench.wait_for(bench.decide(20, reward_every=1))
    (cluster.second.kill if how == "killed" else cluster.second.pause)()
    try:
        gone = int(time.time() * 1_000)
        ids = bench.decide(20, reward_every=1)
        time.sleep(OUTAGE_S)
        ids += bench.decide(20, reward_every=1)
        assert not set(ids) & bench.states().keys()
    finally:
        (cluster.second.start if how == "killed" else cluster.second.resume)()
        back = int(time.time() * 1_000)
    bench.wait_for(ids)
    states = bench.states()
    assert {states[i] for i in ids} == {"joined"}
    for log in ("decisions", "rewards"):
        for partition in (0, 1):
            ticks = bench.ticks(log, partition)
            _assert_paced(ticks)
            assert not [t for t in ticks if gone + 1_000 < t < gone + OUTAGE_S * 1_000]
            first = next(t for t in ticks if t > gone + 1_000)
            assert first - back < long * 1_000, "leaders answered all the while"
    asked = [r.timestamp for r in bench.read(bench.names.clock)[0]]
    assert len([at for at in asked if back <= at < back + 1_000]) <= 1 / TICK_S + 5
    assert not bench.dead_letters()
    bench.assert_equal_to_the_pure_core()


def test_a_frozen_broker_hides_no_leader_that_answers(make: Make, cluster: Cluster) -> None:
    """Whichever broker the client asks about replicas, the other's logs are found writable."""
    bench = make({})
    places = [Place(bench.names.decisions("default"), partition) for partition in (0, 1)]
    leaders = Leaders(bench.settings, timeout=1.5)

    def answer() -> Answer:
        leaders.ask(places)
        return cast(Answer, until(leaders.hear, "an answer"))

    until(lambda: answer().writable == set(places), "leaders that answer")
    cluster.second.pause()
    try:
        assert [answer().writable for _ in range(6)] == [set(places)] * 6
    finally:
        cluster.second.resume()
        leaders.close()
