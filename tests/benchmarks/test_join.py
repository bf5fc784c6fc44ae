"""The join's benchmark runs in a small size, so that its harness can't rot; no speed is judged."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bandstand.local import Kafka
from benchmarks.join import growth, memory, results
from benchmarks.join.contestants import CONTESTANTS, Contestant
from benchmarks.join.process_tree import Cost
from benchmarks.join.stage import Stage, take_turns
from benchmarks.join.tally import Outcome, Tally, account
from benchmarks.join.turn import Sample, figures
from benchmarks.join.workload import BASE, RULES, Traffic, Workload
from benchmarks.report import machine

DECISIONS = 5_000
SMOKED = ("bandstand", "read-only")


def smoke(
    kafka: Kafka, prefix: str, folder: Path, contestants: list[Contestant]
) -> tuple[list[results.Row], dict[str, str]]:
    """Let contestants run once, in a small size; give the rows, and who failed."""
    failures: dict[str, str] = {}
    *_, runs = take_turns(
        Stage(kafka.bootstrap_servers, prefix, folder),
        contestants,
        DECISIONS,
        1,
        lambda _: None,
        lambda name, error: failures.update({name: str(error)}),
    )
    rows = [results.row(c, DECISIONS, runs[c.name]) for c in contestants if c.name in runs]
    return rows, failures


def test_bandstand_and_the_floor_run(
    bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path
) -> None:
    """Real workers join a real log, each decision gets the right outcome, and all is written."""
    wanted = [contestant for contestant in CONTESTANTS if contestant.name in SMOKED]
    rows, failures = smoke(bandstand_kafka, bandstand_prefix, tmp_path, wanted)
    assert failures == {}
    ours, floor = rows
    assert (ours["outcomes"], ours["joined"]) == (DECISIONS, DECISIONS // 20)
    assert ours["right"]
    assert floor["right"] is None
    for each in rows:
        rate = each["decisions_per_second"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert each["cpu_seconds_per_million"] > 0
        assert each["rss_mb"] > 10
    assert results.table(rows).row_count == len(SMOKED)
    path = results.write(tmp_path / "build", rows, results.facts(DECISIONS))
    assert [each["name"] for each in json.loads(path.read_text())] == list(SMOKED)
    assert path.with_suffix(".png").stat().st_size > 10_000


def test_a_contestant_that_ends_is_named_and_left_out(
    bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path
) -> None:
    """One that fails costs the others nothing, and whoever reads the results learns of it."""
    floor = next(contestant for contestant in CONTESTANTS if contestant.name == "read-only")
    program = shutil.which("false")
    assert program is not None
    failing = replace(
        floor,
        name="failing",
        commands=lambda place: [floor.commands(place)[0]._replace(arguments=[program])],
    )
    rows, failures = smoke(bandstand_kafka, bandstand_prefix, tmp_path, [failing])
    assert rows == []
    assert re.search(r"ended with 0 of 5,000 outcomes; see .*failing", failures["failing"])


def test_growth_is_measured_and_drawn(
    bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path
) -> None:
    """Traffic of each kind is joined rightly, the base once for all panels, and all is shown."""
    large = Traffic(partitions=1, rewarded_percent=100, decision_bytes=1_000)
    kinds = [
        growth.Case(growth.PARTITIONS, "base", 2, BASE),
        growth.Case(growth.PAYLOAD, "base", 0.235, BASE),
        growth.Case(growth.PAYLOAD, "large", 1, large),
    ]
    told: list[str] = []
    rows = growth.measure(
        bandstand_kafka.bootstrap_servers, kinds, 2_000, 1, tmp_path, told.append, bandstand_prefix
    )
    assert told == ["1/2 base", "2/2 large"]
    assert [(each["outcomes"], each["joined"], each["right"]) for each in rows] == [
        (2_000, 100, True),
        (2_000, 100, True),
        (2_000, 2_000, True),
    ]
    assert growth.table(rows).row_count == len(kinds)
    text = growth.page(rows, {"date": "today", "rounds": 1, "machine": machine()})
    assert text.count("2,000 (100)") == 2
    growth.draw(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_what_is_measured_of_growth_differs_from_the_base_in_one_thing() -> None:
    """So that what a panel shows is what its axis says."""
    for case in growth.CASES:
        differing = sum(a != b for a, b in zip(case.traffic, BASE, strict=True))
        assert differing == (case.traffic != BASE)
    assert [case.panel for case in growth.CASES if case.traffic == BASE] == [
        growth.PARTITIONS,
        growth.REWARDED,
        growth.PAYLOAD,
    ]
    assert len(Workload(100, 1_800_000_000_000, BASE._replace(rewarded_percent=0)).rewarded) == 0
    for percent in (5, 50, 100):
        traffic = BASE._replace(rewarded_percent=percent)
        assert len(Workload(400, 1_800_000_000_000, traffic).rewarded) == 4 * percent


def test_memory_is_measured_and_drawn(
    bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path
) -> None:
    """A worker catches up through a gap in the ticks, another comes back; both are shown."""
    stage = memory.Stage(bandstand_kafka.bootstrap_servers, tmp_path, bandstand_prefix)
    behind = [
        memory.catch_up(stage, memory.CatchUp("gap", 5_000, memory.MINUTE, gap_ms=(200, 900)))
    ] * 3
    back = [memory.come_back(stage, "a minute", memory.MINUTE, 10)]
    assert behind[0]["outcome_records"] >= 5_000
    assert 50 < behind[0]["second_half_mb"] <= behind[0]["peak_mb"]
    assert back[0]["rewards_in_memory"] > 100
    assert back[0]["seconds_until_ready"] > 0
    memory.draw(behind, back, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").stat().st_size > 10_000
    facts = memory.facts(behind, 5.0)
    assert "The peak at 5,000 decisions is 1.00 times" in memory.page(facts, behind, back)


def test_whatever_is_wrong_with_the_outcomes_is_counted() -> None:
    """A peer that loses, repeats or falsifies outcomes is shown with how many."""
    workload = Workload(40, 1_800_000_000_000)
    right = [Outcome(workload.key(n), joined=n % 20 == 0) for n in range(40)]
    closing = [Outcome(event.key, joined=True) for event in workload.closing()[0]]
    assert account([*right, *closing], workload) == Tally(40, 2, 0, 0, 0)
    assert account(right, workload).right
    for found, expected in (
        (right[1:], Tally(39, 1, missing=1, repeated=0, wrong=0)),
        ([*right, right[3]], Tally(41, 2, missing=0, repeated=1, wrong=0)),
        ([right[0]._replace(joined=False), *right[1:]], Tally(40, 1, 0, 0, wrong=1)),
        ([*right, right[0]._replace(joined=False)], Tally(41, 2, 0, repeated=1, wrong=1)),
    ):
        assert account(found, workload) == expected
        assert not expected.right


def test_rewards_lie_in_their_windows_and_ticks_reach_beyond_the_last() -> None:
    """The logs are such that there is one right answer, and that it can be given."""
    workload = Workload(20_000, 1_800_000_000_000)
    decided = {event.key: event.ts for event in workload.decisions()}
    assert len(decided) == 20_000
    rewards = list(workload.rewards())
    assert [r.ts for r in rewards] == sorted(r.ts for r in rewards)
    assert len({r.key for r in rewards}) == len(workload.rewarded) == len(rewards)
    assert all(0 <= r.ts - decided[r.key] < RULES.window_ms for r in rewards)
    last = max(event.ts for event in workload.ticks())
    assert max(decided.values()) + RULES.window_ms + RULES.grace_ms < last <= 1_800_000_000_000
    assert min(event.ts for event in workload.closing()[0]) > last - 3_000


def test_the_steady_part_is_what_lies_between_a_tenth_and_nine_tenths() -> None:
    """A slow start and a slow end change the whole run's rate, not the steady one."""
    samples = [
        Sample(0.0, 0, Cost(0.0, 10.0)),
        Sample(5.0, 100, Cost(4.0, 50.0)),
        Sample(6.0, 500, Cost(5.0, 60.0)),
        Sample(7.0, 900, Cost(6.0, 70.0)),
        Sample(17.0, 1000, Cost(6.5, 80.0)),
    ]
    found = figures(samples, 2_000)
    assert found.decisions_per_second == pytest.approx(0.8 * 2_000 / 2.0)
    assert found.whole_decisions_per_second == pytest.approx(2_000 / 17.0)
    assert found.cpu_s_per_million == pytest.approx(6.5 / 0.002)
    assert found.steady_cpu_s_per_million == pytest.approx(2.0 / 0.0016)
    assert (found.rss_mb, found.longest_stall_ms) == (80.0, 1000.0)
