"""Changes of rewards: found soon where there is one, hardly ever where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bandstand.errors import SpecError
from bandstand.learners.drift import Change, acted, changes
from bandstand.learners.policies import policy_from_snapshot
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.schemas.spec_drift import moment, moment_ms
from tests.learners.given import batch, outcome

STEP_MS = 1_000
A_STEP = 120
"""Decisions a step, spread over three actions."""


def spec_of(detector: str = "adwin", **more: Any) -> Spec:
    """Give a spec that watches."""
    drift = {"step": "1s", "detector": detector, **more.pop("drift", {})}
    return Spec.model_validate(
        {
            "bandit": "paint",
            "actions": ["red", "green", "blue"],
            "policy": {"name": "beta_thompson"},
            "reward": {"name": "click"},
            "drift": drift,
            **more,
        }
    )


def events(rates: list[tuple[int, float, float, float]], seed: int = 1) -> list[dict[str, Any]]:
    """Give outcomes: for so many steps each, chances of red, green and blue."""
    rng, found, number = np.random.default_rng(seed), [], 0
    for steps, *chances in rates:
        for _ in range(steps * A_STEP):
            index = int(rng.integers(3))
            value = float(rng.random() < chances[index])
            ts = 1_000_000 + number * STEP_MS // A_STEP
            found.append(outcome(("red", "green", "blue")[index], [value], ts=ts))
            number += 1
    return found


def learned(spec: Spec, records: list[dict[str, Any]]) -> Statistics:
    """Give what they teach."""
    return Statistics.empty(spec).update(batch(records))


@pytest.mark.parametrize("detector", ["adwin", "page_hinkley"])
def test_swapped_rewards_are_found_within_a_thousand_outcomes_each(detector: str) -> None:
    """Red and green change places after 60 steps; 25 steps later both are known."""
    spec = spec_of(detector)
    before = events([(60, 0.3, 0.1, 0.2)])
    assert changes(spec, learned(spec, before).sums) == []
    found = changes(spec, learned(spec, events([(60, 0.3, 0.1, 0.2), (25, 0.1, 0.3, 0.2)])).sums)
    assert [change.action for change in found] == ["red", "green"]
    swapped = 1_000_000 + 60 * STEP_MS
    for change in found:
        assert swapped < change.found <= swapped + 25 * STEP_MS
        assert change.began < change.found
        assert (change.after > change.before) == (change.action == "green")
    if detector == "adwin":
        assert all(abs(change.began - swapped) <= 5 * STEP_MS for change in found)


@pytest.mark.parametrize(("detector", "most"), [("adwin", 1), ("page_hinkley", 5)])
def test_false_alarms_are_rare(detector: str, most: int) -> None:
    """Over 100 bandits of 30,000 decisions without a change: so many actions are suspected."""
    spec = spec_of(detector)
    suspected = 0
    rng = np.random.default_rng(9)
    empty = Statistics.empty(spec).sums
    for _ in range(100):
        sums = {name: array.copy() for name, array in empty.items()}
        sums["drift.block.index"][:] = np.arange(256)
        counts = rng.multinomial(A_STEP, [1 / 3] * 3, 256)
        sums["drift.outcomes"][:] = counts
        sums["drift.reward"][:] = 4096 * rng.binomial(counts, [0.3, 0.1, 0.5])
        suspected += len(changes(spec, sums))
    assert suspected <= most


def test_workers_and_order_change_no_series() -> None:
    """The series is the same in any order, over any partitions; so is what is found in it."""
    spec = spec_of()
    records = events([(40, 0.3, 0.1, 0.2), (20, 0.1, 0.4, 0.2)])
    whole = learned(spec, records)
    order = np.random.default_rng(4).permutation(len(records))
    parts = [learned(spec, [records[i] for i in order[part::3]]) for part in range(3)]
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert merged.digest() == whole.digest()
    assert changes(spec, merged.sums) == changes(spec, whole.sums) != []
    arrays = whole.arrays()
    back = Statistics.from_arrays(spec, arrays, {}, whole.outcomes, whole.newest)
    assert back.update(batch(records[:10])).digest() == whole.update(batch(records[:10])).digest()


def test_sparse_actions_and_the_newest_step_wait() -> None:
    """Steps with few outcomes make a point together; a step that goes on isn't looked at."""
    spec = spec_of(drift={"outcomes": 200})
    records = events([(100, 0.5, 0.1, 0.2), (60, 0.05, 0.1, 0.2)])
    [change] = changes(spec, learned(spec, records).sums)
    assert change.action == "red"
    assert change.after < 0.2 < change.before
    few = spec_of(drift={"outcomes": 10_000})
    assert changes(few, learned(few, records).sums) == []
    assert changes(spec, Statistics.empty(spec).sums) == []


