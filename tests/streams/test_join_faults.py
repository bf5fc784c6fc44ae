"""Faults on one broker: what is deleted, refused, broken or stopped, and what the join does."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from bandstand.kafka import admin
from bandstand.local import Kafka
from bandstand.schemas.topics import TICK_KEY
from bandstand.streams.join_types import (
    PROGRESS_HEADER,
    PROGRESS_KEY,
    TICK_HEADER,
    Emissions,
    Rules,
)
from bandstand.streams.outcomes import GaplessProducer
from tests.streams.bench import LONG_FAULTS, RUN, Bench, long_fault
from tests.waiting import PATIENCE_S, sleep_until, until

DAY_MS = 86_400_000
QUICK = {"BANDSTAND_JOIN__PAUSE": "2s", "BANDSTAND_JOIN__SETTLE": "2s"}
STOP_S = 70 if LONG_FAULTS else 5
"""For how long a worker is stopped; the client library's longest time-out is a minute."""
FULL_BYTES = 2_000_000
A_YEAR_AHEAD = """
import time
seconds, nanoseconds = time.time, time.time_ns
time.time = lambda: seconds() + 31_536_000
time.time_ns = lambda: nanoseconds() + 31_536_000_000_000_000
"""


@pytest.fixture
def bench(bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Make a lane of two partitions that settles within two seconds."""
    bench = Bench(bandstand_kafka, bandstand_prefix, tmp_path, 2, None, **QUICK)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def strict_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Run a broker that asks who may do what; whatever has no rule is allowed."""
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with Kafka(tmp_path_factory.mktemp("strict"), properties=properties) as kafka:
        yield kafka


@pytest.fixture
def strict(strict_kafka: Kafka, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Make a lane there."""
    bench = Bench(strict_kafka, bandstand_prefix, tmp_path, 2, None, **QUICK)
    yield bench
    bench.close()


def _dies(bench: Bench, saying: str) -> None:
    worker = bench.workers[-1]
    assert worker.process.wait(PATIENCE_S) == 70, worker.log.read_text()
    assert saying in worker.log.read_text()


def _tick(bench: Bench, log: str, ts: int) -> None:
    headers: Any = [(TICK_HEADER, Rules.from_settings(bench.settings.lanes["default"]).to_header())]
    topic = f"{bench.settings.topics.prefix}default.{log}"
    for partition in range(bench.partitions):
        bench.producer.produce(topic, None, TICK_KEY, partition, timestamp=ts, headers=headers)


def _delete(bench: Bench, topic: str, before: int) -> None:
    client = admin(bench.settings)
    gone = [TopicPartition(topic, partition, before) for partition in range(bench.partitions)]
    for future in client.delete_records(gone).values():
        future.result(PATIENCE_S)


def _alter(bench: Bench, topic: str, setting: str, value: str) -> None:
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = admin(bench.settings)
    client.incremental_alter_configs([change])[change].result(PATIENCE_S)


def test_rewards_that_retention_took_stop_the_join_until_it_is_told_to_go_on(bench: Bench) -> None:
    """Away for longer than retention: no false zero is given unless an operator says so."""
    stood = int(time.time() * 1_000) - 15 * DAY_MS
    _tick(bench, "decisions", stood)
    for i in range(10):
        bench.reward(f"d{i}", stood + i)
    _tick(bench, "rewards", stood)
    headers: Any = [(PROGRESS_HEADER, json.dumps({"source_offset": 0, "before": stood}).encode())]
    outcomes = bench.names.outcomes("default")
    for partition in range(2):
        bench.producer.produce(
            outcomes, None, PROGRESS_KEY, partition, timestamp=stood, headers=headers
        )
    bench.producer.flush(PATIENCE_S)
    _delete(bench, bench.names.rewards("default"), 2)
    bench.start()
    _dies(bench, "BANDSTAND_JOIN__ACCEPT_DELETED=true")
    bench.environment["BANDSTAND_JOIN__ACCEPT_DELETED"] = "true"
    worker = bench.start()
    worker.wait_until_logged("goes on without what was deleted")
    bench.wait_for(bench.decide(20))


def test_rewards_that_an_operator_deleted_are_told_of(bench: Bench) -> None:
    """Within retention only somebody's hand can have done it: a warning, and it goes on."""
    first = bench.start()
    bench.wait_for(bench.decide(20))
    bench.wait_for(bench.decide(20))
    first.kill()
    _delete(bench, bench.names.rewards("default"), 3)
    second = bench.start()
    second.wait_until_logged("records were deleted before their time")
    bench.wait_for(bench.decide(20))


@pytest.mark.parametrize(
    "log", ["decisions", "rewards", pytest.param("outcomes", marks=long_fault)]
)
def test_a_deleted_topic_stops_the_worker(bench: Bench, log: str) -> None:
    """Its worker ends, and says which topic is gone, instead of trying for ever."""
    bench.start()
    bench.wait_for(bench.decide(20))
    topic = f"{bench.settings.topics.prefix}default.{log}"
    client = admin(bench.settings)
    client.delete_topics([topic])[topic].result(PATIENCE_S)
    if log == "outcomes":
        bench.decide(20)
    _dies(bench, topic)


def test_an_outcome_that_the_broker_finds_too_large_ends_the_worker(bench: Bench) -> None:
    """The topic's limit was lowered; set right again, the next worker goes on without a hole."""
    bench.start()
    ids = bench.decide(20)
    bench.wait_for(ids)
    outcomes = bench.names.outcomes("default")
    _alter(bench, outcomes, "max.message.bytes", "60")
    ids += bench.decide(20)
    _dies(bench, "could not be delivered")
    _alter(bench, outcomes, "max.message.bytes", "1048588")
    bench.start()
    ids += bench.decide(20)
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()


def _forbid(bench: Bench, topic: str) -> None:
    """Forbid to write to a topic, and nothing else."""
    whose = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*")
    rules = [
        AclBinding(*whose, AclOperation.ALL, AclPermissionType.ALLOW),
        AclBinding(*whose, AclOperation.WRITE, AclPermissionType.DENY),
    ]
    client = admin(bench.settings)
    for future in client.create_acls(rules).values():
        future.result(PATIENCE_S)


def _allow(bench: Bench, topic: str) -> None:
    anyone: Any = None
    whose = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, anyone, anyone)
    rules = AclBindingFilter(*whose, AclOperation.ANY, AclPermissionType.ANY)
    client = admin(bench.settings)
    for future in client.delete_acls([rules]).values():
        future.result(PATIENCE_S)


@pytest.mark.parametrize("what", ["outcomes", "rewards", "clock"])
def test_a_right_that_is_taken_away_ends_the_worker(strict: Bench, what: str) -> None:
    """Outcomes, ticks or the clock are refused; allowed again, the next worker goes on."""
    strict.start()
    ids = strict.decide(20)
    strict.wait_for(ids)
    prefix = strict.settings.topics.prefix
    topic = f"{prefix}clock" if what == "clock" else f"{prefix}default.{what}"
    _forbid(strict, topic)
    if what == "outcomes":
        ids += strict.decide(20)
    _dies(strict, topic)
    _allow(strict, topic)
    strict.start()
    ids += strict.decide(20)
    strict.wait_for(ids)
    strict.assert_equal_to_the_pure_core()


def test_a_partition_of_garbage_holds_nothing_up(bench: Bench) -> None:
    """Each record is a dead letter, the other partition goes on, a restart gives none anew."""
    now = int(time.time() * 1_000)
    bench.start()
    ids = [i for i in bench.decide(40) if bench.partition(i) == 1]
    garbage = [key for key in map(str, range(200)) if bench.partition(key) == 0]
    for key in garbage:
        bench.send("decisions", key, b"{garbage}", now)
        bench.send("rewards", key, b"{garbage}", now)
    ids += [i for i in bench.decide(40) if bench.partition(i) == 1]
    bench.wait_for(ids)
    until(lambda: len(bench.dead_letters()) == 2 * len(garbage), "all dead letters")
    bench.workers[0].kill()
    bench.start()
    bench.wait_for(bench.decide(20))
    assert len(bench.dead_letters()) == 2 * len(garbage)
    bench.assert_equal_to_the_pure_core()


def test_a_worker_that_was_stopped_for_long_leaves_no_hole(bench: Bench) -> None:
    """Frozen with outcomes under way, for longer than any time-out; another worker takes over."""
    first = bench.start()
    bench.wait_for(bench.decide(20))
    ids = bench.decide(3_000)
    until(lambda: len(bench.states()) > 200, "the worker at work")
    first.freeze()
    end = time.monotonic() + STOP_S
    try:
        second = bench.start()
        second.wait_until_logged("took over")
        ids += bench.decide(200)
        bench.wait_for(ids)
        sleep_until(end)
    finally:
        first.thaw()
    second.kill()
    ids += bench.decide(200)
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()


def test_a_full_disk_of_the_broker_loses_nothing(
    bandstand_prefix: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files may grow no more: the broker gives up; with room again, all goes on."""
    with Kafka(tmp_path_factory.mktemp("full")) as kafka:
        bench = Bench(kafka, bandstand_prefix, tmp_path, 2, None, **QUICK)
        try:
            worker = bench.start()
            ids = bench.decide(20, reward_every=1)
            bench.wait_for(ids)
            limits = (FULL_BYTES, FULL_BYTES)
            resource.prlimit(kafka.process.pid, resource.RLIMIT_FSIZE, limits)
            for i in range(20):
                noise = os.urandom(400_000)
                bench.send("decisions", f"noise-{i}", noise, int(time.time() * 1_000))
            ids += bench.decide(40, reward_every=1, flush=False)
            until(lambda: not kafka.process.alive, "the broker's end")
            kafka.stop()
            kafka.start()
            assert bench.producer.flush(PATIENCE_S) == 0
            bench.wait_for(ids)
            assert worker.process.poll() is None
            states = bench.states()
            assert {states[i] for i in ids} == {"joined"}
            bench.assert_equal_to_the_pure_core()
        finally:
            bench.close()


def test_a_worker_whose_clock_is_a_year_off_gives_the_same(bench: Bench) -> None:
    """Whatever Python tells of the wall clock is a year ahead; nothing changes.

    The client library's own clock stays right: libfaketime, which would turn it, too, makes it
    wait for ever. It dates records that come without a time: only dead letters, where nobody
    reads it, and those of `clock`, where the broker's time replaces it.
    """
    bench.start([sys.executable, "-c", A_YEAR_AHEAD + RUN])
    ids = bench.decide(100, reward_every=1)
    bench.wait_for(ids)
    states = bench.states()
    assert {states[i] for i in ids} == {"joined"}
    assert bench.furthest_behind() < DAY_MS
    assert not bench.dead_letters()
    bench.assert_equal_to_the_pure_core()


def _outcomes(count: int, start: int = 0) -> Emissions:
    now = int(time.time() * 1_000)
    values = [b"%d" % i for i in range(start, start + count)]
    return Emissions([b"key"] * count, [now] * count, values)


def _raise(error: BaseException) -> None:
    raise error


def _has_passed(moment: float) -> bool:
    return time.monotonic() > moment


def _poll_until(producer: GaplessProducer, condition: Callable[[], bool]) -> None:
    def holds() -> bool:
        producer.poll()
        return condition()

    until(holds, "the producer's state")


def test_outcomes_wait_in_order_where_the_queue_is_full(bench: Bench) -> None:
    """More than the client's queue holds: it says that it is full; all come, in order, once."""
    producer = GaplessProducer(bench.settings, _raise, queue_buffering_max_messages=10)
    topic, outcomes = bench.names.outcomes("default"), _outcomes(1_000)
    producer.send_all(topic, 0, outcomes)
    assert producer.full
    assert len(producer) > 900
    _poll_until(producer, lambda: not producer.full)
    assert producer.flush(PATIENCE_S) == 0
    assert [record.value for record in bench.read(topic)[0]] == outcomes.values


def test_outcomes_outlast_a_pause_longer_than_any_time_out(
    bench: Bench, bandstand_kafka: Kafka
) -> None:
    """Under way when the broker falls silent, they come before all that was sent after it."""
    producer = GaplessProducer(bench.settings, _raise)
    topic = bench.names.outcomes("default")
    producer.send_all(topic, 0, _outcomes(10))
    assert producer.flush(PATIENCE_S) == 0
    bandstand_kafka.pause()
    try:
        # Request after request: what is in the first five, the broker takes when it is back.
        for start in range(10, 1_010, 50):
            producer.send_all(topic, 0, _outcomes(50, start))
            sent = time.monotonic()
            _poll_until(producer, partial(_has_passed, sent + 0.03))
        end = time.monotonic() + STOP_S
        _poll_until(producer, partial(_has_passed, end))
    finally:
        bandstand_kafka.resume()
    producer.send_all(topic, 0, _outcomes(1_000, start=1_010))
    _poll_until(producer, lambda: not len(producer))
    got = [record.value for record in bench.read(topic)[0]]
    assert list(dict.fromkeys(got)) == _outcomes(2_010).values
