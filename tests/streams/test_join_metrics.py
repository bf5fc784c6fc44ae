"""The join's metrics: a real worker's figures against what it was given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from bandstand.schemas.topics import TICK_KEY
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_metrics import JoinCollector, RewardDelays
from bandstand.streams.join_types import TICK_HEADER, Record, Records, Rules, Tail
from bandstand.streams.lanes import OwnPartition
from bandstand.streams.tail import LogEnds
from bandstand.streams.ticker import TickState
from tests.streams.bench import WIRE, Bench, decision
from tests.waiting import PATIENCE_S, until

Figures = dict[tuple[str, ...], float]


@pytest.fixture
def bench(bandstand_kafka: Any, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Make a lane of one partition with a window of 25 minutes."""
    bench = Bench(
        bandstand_kafka,
        bandstand_prefix,
        tmp_path,
        partitions=1,
        BANDSTAND_LANES__DEFAULT__WINDOW="25m",
    )
    yield bench
    bench.close()


def figures(text: str) -> dict[str, Figures]:
    """Give the join's samples by metric, each under its labels' values but lane and partition."""
    found: dict[str, Figures] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("bandstand_join_") and not sample.name.endswith("_created"):
                labels = dict(sample.labels)
                assert (labels.pop("lane", "default"), labels.pop("partition", "0")) == (
                    "default",
                    "0",
                )
                values = tuple(labels.values())
                found.setdefault(sample.name.removeprefix("bandstand_join_"), {})[values] = (
                    sample.value
                )
    return found


def given(bench: Bench) -> int:
    """Send decisions whose window is over, with rewards, and one that stays open; give its time."""
    now = int(time.time() * 1_000)
    old = now - 30 * 60_000
    for i, delay in enumerate([-0, 500, 1_000, 1_001, 90_000, 1_200_000]):
        bench.reward(f"d{i}", old + delay)
    bench.reward("d0", old + 26 * 60_000)
    bench.reward("d1", old, float("inf"))
    bench.send("rewards", "d2", b"{}", old)
    bench.producer.flush(PATIENCE_S)
    for i in range(8):
        bench.send("decisions", f"d{i}", WIRE.dumps("decision", decision(f"d{i}", old)), old)
    bench.send("decisions", "d3", WIRE.dumps("decision", decision("d3", old)), old)
    wrong = now - 2 * 60 * 60_000
    bench.producer.flush(PATIENCE_S)
    for name in ("w0", "w1"):
        bench.send("decisions", name, WIRE.dumps("decision", decision(name, wrong)), wrong)
    bench.send("decisions", "x", b"\xc3\x01", old)
    bench.producer.flush(PATIENCE_S)
    bench.send("decisions", "open", WIRE.dumps("decision", decision("open", now)), now)
    bench.producer.flush(PATIENCE_S)
    return now


def test_every_figure_is_that_of_the_input(bench: Bench) -> None:
    """Each metric of the join, scraped from a worker, says what its logs hold."""
    worker = bench.start()
    # A tick before the first record, so that a time can be wrong.
    until(lambda: bool(bench.read(bench.names.decisions("default")).get(0)), "a tick")
    opened = given(bench)
    bench.wait_for([f"d{i}" for i in range(8)])
    until(lambda: figures(worker.get("/metrics"))["waiting_decisions"][()] == 1, "the open one")
    text = worker.get("/metrics")
    now, found = time.time(), figures(text)
    looks = LogEnds(bench.settings)
    _, end = looks.bounds(bench.names.decisions("default"), 0)
    looks.close()
    log = bench.read(bench.names.decisions("default"))[0]
    [place] = [record.offset for record in log if record.key == b"open"]
    before = max(r.timestamp for r in log if r.key == TICK_KEY and r.offset < place)
    assert found.pop("decisions_total") == {
        ("joined",): 6,
        ("defaulted",): 2,
        ("duplicate",): 1,
        ("invalid",): 3,
    }
    assert found.pop("outcomes_total") == {(): 8}
    assert found.pop("refused_total") == {
        ("decisions", "clock"): 2,
        ("decisions", "truncated"): 1,
        ("rewards", "value"): 1,
        ("rewards", "magic"): 1,
    }
    rewards = found.pop("rewards_total")
    assert {state: count for state, count in rewards.items() if count} == {
        ("joined",): 6,
        ("invalid",): 2,
    }
    assert found.pop("reward_delay_seconds_count") == {(): 6}
    assert found.pop("reward_delay_seconds_sum") == {(): pytest.approx(1_292.501)}
    buckets = found.pop("reward_delay_seconds_bucket")
    assert list(buckets.items())[:7] == [
        (("1.0",), 3),
        (("10.0",), 4),
        (("30.0",), 4),
        (("60.0",), 4),
        (("300.0",), 5),
        (("600.0",), 5),
        (("1800.0",), 6),
    ]
    assert list(buckets)[-2:] == [("2592000.0",), ("+Inf",)]
    assert found.pop("waiting_decisions") == {(): 1}
    assert found.pop("index_rewards") == {(): 7}
    assert found.pop("oldest_waiting_seconds")[()] == pytest.approx(now - opened / 1_000, abs=0.5)
    records, seconds = (found.pop(f"decision_lag_{unit}")[()] for unit in ("records", "seconds"))
    assert end - place - 15 <= records <= end - place
    assert seconds == pytest.approx(now - before / 1_000, abs=1)
    ages = found.pop("watermark_age_seconds")
    assert ages.keys() == {("decisions",), ("rewards",)}
    assert 0 <= min(ages.values()) <= max(ages.values()) < 5
    ticks = found.pop("without_tick_seconds")
    assert {log for log, _ in ticks} == {"decisions", "rewards"}
    assert max(ticks.values()) < 5
    assert found.pop("brake_engaged") == {("decisions",): 0, ("rewards",): 0}
    assert found.pop("rebalances_total")[()] >= 1
    assert found == {}

    def lag_grows() -> bool:
        found = figures(worker.get("/metrics"))
        more = found["decision_lag_records"][()] - records
        return more > 3 and found["decision_lag_seconds"][()] > seconds + 0.6

    until(lag_grows, "a lag that grows with each tick behind the open decision")


