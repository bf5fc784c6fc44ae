"""A reward function gives, for columns, what a loop over the rewards would."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.learners.rewards import reduce
from bandstand.schemas.spec import Reward
from tests.learners.given import batch, outcome

Aggregate = Literal["first", "last", "sum", "max", "min", "mean", "count"]
AGGREGATES: tuple[Aggregate, ...] = ("first", "last", "sum", "max", "min", "mean", "count")


def total(values: list[float]) -> float:
    """Add from left to right, as the log has them."""
    result = 0.0
    for value in values:
        result += value
    return result


def expected(aggregate: str, values: list[float]) -> float:
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


@pytest.mark.parametrize("aggregate", AGGREGATES)
@settings(deadline=None)
@given(
    rewards=st.lists(
        st.lists(st.tuples(st.sampled_from(["click", "buy"]), st.floats(-50, 50)), max_size=12),
        max_size=6,
    ),
    cut=st.integers(0, 6),
)
def test_every_aggregate_equals_the_loop(
    aggregate: Aggregate, rewards: list[list[tuple[str, float]]], cut: int
) -> None:
    """Names that don't count are left out, nothing gives the default, the range cuts."""
    reward = Reward(name="click", aggregate=aggregate, low=-20.0, high=30.0, default=1.5)
    column = batch([outcome("red", r) for r in rewards]).column("rewards").slice(cut)
    values, counters = reduce(reward, column)
    clipped = 0
    for value, row in zip(values, rewards[cut:], strict=True):
        clicks = [v for name, v in row if name == "click"]
        raw = expected(aggregate, clicks) if clicks else 1.5
        assert value == min(max(raw, -20.0), 30.0)
        clipped += not -20.0 <= raw <= 30.0
    assert counters == ({"clipped_reward": clipped} if clipped else {})


def test_a_reward_that_is_not_finite_marks_its_outcome_only() -> None:
    """The outcome's value is not-a-number where a reward that counts isn't finite."""
    rows: list[list[float | tuple[str, float]]] = [
        [math.nan],
        [("buy", math.inf)],
        [1.0, -math.inf],
        [1e308, 1e308],
        [],
    ]
    column = batch([outcome("red", r) for r in rows]).column("rewards")
    values, counters = reduce(Reward(name="click", aggregate="sum"), column)
    assert np.isnan(values).tolist() == [True, False, True, False, False]
    assert values[3] == 1.0
    assert counters == {"clipped_reward": 1}