CHANGE = Change("red", 1_060_000, 1_070_000, 0.3, 0.1)


def test_an_epoch_drops_what_was_before() -> None:
    """The new spec learns only what came since, and looks only there for further changes."""
    spec = spec_of(drift={"act": "epoch"})
    records = events([(60, 0.3, 0.1, 0.2), (40, 0.1, 0.3, 0.2)])
    found = changes(spec, learned(spec, records).sums)
    change = max(found, key=lambda c: c.began)
    again = acted(spec, change)
    assert again.since == moment(change.began)
    assert again.drift is not None
    assert again.drift.since == again.since
    statistics = learned(again, records)
    assert changes(again, statistics.sums) == []
    old = sum(r["decision"]["ts"] < change.began for r in records)
    assert statistics.counters["before_since"] == old > 0
    assert statistics.outcomes == len(records) - old
    assert Spec.from_canonical(again.canonical()) == again
    choice = policy_from_snapshot(build(again, statistics, 1, "", {})).decide({}, again.actions)
    assert choice.probabilities.argmax() == 1


def test_exploring_holds_for_a_while() -> None:
    """The floor is wider until an outcome of a later decision is known."""
    spec = spec_of(drift={"act": "explore", "floor": 0.2, "widen": "1h"}, floor=0.01)
    wider = acted(spec, CHANGE)
    assert wider.widened is not None
    until = moment_ms(wider.widened.until)
    assert until == CHANGE.found + 3_600_000
    for ts, floor in ((until - 1, 0.2), (until, 0.01)):
        records = [outcome("red", [1.0], ts=ts)] * 500 + [outcome("green", [0.0], ts=ts)] * 500
        snapshot = build(wider, learned(wider, records), 1, "", {})
        choice = policy_from_snapshot(snapshot).decide({}, wider.actions)
        assert np.isclose(choice.probabilities.min(), floor)
    assert wider.at(None).floor == 0.2


def test_a_half_life_is_halved() -> None:
    """Down to eight seconds; an alert changes nothing."""
    spec = spec_of(drift={"act": "half_life"}, forget={"half_life": "30s"})
    once = acted(spec, CHANGE)
    assert once.forget is not None
    assert once.canonical().count('"half_life":"15s"') == 1
    twice = acted(acted(once, CHANGE), CHANGE)
    assert twice.canonical().count('"half_life":"8s"') == 1
    short = spec_of(drift={"act": "half_life"}, forget={"half_life": "4s"})
    assert acted(short, CHANGE).forget == short.forget
    assert acted(spec_of(), CHANGE) == spec_of()


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        ("{}", "drift.step: missing"),
        ("{step: 1h, detector: adwim}", "'adwim'; did you mean 'adwin'? allowed: adwin, page_hin"),
        (
            "{step: 1h, act: explore}",
            "drift.floor: None belongs to act: explore, and must be there",
        ),
        ("{step: 1h, widen: 1d}", "drift.widen"),
        ("{step: 1h, act: half_life}", "shortens the half-life, but the spec has no forget"),
        ("{step: 1h, act: explore, floor: 0.6, widen: 1d}", "a floor above 1 / number of actions"),
        ("{step: 1h, since: yesterday}", "drift.since: 'yesterday'"),
    ],
)
def test_refusals(drift: str, message: str) -> None:
    """Each says what is wrong and what is allowed."""
    text = "bandit: p\nactions: [x, y]\npolicy: {name: ucb1}\nreward: {name: r}\ndrift: DRIFT\n"
    with pytest.raises(SpecError) as caught:
        parse_spec(text.replace("DRIFT", drift), "p.yaml")
    assert message in str(caught.value)