def test_the_lag_counts_what_isnt_read_yet() -> None:
    """Where reading is held back, the log's end behind this worker's last tick gives the lag."""
    rules = Rules(60_000, 0, 1_000, 0, 10_000)
    core = JoinCore(
        rules, WIRE, max_outcome_bytes=1_000, tail=None, decision_start=0, reward_start=0
    )
    topics = {"decisions": "a.decisions", "rewards": "a.rewards", "outcomes": "a.outcomes"}
    own = OwnPartition("a", 3, core, topics)
    ticks = [
        Record(at, ts, TICK_KEY, None, [(TICK_HEADER, rules.to_header())])
        for at, ts in enumerate((10_000, 20_000))
    ]
    own.push("decisions", Records.of(ticks))
    state = TickState(0.5, "due", False, time=95_000, end=500)
    lanes: Any = SimpleNamespace(own=[own], ticker=SimpleNamespace(state=lambda _place: state))
    registry = CollectorRegistry()
    JoinCollector(lanes, registry)
    labels = {"lane": "a", "partition": "3"}
    lag = [
        registry.get_sample_value(f"bandstand_join_decision_lag_{unit}", labels)
        for unit in ("records", "seconds")
    ]
    assert lag == [498, 75]


def test_what_an_owner_before_has_refused_is_not_counted_again() -> None:
    """Decisions up to the tail were counted by whoever wrote it; those behind it were not."""
    rules = Rules(60_000, 0, 1_000, 0, 10_000)
    core = JoinCore(
        rules,
        WIRE,
        max_outcome_bytes=1_000,
        tail=Tail(1, 10_000),
        decision_start=0,
        reward_start=0,
    )
    bad = [Record(at, 10_000, b"d", b"{}", ()) for at in (1, 2)]
    tick = [(TICK_HEADER, rules.to_header())]
    records = [
        Record(0, 10_000, TICK_KEY, None, tick),
        *bad,
        Record(3, 11_000, TICK_KEY, None, tick),
    ]
    output = core.push_decisions(Records.of(records))
    assert [(one.record.offset, one.again) for one in output.refusals] == [(1, True), (2, False)]
    assert output.decisions["invalid"] == 1


def test_delays_fall_into_the_buckets_of_prometheus() -> None:
    """A bucket holds what is at most its bound; batches and partitions add up, none is negative."""
    delays = RewardDelays()
    delays.add("a", 0, [-5_000, 1_000, 1_001])
    delays.add("a", 0, [31 * 86_400_000])
    delays.add("a", 1, [0])
    samples = {
        (sample.labels["partition"], sample.labels.get("le", sample.name[-5:])): sample.value
        for sample in delays.collect().samples
    }
    assert samples["0", "1.0"] == 2
    assert samples["0", "10.0"] == samples["0", "2592000.0"] == 3
    assert samples["0", "+Inf"] == samples["0", "count"] == 4
    assert samples["0", "s_sum"] == pytest.approx(2.001 + 31 * 86_400)
    assert samples["1", "1.0"] == 1
