"""Probabilities are those of the draws they stand for, and add up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import beta

from bandstand.learners.probabilities import beta_best, gaussian_best, student_best, with_floor
from tests.learners.naive_draws import KINDS, Compared, compare, summary

Floats = np.ndarray[Any, np.dtype[np.float64]]


def integral(variables: list[Any], points: list[float]) -> Floats:
    """Integrate, over u, the others' cdfs at the quantile u of each; QUADPACK, in pieces."""

    def integrand(u: float, k: int) -> float:
        x = variables[k].ppf(u)
        return float(np.prod([v.cdf(x) for j, v in enumerate(variables) if j != k]))

    edges = [sorted({0.0, 1.0, *(float(v.cdf(p)) for p in points)}) for v in variables]
    return np.array(
        [
            sum(
                quad(integrand, a, b, args=(k,), epsabs=1e-10, limit=200)[0]
                for a, b in pairwise(edges[k])
                if b - a > 1e-12
            )
            for k in range(len(variables))
        ]
    )


def wins(
    mean: Floats,
    scale: Floats,
    quantile: Callable[[int, float], float],
    cdf: Callable[[Any, Floats], Floats],
    which: list[int],
) -> Floats:
    """Integrate as above, for variables mean + scale * z of symmetric z.

    In pieces that end where any of the others is 0 to 1,000 scales from its mean, on offsets from
    the action's own mean and with u counted from the nearer end, so that nothing is rounded away.
    The product rises with the quantile; a piece in which it hardly does needs no integral.
    """

    def below(u: float, k: int, sign: int) -> float:
        offset = sign * scale[k] * quantile(k, u)
        others = cdf(slice(None), ((mean[k] - mean) + offset) / scale)
        others[k] = 1.0
        return float(np.prod(others))

    steps = np.array([0, 1, 3, 10, 100, 1000])
    places = np.ravel(mean + np.concatenate([-steps, steps])[:, None] * scale)
    result = []
    for k in which:
        ends = cdf(k, -np.abs((places - mean[k]) / scale[k]))
        edges = np.unique(np.concatenate([[1e-13, 0.5], np.maximum(ends, 1e-13)]))
        total = 0.0
        for sign in (1, -1):
            values = [below(u, k, sign) for u in edges]
            for (a, b), (first, last) in zip(pairwise(edges), pairwise(values), strict=True):
                if (b - a) * abs(last - first) < 1e-13:
                    total += (b - a) * (first + last) / 2
                else:
                    total += quad(below, a, b, args=(k, sign), epsabs=1e-11, limit=200)[0]
        result.append(total)
    return np.array(result)


def apart(rng: np.random.Generator, count: int, ratio: float) -> tuple[Floats, Floats]:
    """Draw means and scales of so different a width; means of a kind of their own each time.

    Of the widest's order, or each of its own scale's, or narrow ones below and above the widest.
    """
    scale = 10 ** rng.uniform(-np.log10(ratio), 0, size=count)
    scale[0], scale[1] = 1.0, 1.0 / ratio
    kind = rng.integers(3)
    if kind == 0:
        return rng.normal(size=count), scale
    if kind == 1:
        return rng.normal(size=count) * 2.0 * scale, scale
    return rng.uniform(-3, 1, size=count) * (scale < 1), scale


@pytest.mark.parametrize("ratio", [1e2, 1e6, 1e10])
@pytest.mark.parametrize("seed", range(6))
def test_gaussian_probabilities_equal_an_independent_integral(seed: int, ratio: float) -> None:
    """Within 1e-7 of QUADPACK over scales that differ up to ten billionfold."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 7))
    mean, deviation = apart(rng, count, ratio)
    exact = wins(mean, deviation, lambda _, u: ndtri(u), lambda _, z: ndtr(z), list(range(count)))
    assert abs(exact.sum() - 1) < 1e-9
    assert np.abs(gaussian_best(mean, deviation) - exact).max() < 1e-7


@pytest.mark.parametrize("outcomes", [1.0, 1e5])
@pytest.mark.parametrize("seed", range(6))
def test_beta_probabilities_equal_an_independent_integral(seed: int, outcomes: float) -> None:
    """Within 1e-6 of QUADPACK for priors below 1, and for thousands to hundreds of millions."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 5))
    a, b = np.maximum(10 ** rng.uniform(-0.5, 3.5, size=(2, count)), 0.4)
    many = outcomes ** rng.uniform(0, 1, size=count)
    a, b = a * many, b * many
    variables = [beta(x, y) for x, y in zip(a, b, strict=True)]
    points = [float(v.ppf(q)) for v in variables for q in (1e-4, 0.01, 0.5, 0.99, 0.9999)]
    exact = integral(variables, points)
    assert abs(exact.sum() - 1) < 1e-7
    assert np.abs(beta_best(a, b) - exact).max() < 1e-6


