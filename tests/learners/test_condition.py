"""The condition number of a snapshot against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from bandstand.learners.condition import condition_number
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from tests.learners.given import batch, beta_spec, linear_spec, outcome


@pytest.mark.parametrize("ridge", [3.0, 1e-4])
def test_it_is_that_of_the_precision(ridge: float) -> None:
    """Also where features are nearly dependent; learners without a covariance have none."""
    spec = linear_spec(actions=("red", "green"), prior_precision=ridge, noise_variance=0.5)
    rng = np.random.default_rng(3)
    numbers = [{"age": x, "spend": x / 40 + y} for x, y in rng.uniform(0, 60, (300, 2))]
    learned = Statistics.empty(spec).update(
        batch([outcome("red", [1.0], numeric=n, words={"land": "no"}) for n in numbers])
    )
    width = len(spec.feature_names) + 1
    square = np.zeros((width, width))
    square[np.triu_indices(width)] = learned.sums["products"][0] / 4096.0**2
    square += np.triu(square, 1).T
    precision = square[:-1, :-1] / 0.5 + ridge * np.eye(width - 1)
    found = condition_number(build(spec, learned, 0, "", {}))
    assert found == pytest.approx(np.linalg.cond(precision, 1), rel=0.5)
    assert condition_number(build(beta_spec(), Statistics.empty(beta_spec()), 0, "", {})) is None


@pytest.mark.parametrize("shape", [(), (2,), (2, 2), (0, 3), (3, 0), (2, 3, 1)])
def test_an_array_of_a_learner_of_its_own_is_none(shape: tuple[int, ...]) -> None:
    """Only triangles have a condition; a third party may call anything a factor."""
    array = {"name": "factor", "shape": shape, "data": np.ones(shape).tobytes()}
    assert condition_number({"arrays": [array]}) is None


def test_triangles_that_cannot_be_solved_have_an_infinite_one() -> None:
    """Also where a number in them isn't finite."""
    for numbers in ([0.0, 0.0, 0.0], [1.0, np.nan, 1.0], [1.0, np.inf, 1.0]):
        array = {"name": "factor", "shape": (1, 3), "data": np.array(numbers).tobytes()}
        assert condition_number({"arrays": [array]}) == np.inf
