"""Statistics are exact sums: a commutative group that nothing can poison."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.errors import StateError
from bandstand.learners.features import Features
from bandstand.learners.grid import CHUNK, HEADROOM, LIMIT, STEPS, to_steps
from bandstand.learners.protocols import AdditiveLearner, Rows
from bandstand.learners.registry import learner_of
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from tests.learners.given import batch, beta_spec, linear_spec, outcome, outcomes, oversize

RANGE = {"aggregate": "sum", "low": -5.0, "high": 7.5}
SPECS = [
    linear_spec(reward=RANGE, prior_precision=2.5, noise_variance=0.3),
    beta_spec(reward=RANGE, prior_successes=0.7, prior_failures=3.0),
]


def learned(spec: Spec, *records: dict[str, Any]) -> Statistics:
    """Learn records in one batch."""
    return Statistics.empty(spec).update(batch(records))


def state(statistics: Statistics) -> tuple[str, int, dict[str, int]]:
    """All that is a group."""
    return statistics.digest(), statistics.outcomes, dict(statistics.counters)


@pytest.mark.parametrize("spec", SPECS, ids=["linear", "beta"])
@settings(deadline=None)
@given(records=st.lists(outcomes, max_size=12), data=st.data())
def test_any_order_and_any_split_give_the_same_bits(
    spec: Spec, records: list[dict[str, Any]], data: st.DataObject
) -> None:
    """One batch, a permutation, one by one, and merged parts have equal digests and counters."""
    whole = learned(spec, *records)
    shuffled = data.draw(st.permutations(records))
    cut = data.draw(st.integers(0, len(records)))
    one_by_one = Statistics.empty(spec)
    for record in shuffled:
        one_by_one = one_by_one.update(batch([record]))
    left, right = learned(spec, *shuffled[:cut]), learned(spec, *shuffled[cut:])
    assert state(one_by_one) == state(whole)
    assert state(left.merge(right)) == state(right.merge(left)) == state(whole)
    assert left.merge(right).newest == whole.newest


@pytest.mark.parametrize("spec", SPECS, ids=["linear", "beta"])
@settings(deadline=None)
@given(some=st.lists(outcomes, max_size=6), more=st.lists(outcomes, max_size=6))
def test_subtract_undoes_merge(
    spec: Spec, some: list[dict[str, Any]], more: list[dict[str, Any]]
) -> None:
    """What was added can be taken away again, to the bit, also below nothing."""
    first, second = learned(spec, *some), learned(spec, *more)
    empty = Statistics.empty(spec)
    assert state(first.merge(second).subtract(second)) == state(first)
    assert state(empty.subtract(first).merge(first)) == state(empty)


@settings(deadline=None)
@given(records=st.lists(outcomes, min_size=1, max_size=8))
def test_sums_are_those_of_whole_numbers(records: list[dict[str, Any]]) -> None:
    """Every sum equals the one computed with Python's whole numbers from the same rows."""
    spec = SPECS[0]
    statistics = learned(spec, *records)
    table = batch(records)
    built = Features(spec).matrix(table.column("decision"))
    width = built.steps.shape[1] + 1
    totals = np.zeros((len(spec.actions), width, width), dtype=object)
    for row, record in enumerate(records):
        action = record["decision"]["action"]
        clicks = [r["value"] for r in record["rewards"] if _counts(r)]
        bad = any(mask[row] for mask in built.rejected.values())
        if action == "violet" or bad or len(clicks) < sum(_click(r) for r in record["rewards"]):
            continue
        value = min(max(reduce(add, clicks, 0.0), -5.0), 7.5)
        z = [int(s) for s in built.steps[row]] + [round((value + 5.0) / 12.5 * STEPS)]
        totals[spec.actions.index(action)] += np.outer(np.array(z, object), np.array(z, object))
    upper = np.triu_indices(width)
    assert (statistics.sums["products"] == totals[:, *upper]).all()


def _click(reward: dict[str, Any]) -> bool:
    return bool(reward["name"] == "click")


def _counts(reward: dict[str, Any]) -> bool:
    return _click(reward) and bool(np.isfinite(reward["value"]))


def test_the_largest_chunk_at_the_limit_is_exact() -> None:
    """65,536 rows of odd values next to the cut sum up without rounding, as the proof says."""
    rng = np.random.default_rng(7)
    most = LIMIT * STEPS
    steps = rng.integers(most - 1000, most, size=(CHUNK, 4), endpoint=True) * [1, -1, 1, 1]
    actions = np.zeros(CHUNK, dtype=np.int16)
    spec = linear_spec(["only"], [{"name": c, "kind": "hashed", "buckets": 2} for c in "a"])
    learner = learner_of(spec)
    assert isinstance(learner, AdditiveLearner)
    sums = learner.sums(spec, Rows(actions, steps.astype(np.float64), np.ones(CHUNK)))
    exact = steps.astype(np.int64).T @ steps.astype(np.int64)
    assert (sums["products"][0] == exact[np.triu_indices(4)]).all()
    assert abs(exact).max() < 2**53


