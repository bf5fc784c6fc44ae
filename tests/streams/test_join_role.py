"""The role ``join`` on a real broker: what goes in, what comes out, whatever is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_END,
    ConsumerGroupTopicPartitions,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from bandstand.kafka import admin, producer_config
from bandstand.schemas.topics import TICK_KEY
from bandstand.streams import topics
from bandstand.streams.join_types import Rules
from tests.streams.bench import RUN, WIRE, Bench, decision
from tests.waiting import PATIENCE_S, STOPS_WITHIN_S, until


@pytest.fixture
def bench(bandstand_kafka: Any, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Make a lane of two partitions with a window of a second."""
    bench = Bench(bandstand_kafka, bandstand_prefix, tmp_path)
    yield bench
    bench.close()


def _lag(bench: Bench) -> list[int]:
    """Give the group's lag in each log, as ordinary tools see it."""
    group = bench.settings.join.group
    client = admin(bench.settings)
    request = [ConsumerGroupTopicPartitions(group)]
    found = client.list_consumer_group_offsets(request)[group].result().topic_partitions
    latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    ends = client.list_offsets(dict.fromkeys(found, latest))
    end = {(tp.topic, tp.partition): future.result().offset for tp, future in ends.items()}
    return [end[tp.topic, tp.partition] - tp.offset for tp in found]


def test_outcomes_are_those_of_the_pure_core(bench: Bench) -> None:
    """Decisions and rewards go in, the outcomes of the pure core come out, SIGTERM is clean."""
    worker = bench.start()
    ids = bench.decide(200)
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()
    assert '"waiting": {}' in worker.get("/readyz")
    assert 'bandstand_join_decisions_total{lane="default",partition="0"' in worker.get("/metrics")
    assert worker.post("/clock/accept") == "done\n"
    worker.wait_until_logged("accepted by an operator")
    until(lambda: len(lag := _lag(bench)) == 4 and all(0 <= x < 30 for x in lag), "a small lag")
    code, seconds = worker.stop()
    assert code == 0
    assert seconds < STOPS_WITHIN_S


def test_a_killed_worker_loses_nothing(bench: Bench) -> None:
    """Killed in the middle and started again: every decision has its outcome, once, unchanged."""
    worker = bench.start()
    ids = bench.decide(100)
    bench.wait_for(ids[:50])
    ids += bench.decide(100)
    worker.kill()
    ids += bench.decide(100)
    bench.start()
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()


def test_faust_command_line_runs_the_same_app(bench: Bench) -> None:
    """The app is one that Faust's own command line finds and runs."""
    worker = bench.start(
        [sys.executable, "-m", "faust", "-A", "bandstand.streams.app", "worker", "-l", "info"]
    )
    ids = bench.decide(50)
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()
    code, seconds = worker.stop()
    assert code == 0
    assert seconds < STOPS_WITHIN_S


def test_two_workers_share_and_one_takes_over(bench: Bench) -> None:
    """A second worker takes its share; when one is killed the other one gives its outcomes."""
    first = bench.start()
    first.wait_until_logged("took over")
    second = bench.start()
    second.wait_until_logged("took over")
    ids = bench.decide(100)
    bench.wait_for(ids)
    first.kill()
    ids += bench.decide(100)
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()
    assert second.stop()[0] == 0


def test_logs_that_a_starting_broker_denies_are_assigned_once_it_knows_them(bench: Bench) -> None:
    """A group that was assigned nothing, as its leader knew no topics, gets them in seconds."""
    client, logs = admin(bench.settings), bench.names.lane("default")[:2]
    for future in client.delete_topics(list(logs)).values():
        future.result(PATIENCE_S)
    until(lambda: not set(logs) & set(client.list_topics(timeout=5).topics), "no topics")
    unchecked = "from bandstand.streams import topics; topics.require = lambda settings: None; "
    worker = bench.start([sys.executable, "-c", unchecked + RUN])
    worker.wait_until_logged("all=0")
    topics.create(bench.settings)
    worker.wait_until_logged("took over")
    bench.wait_for(bench.decide(10))


def test_poison_goes_to_the_dead_letters_and_the_partition_goes_on(bench: Bench) -> None:
    """Each broken record gives one letter with its reason and bytes, and stops nothing."""
    now = int(time.time() * 1_000)
    good = WIRE.dumps("decision", decision("other", now))
    poison = {
        "magic": b"{}",
        "empty": b"",
        "truncated": good[:-5],
        "schema": b"\xc3\x01" + b"\x00" * 8 + good[10:],
        "key": good,
        "noise": os.urandom(900_000),
    }
    bench.start()
    ids = bench.decide(20)
    for key, value in poison.items():
        bench.send("decisions", key, value, now)
        bench.send("rewards", key, value[:-1] or b"\x00", now)
    ids += bench.decide(20)
    bench.wait_for(ids)
    until(lambda: len(bench.dead_letters()) == 2 * len(poison), "all dead letters")
    letters = [x for x in bench.dead_letters() if x["topic"].endswith(".decisions")]
    assert {x["key"]: x["value"] for x in letters} == {k.encode(): v for k, v in poison.items()}
    reasons = {x["key"].decode(): x["reason"] for x in letters}
    assert reasons.pop("noise") in ("magic", "schema")
    assert reasons == {name: name for name in reasons}
    bench.assert_equal_to_the_pure_core()