def student_wins(mean: Floats, scale: Floats, freedom: Floats, which: list[int]) -> Floats:
    """Integrate for Student-t variables."""
    return wins(
        mean,
        scale,
        lambda k, u: stdtrit(freedom[k], u),
        lambda which, z: stdtr(freedom[which], z),
        which,
    )


@pytest.mark.parametrize("ratio", [30.0, 1e3, 1e6, 1e10])
@pytest.mark.parametrize("seed", range(8))
def test_student_probabilities_equal_an_independent_integral(seed: int, ratio: float) -> None:
    """Within 1e-7 of QUADPACK over any scales, from heavier tails than Cauchy's to Gaussian."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 7))
    mean, scale = apart(rng, count, ratio)
    freedom = 10 ** rng.uniform(*((-0.7, 1.0), (0.0, 10.0))[seed % 2], size=count)
    exact = student_wins(mean, scale, freedom, list(range(count)))
    assert abs(exact.sum() - 1) < 1e-8
    assert np.abs(student_best(mean, scale, freedom) - exact).max() < 1e-7


@pytest.mark.parametrize(("count", "ratio"), [(60, 1e6), (100, 30.0), (200, 1e3)])
def test_student_probabilities_of_many_actions(count: int, ratio: float) -> None:
    """Of hundreds of actions, the most probable one and two others are as close to QUADPACK."""
    rng = np.random.default_rng(count)
    mean, scale = apart(rng, count, ratio)
    freedom = 10 ** rng.uniform(0.3, 8.0, size=count)
    probabilities = student_best(mean, scale, freedom)
    which = np.argsort(probabilities)[[-1, -3, -10]].tolist()
    exact = student_wins(mean, scale, freedom, which)
    assert np.abs(probabilities[which] - exact).max() < 1e-7


@pytest.mark.parametrize("ratio", [1e2, 1e3, 1e5, 1e7, 1e9, 1e12])
@pytest.mark.parametrize("freedom", [1.0, 2.0, 4.0, 30.0, 1e6])
def test_an_old_action_below_a_new_one(freedom: float, ratio: float) -> None:
    """A narrow action wins if the wide one falls below it: as often as the latter's cdf says."""
    for place in (-3.0, -1.7, 0.0, 0.4, 2.0):
        probabilities = student_best(
            np.array([place, 0.0]), np.array([1 / ratio, 1.0]), np.array([1e4, freedom])
        )
        bend = 0.5 / ratio**2  # half the narrow one's variance times the curvature, at most 1
        assert abs(probabilities[0] - stdtr(freedom, place)) < 1e-8 + bend


def test_two_old_actions_below_a_new_one() -> None:
    """Two actions of a billionth of the third's width share as they would alone."""
    mean, scale = np.array([0.3, 0.3 + 2e-9, 0.5]), np.array([1e-9, 2e-9, 1.0])
    probabilities = student_best(mean, scale, np.array([1e10, 1e10, 4.0]))
    below = stdtr(4.0, -0.2)
    second = ndtr((mean[1] - mean[0]) / np.hypot(1e-9, 2e-9))
    expected = [below * (1 - second), below * second, 1 - below]
    assert np.abs(probabilities - expected).max() < 1e-8


@pytest.mark.parametrize("freedom", [1e8, 1e9, 1e10, 1e12, 1e15])
def test_student_probabilities_become_the_gaussians(freedom: float) -> None:
    """With so many degrees of freedom both integrals agree, also for two hundred actions."""
    rng = np.random.default_rng(22)
    for count in (2, 10, 200):
        mean, scale = rng.normal(size=count), 10 ** rng.uniform(-1, 0.5, size=count)
        heavy = student_best(mean, scale, freedom * rng.uniform(1, 3, size=count))
        assert np.abs(heavy - gaussian_best(mean, scale)).max() < 1e-7


def test_a_student_far_above_wins() -> None:
    """A gap of a billion scales leaves nothing to the other."""
    far = student_best(np.array([1e9, 0.0]), np.ones(2), np.full(2, 50.0))
    assert np.allclose(far, [1.0, 0.0], rtol=0, atol=1e-12)


DRAWS = 100_000


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_match_naive_draws(kind: str) -> None:
    """Over 50 random posteriors, no frequency of 10^5 draws leaves its exact binomial bounds."""
    found = summary([compare((kind, seed, DRAWS)) for seed in range(50)], DRAWS)
    assert found["outside"] == 0
    assert 0.6 < found["mean_square_in_deviations"] < 1.4
    wrong = [Compared(c.probabilities[::-1], c.wins) for c in map(compare, [(kind, 1, DRAWS)])]
    assert summary(wrong, DRAWS)["outside"] > 0


means = st.floats(-1e3, 1e3)
deviations = st.floats(0, 1e3)


