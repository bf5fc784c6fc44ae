"""Posteriors of several partitions, put together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import root
from scipy.special import expit

from bandstand.learners.logistic_merge import Part, joined
from bandstand.learners.policies import policy_from_snapshot
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from tests.learners.given import batch, outcome

Floats = np.ndarray[Any, np.dtype[np.float64]]

NAMES = ("logistic_thompson", "diagonal_logistic_thompson")


def some_parts(rng: np.random.Generator, actions: int, dimension: int) -> list[Part]:
    """Make parts up, with modes far apart."""
    parts = []
    for size in (4, 60):
        x = rng.normal(size=(actions, size, dimension))
        x[:, :, 0] = 1.0
        weight = rng.uniform(0.0, 0.25, size=(actions, size, 1))
        curvature = (x * weight).swapaxes(1, 2) @ x
        middle = curvature[:, 0] / curvature[:, 0, :1]
        parts.append(Part(rng.normal(0.0, 3.0, (actions, dimension)), curvature, middle))
    return parts


def slope(
    weights: Floats, parts: list[Part], mean: Floats, precision: Floats, action: int
) -> Floats:
    """Add up the slopes of one action's log-posterior, as the module defines them."""
    total = -precision * (weights - mean)
    for part in parts:
        at = part.middle[action] @ part.mean[action]
        ahead = part.middle[action] @ weights - at
        secant = (expit(at + ahead) - expit(at)) / (ahead * expit(at) * expit(-at))
        total += precision * (part.mean[action] - mean)
        total -= secant * part.curvature[action] @ (weights - part.mean[action])
    return total


@pytest.mark.parametrize("seed", range(5))
def test_the_mode_is_where_all_slopes_meet(seed: int) -> None:
    """Found by scipy, too, from there and from elsewhere; other actions change no bit of it."""
    rng = np.random.default_rng(seed)
    parts, mean = some_parts(rng, 6, 4), rng.normal(size=(6, 4))
    precision = 10 ** rng.uniform(-2, 1, size=(6, 4))
    weights, ratios = joined(parts, mean, precision)
    for action in range(6):
        given = (parts, mean[action], precision[action], action)
        assert np.abs(slope(weights[action], *given)).max() < 1e-9
        found = root(slope, parts[1].mean[action] + 0.1, given, method="lm").x
        assert np.allclose(weights[action], found, rtol=0, atol=1e-6)
        own = [Part(*(array[action : action + 1] for array in part)) for part in parts]
        alone, theirs = joined(own, mean[action : action + 1], precision[action : action + 1])
        assert (alone[0] == weights[action]).all()
        assert [r[0] for r in theirs] == [r[action] for r in ratios]


def test_independent_weights_are_matrices_without_the_rest() -> None:
    """A diagonal is put together as the matrix that it is."""
    rng = np.random.default_rng(7)
    diagonal = [
        Part(part.mean, np.diagonal(part.curvature, axis1=1, axis2=2), part.middle)
        for part in some_parts(rng, 3, 5)
    ]
    whole = [part._replace(curvature=np.eye(5) * part.curvature[:, None]) for part in diagonal]
    prior = np.zeros((3, 5)), np.ones((3, 5))
    (one, ratios), (other, others) = joined(diagonal, *prior), joined(whole, *prior)
    assert np.allclose(one, other, rtol=0, atol=1e-10)
    assert np.allclose(ratios, others, rtol=1e-10, atol=0)


@pytest.mark.parametrize("rates", [(0.001, 0.002), (0.01, 0.3), (0.9, 0.02)])
@pytest.mark.parametrize("certain", [1e-6, 2.0])
def test_without_features_it_is_exact(rates: tuple[float, float], certain: float) -> None:
    """Laplace's posteriors of two samples come to that of both together."""

    def laplace(successes: float, size: float) -> float:
        """Give the mode for so many successes of so many outcomes."""
        return float(
            root(lambda z: successes - size * expit(z) - certain * (z + 3.0), -3.0, tol=1e-13).x[0]
        )

    sizes = (500.0, 3000.0)
    odds = [laplace(rate * size, size) for rate, size in zip(rates, sizes, strict=True)]
    parts = [
        Part(np.array([[z]]), np.array([[[size * expit(z) * expit(-z)]]]), np.ones((1, 1)))
        for z, size in zip(odds, sizes, strict=True)
    ]
    together = laplace(sum(r * s for r, s in zip(rates, sizes, strict=True)), sum(sizes))
    weights, ratios = joined(parts, np.array([[-3.0]]), np.array([[certain]]))
    assert weights[0, 0] == pytest.approx(together, abs=1e-6)
    curvature = sum(
        float(r[0] * part.curvature[0, 0, 0]) for r, part in zip(ratios, parts, strict=True)
    )
    assert curvature == pytest.approx(sum(sizes) * expit(together) * expit(-together), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("prior", "rate", "within"),
    [
        ({"mean": 0.02, "strength": 50}, 0.03, 1.1),
        ({"mean": 0.02, "strength": 50}, 0.01, 1.1),
        ({"mean": 0.002, "strength": 500}, 0.05, 1.8),
    ],
)
@pytest.mark.parametrize("partitions", [6, 16, 48])
def test_rare_rewards_of_many_partitions(
    name: str, prior: dict[str, float], rate: float, within: float, partitions: int
) -> None:
    """An expected reward stays near that of a single chain; less so if the prior was far off."""
    spec = Spec.model_validate(
        {
            "bandit": "b",
            "actions": ["x", "y"],
            "policy": {"name": name},
            "reward": {"name": "click"},
            "prior": prior,
        }
    )
    clicks = np.random.default_rng(3).random(4000) < rate
    rows = batch([outcome("x", [float(clicked)]) for clicked in clicks])
    alone, merged = Statistics.empty(spec).update(rows), Statistics.empty(spec)
    for partition in range(partitions):
        own = rows.take(np.arange(partition, rows.num_rows, partitions))
        merged = merged.merge(Statistics.empty(spec).update(own))
    one, many = (
        policy_from_snapshot(build(spec, known, 0, "", {})).decide({}, spec.actions).scores[0]
        for known in (alone, merged)
    )
    assert 1 / within < many / one < within


def test_modes_beyond_the_smallest_numbers_are_put_together() -> None:
    """Sigmoids that are 0 in floating point have ratios all the same."""
    parts = [Part(np.array([[odds]]), np.array([[[1e-3]]]), np.ones((1, 1))) for odds in (-800, -9)]
    for turned in (parts, [part._replace(mean=-part.mean) for part in parts]):
        weights, ratios = joined(turned, np.zeros((1, 1)), np.ones((1, 1)))
        assert np.isfinite(weights).all()
        assert np.isfinite(ratios).all()
        assert (np.array(ratios) >= 0.0).all()