def test_transactions_that_are_aborted_never_happened(bench: Bench) -> None:
    """Both logs written in transactions: what was committed is joined, the rest isn't there."""
    worker = bench.start()
    plain = bench.producer
    bench.producer = Producer(
        producer_config(bench.settings, transactional_id=bench.names.dead_letters)
    )
    bench.producer.init_transactions(PATIENCE_S)
    ids: list[str] = []
    for number in range(6):
        bench.producer.begin_transaction()
        made = bench.decide(10, reward_every=2)
        if number % 2:
            bench.producer.abort_transaction(10)
        else:
            bench.producer.commit_transaction(PATIENCE_S)
            ids += made
    bench.producer = plain
    ids += bench.decide(10)
    bench.wait_for(ids)
    assert bench.states().keys() == set(ids)
    assert {bench.states()[i] for i in ids[:30:2]} == {"joined"}
    bench.assert_equal_to_the_pure_core()
    assert worker.stop()[0] == 0


def test_records_deleted_before_they_were_read_end_the_worker(bench: Bench) -> None:
    """A worker that was held back finds its log trimmed: exit code 70, and what was lost."""
    # One that was expelled meanwhile takes its logs over anew, from where they begin now.
    bench.environment["BANDSTAND_JOIN__SESSION_TIMEOUT"] = "1m"
    worker = bench.start()
    bench.wait_for(bench.decide(20))
    worker.process.send_signal(signal.SIGSTOP)
    bench.decide(500)
    places = [TopicPartition(bench.names.decisions("default"), p, OFFSET_END) for p in range(2)]
    client = admin(bench.settings)
    for answer in client.delete_records(places).values():
        answer.result(PATIENCE_S)
    worker.process.send_signal(signal.SIGCONT)
    assert worker.process.wait(PATIENCE_S) == 70
    assert "were deleted before they were read" in worker.log.read_text()


def test_an_error_ends_the_worker_loudly_and_moves_nothing(bench: Bench) -> None:
    """A log that contradicts the settings: exit code 70, the reason logged, no outcome after it."""
    worker = bench.start()
    ids = bench.decide(20)
    bench.wait_for(ids)
    rules = Rules.from_settings(bench.settings.lanes["default"])._replace(lateness_ms=1)
    headers: Any = [("tick", rules.to_header())]
    for partition in range(2):
        bench.producer.produce(
            bench.names.decisions("default"),
            None,
            TICK_KEY,
            partition,
            timestamp=int(time.time() * 1_000),
            headers=headers,
        )
    bench.producer.flush(PATIENCE_S)
    assert worker.process.wait(PATIENCE_S) == 70
    assert "lateness, backward and skew are a lane's for good" in worker.log.read_text()


def test_sigterm_ends_a_worker_whose_broker_is_dead(bench: Bench, bandstand_kafka: Any) -> None:
    """A frozen broker doesn't hold a worker back."""
    worker = bench.start()
    bench.wait_for(bench.decide(20))
    bench.decide(20)
    bandstand_kafka.pause()
    try:
        code, seconds = worker.stop()
    finally:
        bandstand_kafka.resume()
    assert code == 0
    assert seconds < STOPS_WITHIN_S


def test_an_outage_of_the_broker_closes_nothing_behind_its_back(
    bandstand_kafka: Any, bandstand_prefix: str, tmp_path: Path
) -> None:
    """Decisions and rewards that wait in producers while the broker is away are joined."""
    bench = Bench(
        bandstand_kafka,
        bandstand_prefix,
        tmp_path,
        BANDSTAND_JOIN__PAUSE="1s",
        BANDSTAND_JOIN__SETTLE="3s",
    )
    try:
        worker = bench.start()
        bench.wait_for(bench.decide(20))
        bandstand_kafka.pause()
        try:
            ids = bench.decide(40, reward_every=1, flush=False)
            time.sleep(3)
        finally:
            bandstand_kafka.resume()
        bench.producer.flush(PATIENCE_S)
        bench.wait_for(ids)
        worker.wait_until_logged("no ticks until it settles")
        assert {bench.states()[i] for i in ids} == {"joined"}
        bench.assert_equal_to_the_pure_core()
        assert not bench.dead_letters()
    finally:
        bench.close()