@settings(deadline=None)
@given(
    st.lists(st.tuples(means, deviations), min_size=1, max_size=30), st.randoms(), st.floats(0, 1)
)
def test_gaussian_probabilities_add_up_and_follow_their_actions(
    posteriors: list[tuple[float, float]], random: Any, share: float
) -> None:
    """Non-negative, sum 1 within 1e-12, permuted with the actions, floored exactly."""
    order = random.sample(range(len(posteriors)), len(posteriors))
    mean, deviation = np.array(posteriors).T
    probabilities = gaussian_best(mean, deviation)
    assert (probabilities >= 0).all()
    assert abs(probabilities.sum() - 1) < 1e-12
    assert np.abs(gaussian_best(mean[order], deviation[order]) - probabilities[order]).max() < 1e-12
    floor = share / len(posteriors)
    floored = with_floor(probabilities, floor)
    assert (floored >= floor).all()
    assert abs(floored.sum() - 1) < 1e-12
    assert np.allclose(
        floored, floor + (1 - len(posteriors) * floor) * probabilities, rtol=0, atol=1e-15
    )


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(0.1, 1e6)), min_size=1, max_size=12),
    st.randoms(),
)
def test_beta_probabilities_add_up_and_follow_their_actions(
    posteriors: list[tuple[float, float]], random: Any
) -> None:
    """Non-negative, sum 1 within 1e-12, permuted with the actions."""
    order = random.sample(range(len(posteriors)), len(posteriors))
    a, b = np.array(posteriors).T
    probabilities = beta_best(a, b)
    assert (probabilities >= 0).all()
    assert abs(probabilities.sum() - 1) < 1e-12
    assert np.abs(beta_best(a[order], b[order]) - probabilities[order]).max() < 1e-11


@pytest.mark.parametrize("count", [2, 3, 10, 20, 21, 200, 500])
def test_equal_actions_share_equally(count: int) -> None:
    """Any number of equal posteriors give 1 / number each, at any scale."""
    for scale in (1e-6, 1.0, 1e6):
        probabilities = gaussian_best(np.full(count, 3.0), np.full(count, scale))
        assert np.abs(probabilities * count - 1).max() < 1e-9
    probabilities = beta_best(np.full(count, 2.5), np.full(count, 40.0))
    assert np.abs(probabilities * count - 1).max() < 1e-9
    probabilities = student_best(np.full(count, 3.0), np.full(count, 0.1), np.full(count, 2.5))
    assert np.abs(probabilities * count - 1).max() < 1e-9


@pytest.mark.parametrize(("count", "bound"), [(10, 1e-7), (20, 1e-7), (200, 1e-7), (500, 1e-6)])
def test_many_actions_equal_a_finer_rule(count: int, bound: float) -> None:
    """Hundreds of comparable actions agree with a plain sum over 200,000 points."""
    rng = np.random.default_rng(count)
    mean, deviation = rng.normal(size=count), np.full(count, 3.0)
    x = np.linspace(-15, 25, 20_001)
    z = (x - mean[:, None]) / deviation[:, None]
    below = ndtr(z)
    weights = np.exp(np.log(np.maximum(below, 1e-300)).sum(axis=0))
    exact = (np.exp(-z * z / 2) / np.maximum(below, 1e-300) / deviation[:, None]) @ weights
    exact *= (x[1] - x[0]) / np.sqrt(2 * np.pi)
    assert np.abs(gaussian_best(mean, deviation) - exact).max() < bound


def test_degenerate_posteriors() -> None:
    """Certain actions: the best wins, equal ones share, an uncertain one wins half the time."""
    zeros = np.zeros(3)
    assert gaussian_best(np.array([1.0, 2.0, 0.0]), zeros).tolist() == [0, 1, 0]
    assert gaussian_best(np.array([2.0, 2.0, 0.0]), zeros).tolist() == [0.5, 0.5, 0]
    assert gaussian_best(np.array([2.0]), np.zeros(1)).tolist() == [1]
    half = gaussian_best(np.array([0.0, 0.0, -9.0]), np.array([0.0, 1.0, 0.0]))
    assert np.abs(half - [0.5, 0.5, 0.0]).max() < 1e-6
    far = gaussian_best(np.array([1e9, -1e9, 0.0]), np.array([1e-3, 1.0, 5.0]))
    assert far.tolist() == [1, 0, 0]


def test_a_certain_beta_against_the_prior() -> None:
    """A billion outcomes at a share of 0.3 beat the uniform prior with probability 0.3."""
    probabilities = beta_best(np.array([3e8, 1.0]), np.array([7e8, 1.0]))
    assert np.abs(probabilities - [0.3, 0.7]).max() < 1e-6


def test_a_floor_of_one_over_k_is_uniform() -> None:
    """At the greatest floor all actions are equal, to the bit."""
    for count in range(1, 40):
        floored = with_floor(np.eye(1, count)[0], 1 / count)
        assert (floored >= 1 / count).all()
        assert abs(floored.sum() - 1) < 1e-12
