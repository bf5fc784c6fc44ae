"""A reward function gives, for columns, what a loop over outcomes would."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.learners.grid import STEPS
from bandstand.learners.policies import solve
from bandstand.learners.rewards import earn
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_reward import Reward
from tests.learners.given import ACTIONS, batch, beta_spec, linear_spec, outcome

AGGREGATES = ("first", "last", "sum", "max", "min", "mean", "count")
Record = Mapping[str, Any]


def total(values: Sequence[float]) -> float:
    """Add from left to right, as the log has them."""
    result = 0.0
    for value in values:
        result += value
    return result


def aggregated(aggregate: str, values: Sequence[float]) -> float:
    """Apply an aggregate to the rewards of one outcome, in plain Python."""
    return {
        "first": lambda: values[0],
        "last": lambda: values[-1],
        "sum": lambda: total(values),
        "max": lambda: max(values),
        "min": lambda: min(values),
        "mean": lambda: total(values) / len(values),
        "count": lambda: float(len(values)),
    }[aggregate]()


def attribute(maps: Sequence[tuple[str, float]], name: str, absent: float | None) -> float:
    """Find an attribute: the last of its name, or what stands for its absence."""
    found = [value for key, value in maps if key == name]
    return found[-1] if found else math.nan if absent is None else absent


def expected(reward: Mapping[str, Any], record: Record, counts: Counter[str]) -> float | None:
    """Turn one outcome into its number by the words of the spec; None where it isn't learned."""
    decision, raw = record["decision"], [(r["name"], r["value"]) for r in record["rewards"]]
    if "activation" in reward and reward["activation"] not in [name for name, _ in raw]:
        counts["not_activated"] += 1
        return None
    value = 0.0
    for part in [reward, *reward.get("plus", [])]:
        counting = [v for name, v in raw if name == part["name"]]
        if not all(map(math.isfinite, counting)):
            value = math.nan
        elif counting:
            value += part["weight"] * aggregated(part["aggregate"], counting)
        else:
            value += part["weight"] * part["default"]
    cost = costs(reward["cost"], decision) if "cost" in reward else 0.0
    net = value - (cost if math.isfinite(cost) else 0.0)
    cut: float = min(max(net, reward["low"]), reward["high"])
    counts["clipped_reward"] += not math.isnan(value) and cut != net
    if math.isnan(value):
        counts["rejected_reward_not_finite"] += 1
    elif not math.isfinite(cost):
        counts["rejected_cost"] += 1
    else:
        return cut
    return None


def costs(cost: Mapping[str, Any], decision: Record) -> float:
    """Add up what a decision costs."""
    absent = cost.get("absent")
    found = cost.get("actions", {}).get(decision["action"], 0.0)
    if "action_attribute" in cost:
        chosen = [a["numeric"] for a in decision["actions"] if a["action"] == decision["action"]]
        found += attribute(chosen[0] if chosen else [], cost["action_attribute"], absent)
    if "subject_attribute" in cost:
        found += attribute(decision["subject_numeric"], cost["subject_attribute"], absent)
    return float(found)


values = st.one_of(st.floats(-50, 50), st.sampled_from([math.nan, math.inf, -math.inf]))
attributes = st.lists(st.tuples(st.sampled_from(["cost", "price", "kept"]), values), max_size=3)
records = st.builds(
    outcome,
    action=st.sampled_from(ACTIONS),
    rewards=st.lists(st.tuples(st.sampled_from(["click", "buy", "open"]), values), max_size=6),
    numeric=attributes,
    eligible=st.lists(st.tuples(st.sampled_from(ACTIONS), attributes), max_size=4),
)


def added(*names: str) -> dict[str, st.SearchStrategy[Any]]:
    """Draw what may be said of the rewards of a name."""
    return {
        "name": st.sampled_from(names),
        "aggregate": st.sampled_from(AGGREGATES),
        "weight": st.floats(-3, 3),
        "default": st.floats(-0.4, 0.4),
    }