def test_more_rows_than_a_chunk_are_cut_into_chunks() -> None:
    """A long batch, a table of many batches and their parts agree."""
    spec = SPECS[0]
    rows = [outcome("red", [i % 3], numeric={"age": float(i % 90)}, ts=i) for i in range(1000)]
    part = batch(rows)
    table = pa.Table.from_batches([part] * 70)
    long = table.combine_chunks().to_batches()[0]
    assert long.num_rows > CHUNK
    by_parts = Statistics.empty(spec)
    for _ in range(70):
        by_parts = by_parts.update(part)
    for whole in (table, long):
        assert state(Statistics.empty(spec).update(whole)) == state(by_parts)
    assert by_parts.newest == 999


PROGRAM = """
import numpy as np
from bandstand.learners.protocols import Rows
from bandstand.learners.registry import learner_of
from bandstand.learners.statistics import Statistics
from tests.learners.given import linear_spec
number = {"kind": "numeric", "low": -1, "high": 1}
spec = linear_spec(features=[{"name": f"f{i}", **number} for i in range(20)])
rng = np.random.default_rng(5)
steps = np.rint(np.clip(rng.standard_cauchy((20_000, 22)) * 4096, -2**17, 2**17))
sums = learner_of(spec).sums(spec, Rows(rng.integers(0, 3, 20_000), steps, np.ones(20_000)))
print(Statistics(spec, sums, {}, 20_000, None).digest())
"""


def test_digest_does_not_depend_on_the_blas() -> None:
    """Other thread counts and other kernels of OpenBLAS give the same digest."""
    digests = set()
    for threads, core in [("1", "Haswell"), ("2", "Haswell"), ("1", "Prescott"), ("2", "Zen")]:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": core}
        command = [sys.executable, "-c", PROGRAM]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(ran.stdout)
    assert len(digests) == 1, digests


def test_known_digest() -> None:
    """Digests name published snapshots, so they must never change for the same outcomes."""
    known = outcome("green", [2.0], numeric={"age": 20.0}, words={"land": "no", "page": "/a"})
    assert [learned(spec, known).digest()[:16] for spec in SPECS] == [
        "3dea1b977e2127d7",
        "8f880decf3f427e2",
    ]


@pytest.mark.parametrize(
    ("record", "counter"),
    [
        (oversize(), "rejected_no_decision"),
        (outcome("violet", [1.0]), "rejected_action"),
        (outcome("", [1.0]), "rejected_action"),
        (outcome("red", [1.0], ts=-1), "rejected_time"),
        (outcome("red", [float("nan")]), "rejected_reward_not_finite"),
        (outcome("red", [1.0, float("-inf")]), "rejected_reward_not_finite"),
        (outcome("red", vector=[1.0], features_hash="other"), "rejected_features_hash"),
        (outcome("red", vector=[1.0]), "rejected_features_hash"),
        (outcome("red", vector=[1.0], features_hash="OURS"), "rejected_features_width"),
        (outcome("red", vector=[1.0] * 9, features_hash="OURS"), "rejected_features_width"),
        (
            outcome("red", vector=[1.0] * 7 + [float("nan")], features_hash="OURS"),
            "rejected_features_not_finite",
        ),
        (outcome("red", numeric={"age": float("inf")}), "rejected_features_not_finite"),
    ],
)
def test_a_bad_outcome_is_counted_and_costs_only_itself(
    record: dict[str, Any], counter: str
) -> None:
    """What can't be learned is counted under its reason; its neighbours are learned."""
    spec = SPECS[0]
    if record["decision"] and record["decision"]["features_hash"] == "OURS":
        record["decision"]["features_hash"] = spec.features_hash
    good = outcome("blue", [1.0], numeric={"age": 3.0, "spend": 0.0}, words={"land": "ch"})
    alone = learned(spec, good)
    among = learned(spec, record, good, record)
    assert among.digest() == alone.digest()
    assert among.outcomes == 1
    assert among.counters[counter] == 2
    assert sum(n for name, n in among.counters.items() if name.startswith("rejected_")) == 2
    assert all(np.isfinite(a).all() for a in among.sums.values())


def test_extreme_values_are_cut_and_counted() -> None:
    """Huge features and rewards are cut to their limits, and each cut is counted."""
    spec = SPECS[0]
    cut = learned(spec, outcome("red", [1e308, 1e308], numeric={"age": -1e308, "spend": 0.0}))
    assert cut.counters["clipped_features"] == 1
    assert cut.counters["clipped_reward"] == 1
    assert cut.outcomes == 1
    most = LIMIT * STEPS
    squares = cut.sums["products"][0][[r == c for r, c in zip(*np.triu_indices(9), strict=True)]]
    assert squares.tolist() == [STEPS**2, most**2, *squares.tolist()[2:8], STEPS**2]


def test_a_context_free_learner_ignores_features() -> None:
    """Beta Thompson learns whatever vector or attributes an outcome carries."""
    strange = outcome("red", [1.0], vector=[float("nan")], features_hash="other")
    assert learned(SPECS[1], strange).outcomes == 1


