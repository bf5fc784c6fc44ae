"""Blocks that fade: a function of the outcomes alone, near what weighing each would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.errors import SpecError, StateError
from bandstand.learners.policies import solve
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec, parse_spec
from tests.learners.given import ACTIONS, batch, outcome

HALF_LIFE_MS = 8_000
"""Eight steps of a second."""

FORGETS = ({"half_life": "8s"}, {"window": "32s"})


def spec_of(forget: dict[str, str], policy: str = "gaussian_thompson") -> Spec:
    """Give a spec that forgets."""
    features = [{"name": "age", "kind": "numeric", "low": 0.0, "high": 80.0}]
    return Spec.model_validate(
        {
            "bandit": "paint",
            "actions": ACTIONS,
            "features": features if policy.startswith("linear") else [],
            "policy": {"name": policy},
            "reward": {"name": "click"},
            "forget": forget,
        }
    )


def at(ts: int, action: str = "red", value: float = 1.0) -> dict[str, Any]:
    """Give an outcome whose decision was made at a time."""
    return outcome(action, [value], ts=ts)


def learned(spec: Spec, records: list[dict[str, Any]]) -> Statistics:
    """Give what they teach."""
    return Statistics.empty(spec).update(batch(records))


times = st.one_of(
    st.integers(0, 2_000_000),
    st.integers(1_900_000, 1_910_000),
    st.integers(0, 100).map(lambda n: n * 999),
)
events = st.lists(
    st.builds(at, times, st.sampled_from(ACTIONS), st.sampled_from([0.0, 0.25, 1.0])), max_size=40
)


@pytest.mark.parametrize("forget", FORGETS)
@given(data=st.data(), records=events)
@settings(max_examples=150, deadline=None)
def test_order_cuts_and_partitions_change_no_bit(
    forget: dict[str, str], data: st.DataObject, records: list[dict[str, Any]]
) -> None:
    """Late or early, one by one or at once, in three partitions: the same digest."""
    spec = spec_of(forget)
    whole = learned(spec, records)
    shuffled = data.draw(st.permutations(records))
    parts = [Statistics.empty(spec) for _ in range(3)]
    for record in shuffled:
        which = data.draw(st.integers(0, 2))
        parts[which] = parts[which].update(batch([record]))
    order = data.draw(st.permutations(range(3)))
    merged = parts[order[0]].merge(parts[order[1]]).merge(parts[order[2]])
    assert merged.digest() == whole.digest()
    assert merged.outcomes == len(records)
    arrays = whole.arrays()
    back = Statistics.from_arrays(spec, arrays, {}, whole.outcomes, whole.newest)
    assert back.merge(parts[0]).digest() == whole.merge(parts[0]).digest()


@given(st.lists(st.tuples(times, st.sampled_from(ACTIONS)), min_size=1, max_size=200))
@settings(max_examples=100, deadline=None)
def test_a_window_is_the_last_32_steps(made: list[tuple[int, str]]) -> None:
    """Outcomes of the newest 32 seconds count whole, older ones not at all."""
    sums = learned(spec_of({"window": "32s"}), [at(*each) for each in made]).solvable()
    newest = max(ts for ts, _ in made) // 1000
    counting = [action for ts, action in made if ts // 1000 > newest - 32]
    assert sums["outcomes"].tolist() == [counting.count(action) for action in ACTIONS]
    assert (sums["reward"] == 4096 * sums["outcomes"]).all()


def test_weights_halve_with_the_half_life() -> None:
    """Evenly spread outcomes together weigh what they should within 0.3 %; one alone exactly."""
    spec = spec_of({"half_life": "8s"})
    ages = np.arange(0, 600_000, 50)
    total = learned(spec, [at(600_000 - int(age)) for age in ages]).solvable()
    steps = (600_000 - ages) // 1000
    exact = np.exp2(-(steps.max() - steps) / 8).sum()
    assert abs(total["outcomes"][0] / exact - 1) < 0.003
    for age in range(0, 40_000, 500):  # one at a time, the newest of another action
        alone = learned(spec, [at(600_000 - age), at(600_000, "green")]).solvable()
        age_steps = 600 - (600_000 - age) // 1000
        if age_steps:
            assert np.isclose(alone["outcomes"][0], 2.0 ** (-age_steps / 8), rtol=1e-12)


@pytest.mark.parametrize(
    ("newer", "older", "wide", "bound"),
    [(7, 14, 2, 0.091), (14, 28, 4, 0.30), (28, 56, 8, 0.84), (56, 112, 16, 2.7)],
)
def test_an_action_alone_at_the_end_of_a_block(
    newer: int, older: int, wide: int, bound: float
) -> None:
    """The worst case, by age: its outcomes at one end of a block, the others at the other end."""
    spec, worst = spec_of({"half_life": "8s"}), 0.0
    for now in (1000, 1001, 1014):
        for old in range(newer + 1, older + 1):
            for others in (old - wide + 1, old + wide - 1):
                records = [at((now - others) * 1000, "green")] * 50
                records += [at((now - old) * 1000), at(now * 1000, "blue")]
                weight = float(learned(spec, records).solvable()["outcomes"][0])
                off = weight / 2 ** (-old / 8)
                worst = max(worst, off - 1, 1 / off - 1)
    assert 0.9 * bound < worst < bound


@pytest.mark.parametrize("window", [7, 50, 63, 100, 1000, 3200, 10_000])
def test_a_window_ends_when_it_says(window: int) -> None:
    """At most a 32nd part early, and not later than the next multiple of 32 ms."""
    spec = spec_of({"window": f"{window}ms"})
    early, late = -(-window * 31 // 32) - 1, -(-window // 32) * 32
    for newest in range(100_000, 100_000 + late, max(1, late // 40)):
        for age, counting in ((0, 1), (early, 1), (late, 0)):
            records = [at(newest - age), at(newest, "blue")]
            assert learned(spec, records).solvable()["outcomes"][0] == counting, (newest, age)


def test_a_faded_posterior_is_that_of_weighted_outcomes() -> None:
    """Each learner solves from faded sums as from sums of fractions of outcomes."""
    records = [at(1000, "red", 0.5)] * 8 + [at(9000, "red", 1.0)] * 3  # 8 steps: half each
    solved = solve(spec_of({"half_life": "8s"}), learned(spec_of({"half_life": "8s"}), records))
    precision = 1.0 + 7 / 0.25
    assert np.isclose(solved.arrays["mean"][0], (0.5 + (8 * 0.25 + 3) / 0.25) / precision)
    assert np.isclose(solved.arrays["deviation"][0], precision**-0.5)
    few = [at(0, action, 0.75) for action in ACTIONS] + [at(24_000, "blue", 1.0)]
    for name in ("ucb1", "ucb_tuned", "epsilon_greedy", "beta_thompson", "student_thompson"):
        spec = spec_of({"half_life": "8s"}, name)
        arrays = solve(spec, learned(spec, few)).arrays
        assert all(np.isfinite(array).all() for array in arrays.values())
        if "mean" in arrays and name != "student_thompson":
            assert np.isclose(arrays["mean"][0], 0.75)  # an eighth of an outcome has its mean


def test_what_has_changed_is_found_again() -> None:
    """After the best action has changed, one that forgets prefers the new one; the other not."""
    rng = np.random.default_rng(2)
    records = []
    for number in range(4000):
        action = ACTIONS[int(rng.integers(3))]
        good = "red" if number < 3000 else "blue"
        records.append(
            at(number * 10, action, float(rng.random() < (0.5 if action == good else 0.1)))
        )
    for forget, best in (({"half_life": "4s"}, "blue"), ({"window": "8s"}, "blue"), (None, "red")):
        spec = spec_of(forget) if forget else spec_of({"window": "1000d"})
        mean = solve(spec, learned(spec, records)).arrays["mean"]
        assert ACTIONS[int(mean.argmax())] == best


def test_wide_sums_fit_into_blocks() -> None:
    """Products of features are kept a block, too."""
    spec = spec_of({"half_life": "8s"}, "linear_thompson")
    statistics = learned(spec, [at(1000), at(90_000)])
    assert statistics.arrays()["products"].shape == (48, 3, 6)
    with pytest.raises(StateError, match="can't be subtracted: it forgets"):
        statistics.subtract(statistics)


@pytest.mark.parametrize(
    ("forget", "policy", "message"),
    [
        ("{}", "ucb1", "must have a half_life or a window, such as 7d, and not both"),
        ("{half_life: 1d, window: 1d}", "ucb1", "must have a half_life or a window"),
        (
            "{half_life: 7}",
            "ucb1",
            "p.yaml:5: forget.half_life: 7 is not a duration; write a whole",
        ),
        ("{half_live: 7d}", "ucb1", "unknown key; did you mean 'half_life'?"),
        ("{window: 0d}", "ucb1", "0 is not allowed"),
        ("{window: 7d}", "logistic_thompson", "logistic_thompson keeps a chain of outcomes"),
    ],
)
def test_refusals(forget: str, policy: str, message: str) -> None:
    """Each says what is wrong and what is allowed."""
    text = "bandit: p\nactions: [x, y]\npolicy: {name: POLICY}\nreward: {name: r}\nforget: FORGET\n"
    with pytest.raises(SpecError) as caught:
        parse_spec(text.replace("POLICY", policy).replace("FORGET", forget), "p.yaml")
    assert message in str(caught.value)