def mapping(
    required: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a section of a spec."""
    return st.fixed_dictionaries(required, optional=optional)


rewards = mapping(
    {**added("click"), "low": st.just(-20.0), "high": st.just(30.0)},
    plus=st.lists(
        mapping(added("buy", "open")),
        max_size=2,
        unique_by=lambda part: f"{part['aggregate']} {part['name']}",
    ),
    activation=st.sampled_from(["open", "click"]),
    cost=mapping(
        {"actions": st.dictionaries(st.sampled_from(ACTIONS), st.floats(-5, 5), min_size=1)},
        subject_attribute=st.just("cost"),
        action_attribute=st.sampled_from(["cost", "price"]),
    ),
)


@settings(deadline=None, max_examples=300)
@given(reward=rewards, some=st.lists(records, max_size=6), cut=st.integers(0, 6))
def test_a_reward_function_equals_the_loop(
    reward: dict[str, Any], some: list[dict[str, Any]], cut: int
) -> None:
    """Aggregates, weights, costs, activation and range give the loop's sums and counters."""
    spec = beta_spec(reward=reward)
    statistics = Statistics.empty(spec).update(batch(some).slice(cut))
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for record in some[cut:]:
        value = expected(reward, record, counts)
        if value is not None:
            counts["outcomes"] += 1
            # Halves go to the even step, as numpy and Python both round.
            sums[record["decision"]["action"]] += round((value + 20.0) / 50.0 * STEPS)
    assert statistics.sums["reward"].tolist() == [sums[action] for action in ACTIONS]
    assert statistics.outcomes == counts.pop("outcomes", 0)
    assert statistics.counters == +counts


@settings(deadline=None)
@given(some=st.lists(records, max_size=4))
def test_absent_costs_count_as_the_spec_says(some: list[dict[str, Any]]) -> None:
    """With ``absent`` no outcome is left out because an attribute isn't there."""
    cost = {"action_attribute": "cost", "subject_attribute": "price", "absent": 2.5}
    reward = Reward(name="click", low=-200.0, high=200.0, cost=cost)
    column = batch(some)
    earned = earn(reward, column.column("rewards"), column.column("decision"))
    for row, record in enumerate(some):
        found = costs(cost, record["decision"])
        lost = "cost" in earned.rejected and earned.rejected["cost"][row]
        assert lost == (not math.isfinite(found))
        clicks = [r["value"] for r in record["rewards"] if r["name"] == "click"]
        if math.isfinite(found) and all(map(math.isfinite, clicks)):
            assert earned.values[row] == (clicks[0] if clicks else 0.0) - found


def test_sums_that_overflow_are_cut_or_refused() -> None:
    """An infinite sum is cut to the range; one that isn't a number is rejected."""
    huge = {"aggregate": "sum", "weight": 1e9}
    plus = [{"name": "buy", **huge}]
    reward = Reward(name="click", plus=plus, **huge)
    rows = batch(
        [outcome("red", [1e308, 1e308]), outcome("red", [1e300, ("buy", -1e300)]), outcome("red")]
    )
    earned = earn(reward, rows.column("rewards"), rows.column("decision"))
    assert earned.rejected["reward_not_finite"].tolist() == [False, True, False]
    assert earned.values[[0, 2]].tolist() == [1.0, 0.0]
    assert earned.counted["clipped_reward"].tolist() == [True, False, False]


KEEP = {"keep_probability": {"attribute": "kept", "least": 0.004}}


@settings(deadline=None)
@given(
    kept=st.lists(
        st.tuples(
            st.sampled_from(ACTIONS),
            st.floats(0, 1),
            st.one_of(
                st.floats(0.001, 1),
                st.sampled_from([0.0, 1.0, 1.5, -1.0, math.nan, math.inf, None]),
            ),
        ),
        max_size=12,
    ),
    data=st.data(),
)
@pytest.mark.parametrize("make", [beta_spec, linear_spec], ids=["beta", "linear"])
def test_an_outcome_counts_by_its_keep_probability(
    make: Any, kept: list[tuple[str, float, float | None]], data: st.DataObject
) -> None:
    """Sums are those of sqrt(weight) times the row, on the grid, in any order and split."""
    spec = make(reward=KEEP)
    rows = [
        outcome(action, [value], numeric=[] if p is None else [("kept", p), ("age", 40.0)])
        for action, value, p in kept
    ]
    whole = Statistics.empty(spec).update(batch(rows))
    good = [(a, v, p) for a, v, p in kept if p is not None and 0 < p <= 1]
    count, reward = dict.fromkeys(ACTIONS, 0), dict.fromkeys(ACTIONS, 0)
    for action, value, p in good:
        root = math.sqrt(1.0 / max(p, 0.004))
        count[action] += round(root * STEPS) ** 2
        reward[action] += round(root * STEPS) * round(round(value * STEPS) / STEPS * root * STEPS)
    assert whole.sums["outcomes"].tolist() == list(count.values())
    # Of a linear model's products, the reward times the intercept is the last of the first row.
    products = whole.sums.get("products")
    first = whole.sums["reward"] if products is None else products[:, len(spec.feature_names)]
    assert first.tolist() == list(reward.values())
    assert whole.outcomes == len(good)
    assert whole.counters.get("rejected_keep_probability", 0) == len(kept) - len(good)
    assert whole.counters.get("clipped_keep_probability", 0) == sum(p < 0.004 for _, _, p in good)
    shuffled, cut = data.draw(st.permutations(rows)), data.draw(st.integers(0, len(rows)))
    parts = [Statistics.empty(spec).update(batch(p)) for p in (shuffled[:cut], shuffled[cut:])]
    assert parts[1].merge(parts[0]).digest() == whole.digest()


def test_half_of_the_log_with_weight_two_solves_as_the_whole() -> None:
    """A posterior from weighted outcomes is that of all those that they stand for."""
    rng = np.random.default_rng(3)
    for make in (beta_spec, linear_spec):
        rows, twice = [], []
        for _ in range(50):
            action, age = ACTIONS[rng.integers(3)], float(rng.integers(80))
            value = float(rng.integers(2))
            rows.append(outcome(action, [value], numeric=[("age", age), ("kept", 0.25)]))
            twice += [outcome(action, [value], numeric=[("age", age)])] * 4
        weighted, plain = make(reward=KEEP), make()
        one = solve(weighted, Statistics.empty(weighted).update(batch(rows)))
        two = solve(plain, Statistics.empty(plain).update(batch(twice)))
        for name, array in one.arrays.items():
            np.testing.assert_allclose(array, two.arrays[name], rtol=1e-12, atol=1e-12)


def test_every_additive_learner_takes_weights_exactly() -> None:
    """What each keeps of an outcome of weight 4 equals what it keeps of four, in finer steps."""
    from bandstand.schemas.spec_policy import learner, learner_names

    for name in learner_names():
        if not hasattr(learner(name), "weighted") or not hasattr(learner(name), "sums"):
            continue
        size = {"name": "size", "kind": "numeric", "low": 0.0, "high": 9.0}
        size["of"] = dict(zip(ACTIONS, (1.0, 5.0, 7.0), strict=True))
        shared = learner(name).parameters.shares_weights
        spec = Spec.model_validate(
            {
                **json.loads(beta_spec(reward=KEEP).canonical()),
                "policy": {"name": name},
                "action_features": [size] if shared else [],
            }
        )
        plain = Spec.model_validate({**json.loads(spec.canonical()), "reward": {"name": "click"}})
        numeric = [("kept", 0.25)]
        rows = [outcome(a, [v], numeric=numeric) for a, v in zip(ACTIONS, (0.5, 1, 0), strict=True)]
        one = Statistics.empty(spec).update(batch(rows))
        four = Statistics.empty(plain).update(batch(rows * 4))
        finer = learner(name).weighted
        for sums, array in one.sums.items():
            assert (array == four.sums[sums] * finer.get(sums, 1)).all(), (name, sums)
        for sums, array in solve(spec, one).arrays.items():
            np.testing.assert_allclose(array, solve(plain, four).arrays[sums], rtol=1e-12)


def test_the_rounding_of_a_weight_is_small() -> None:
    """The product of a root with itself is off its weight by less than a step of the root."""
    spec = beta_spec(reward=KEEP)
    for kept in (0.9, 0.37, 0.05, 0.004):
        rows = [outcome("red", [1.0], numeric=[("kept", kept)])]
        total = Statistics.empty(spec).update(batch(rows)).sums["outcomes"][0]
        error = abs(Fraction(int(total), STEPS**2) - Fraction(1) / Fraction(kept))
        assert error < math.sqrt(1 / kept) / STEPS