def test_nothing_is_changed_in_place() -> None:
    """Updating, merging and restoring leave their inputs as they were."""
    spec = SPECS[0]
    first = learned(spec, outcome("red", [1.0], numeric={"age": 3.0}))
    before = first.digest()
    table = batch([outcome("blue", [2.0])])
    copy = table.to_pylist()
    arrays = first.arrays()
    restored = Statistics.from_arrays(spec, arrays, first.counters, 1, first.newest)
    restored.update(table)
    first.merge(restored)
    arrays["products"][0, 0] += 1
    assert restored.digest() == before
    assert table.to_pylist() == copy


def test_restored_statistics_go_on_identically() -> None:
    """Arrays out and in again, then more outcomes: as if nothing had happened."""
    spec = SPECS[0]
    some, more = outcome("red", [1.0], ts=9), outcome("blue", [2.0], ts=8)
    first = learned(spec, some)
    restored = Statistics.from_arrays(
        spec, first.arrays(), first.counters, first.outcomes, first.newest
    )
    assert state(restored.update(batch([more]))) == state(learned(spec, some, more))
    assert restored.update(batch([more])).newest == 9


def test_arrays_of_another_spec_are_refused() -> None:
    """Missing, misshapen and mistyped arrays are refused, with what was expected."""
    spec, good = SPECS[0], Statistics.empty(SPECS[0]).arrays()
    for wrong in (
        {"outcomes": good["outcomes"]},
        {**good, "products": good["products"][:, 1:]},
        {**good, "products": good["products"].astype(np.float64)},
        {**good, "more": good["outcomes"]},
    ):
        with pytest.raises(StateError, match="its spec asks for"):
            Statistics.from_arrays(spec, wrong, {}, 0, None)  # type: ignore[arg-type]


def test_statistics_of_different_specs_do_not_mix() -> None:
    """Adding sums of another spec is refused, also where the shapes agree."""
    other = linear_spec(reward={"high": 2.0})
    with pytest.raises(StateError, match="can't be added"):
        Statistics.empty(SPECS[0]).merge(Statistics.empty(other))


def test_headroom_is_checked_before_it_is_lost() -> None:
    """A total that would grow too large is refused, and what was there stays usable."""
    spec = SPECS[1]
    arrays = Statistics.empty(spec).arrays()
    arrays["reward"][1] = HEADROOM - 1
    full = Statistics.from_arrays(spec, arrays, {}, 1, None)
    before = full.digest()
    more = learned(spec, outcome("green", [7.0]))
    for other in (full, more):
        with pytest.raises(StateError, match=r"reward of bandit 'paint': a total has \d+ steps"):
            full.merge(other)
    assert full.digest() == before
    arrays["reward"][1] = -HEADROOM
    with pytest.raises(StateError, match="apply its spec with `since` at a later moment"):
        Statistics.from_arrays(spec, arrays, {}, 1, None)


SIGNED = linear_spec(["red", "green"], [{"name": "age", "kind": "numeric", "low": -1, "high": 1}])
signed = st.builds(
    outcome,
    action=st.sampled_from(["red", "red", "green", "violet"]),
    numeric=st.builds(lambda age: {"age": age}, st.sampled_from([-32.0, -1.0, 1.0, 3.0, 32.0])),
)


@settings(deadline=None)
@given(records=st.lists(signed, max_size=30), room=st.integers(1, 12), data=st.data())
def test_a_full_bandit_stops_at_the_same_outcome_however_they_are_cut(
    records: list[dict[str, Any]], room: int, data: st.DataObject
) -> None:
    """It is the first that would take a total too far; no later one is learned, if it fits or not.

    The total goes up and down, so that a batch may end below the bound that it crosses on its way.
    """
    arrays = Statistics.empty(SIGNED).arrays()
    arrays["products"][0, 1] = HEADROOM - room * STEPS**2  # of intercept and age
    expected = start = Statistics.from_arrays(SIGNED, arrays, {}, 1, None)
    for number, record in enumerate(records):
        try:
            expected = expected.merge(learned(SIGNED, record))
        except StateError:
            counters = {**expected.counters, "rejected_full": len(records) - number}
            expected = replace(expected, counters=counters)
            break
    whole = start.update(batch(records))
    cut = data.draw(st.integers(0, len(records)))
    first = start.update(batch(records[:cut]))
    restored = Statistics.from_arrays(
        SIGNED, first.arrays(), first.counters, first.outcomes, first.newest
    )
    again = restored.update(batch(records[cut:]))
    assert state(whole) == state(again) == state(expected)
    assert whole.full == again.full == expected.full


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False), max_size=20))
def test_values_stay_on_the_grid(values: list[float]) -> None:
    """Steps are whole, at most the limit, and putting them on the grid again changes nothing."""
    steps, cut = to_steps(np.array(values))
    assert (steps == np.rint(steps)).all()
    assert (np.abs(steps) <= LIMIT * STEPS).all()
    again, none = to_steps(steps / STEPS)
    assert (again == steps).all()
    assert none is None
    over = [abs(value) > LIMIT + 0.5 / STEPS for value in values]
    assert (cut.tolist() if cut is not None else [False] * len(values)) == over
