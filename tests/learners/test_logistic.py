"""Logistic Thompson sampling against scipy: mode and curvature of each step, and of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit

from bandstand.errors import StateError
from bandstand.learners.features import Features
from bandstand.learners.log_odds import expected, expecting, mode_of
from bandstand.learners.policies import policy_from_snapshot, solve
from bandstand.learners.probabilities import gaussian_best
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from tests.learners.given import ACTIONS, batch, outcome

Floats = np.ndarray[Any, np.dtype[np.float64]]

NAMES = ("logistic_thompson", "diagonal_logistic_thompson")
PRECISION = 0.5
TRUTH = {"red": (0.8, -1.0, 0.5), "green": (-0.4, 0.7, 0.0), "blue": (0.1, 0.2, -0.9)}


PRIOR = {"mean": 0.6, "strength": 400.0, "actions": {"green": {"mean": 0.3, "strength": 150.0}}}
BELIEFS = {"red": (0.6, 400.0), "green": (0.3, 150.0), "blue": (0.6, 400.0)}


def spec_of(name: str, **more: Any) -> Spec:
    """Give a spec with an intercept, a number and a word."""
    return Spec.model_validate(
        {
            "bandit": "paint",
            "actions": ACTIONS,
            "features": [
                {"name": "age", "kind": "numeric", "low": 0.0, "high": 80.0},
                {"name": "land", "kind": "categorical", "values": ["no"]},
            ],
            "policy": {"name": name, "prior_precision": PRECISION},
            "reward": {"name": "click"},
            **more,
        }
    )


def events(count: int, seed: int = 6) -> list[dict[str, Any]]:
    """Give clicks by chance of a logistic model an action."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        action, age = str(rng.choice(ACTIONS)), float(rng.integers(0, 81))
        land = str(rng.choice(["no", "ch"]))
        odds = np.dot(TRUTH[action], (1.0, age / 40 - 1, land == "no"))
        clicks = [float(rng.random() < expit(odds))]
        found.append(outcome(action, clicks, numeric={"age": age}, words={"land": land}))
    return found


def learned(spec: Spec, records: list[dict[str, Any]]) -> Statistics:
    """Give what they teach."""
    return Statistics.empty(spec).update(batch(records))


def rows_of(spec: Spec, records: list[dict[str, Any]], action: str) -> tuple[Floats, Floats]:
    """Give the features and rewards of an action."""
    mine = [r for r in records if r["decision"]["action"] == action]
    contexts = [
        dict([*r["decision"]["subject_numeric"], *r["decision"]["subject_categorical"]])
        for r in mine
    ]
    x = np.array([Features(spec).vector(context) for context in contexts], dtype=np.float64)
    return x, np.array([r["rewards"][0]["value"] for r in mine])


def covariance_of(solved_factor: Floats, dimension: int) -> Floats:
    """Give F'F."""
    factor = np.zeros((dimension, dimension))
    factor[np.tril_indices(dimension)] = solved_factor
    return np.asarray(factor.T @ factor)


def start_of(mean: float, strength: float) -> tuple[Floats, Floats]:
    """Give mean and precision of the weights before any outcome, found by scipy."""

    def loss(z: float) -> float:
        return strength * (float(np.logaddexp(0.0, z)) - mean * z)

    mode = minimize_scalar(loss).x
    assert expit(mode) == pytest.approx(mean, rel=1e-5)
    step = 1e-3
    curvature = (loss(mode + step) - 2 * loss(mode) + loss(mode - step)) / step**2

    def excess(z: float) -> float:
        return integral(z, curvature**-0.5) - mean

    return np.array([brentq(excess, mode - 3, mode + 3), 0, 0]), np.diag(
        [curvature, PRECISION, PRECISION]
    )


def integral(mean: float, deviation: float) -> float:
    """Give the expected share of log-odds with a Gaussian."""

    def weighed(z: float) -> float:
        return float(expit(mean + deviation * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi))

    return float(quad(weighed, -12, 12, epsabs=0, epsrel=1e-10)[0])


@given(st.floats(-60, 60), st.floats(1e-12, 1e9), st.floats(0, 1), st.sampled_from([1.0, 2.5, 1e3]))
@settings(max_examples=300, deadline=None)
def test_the_mode_is_the_root(mean: float, variance: float, reward: float, weight: float) -> None:
    """From tiny to huge variances, for rewards at the ends and in between, of any weight."""
    gain, curvature = mode_of(mean, variance, reward, weight)
    gain, curvature, variance = gain / weight, curvature / weight, variance * weight
    low, high = mean + variance * (reward - 1), mean + variance * reward

    def excess(z: float) -> float:
        return z - mean - variance * (reward - float(expit(z)))

    root = brentq(excess, low - 1, high + 1, xtol=1e-13, rtol=1e-15)
    scale = 1e-8 + 1e-12 * variance
    assert abs(variance * (gain - (reward - float(expit(root))))) <= max(scale, 1e-9 * abs(root))
    assert 0 <= curvature <= 0.25 + 1e-15


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["plain", "prior"])
def test_each_outcome_moves_the_posterior_to_laplaces(
    name: str, prior: dict[str, Any] | None
) -> None:
    """Prior times one likelihood, its mode found by scipy, its curvature by the formula."""
    spec, records = spec_of(name, prior=prior), events(60)
    for action in ACTIONS:
        x, y = rows_of(spec, records, action)
        mean, precision = np.zeros(3), PRECISION * np.eye(3)
        if prior:
            mean = solve(spec, Statistics.empty(spec)).arrays["mean"][ACTIONS.index(action)]
            precision = start_of(*BELIEFS[action])[1]
        for row, reward in zip(x, y, strict=True):

            def loss(w: Floats, m: Floats = mean, p: Floats = precision, r: Floats = row) -> float:
                odds = float(r @ w)
                log = np.logaddexp(0.0, odds) - reward * odds  # noqa: B023 - used at once
                return float(log + (w - m) @ p @ (w - m) / 2)

            mean = minimize(loss, mean, method="BFGS", options={"gtol": 1e-9}).x
            share = expit(row @ mean)
            precision = precision + share * (1 - share) * np.outer(row, row)
            if name == NAMES[1]:
                precision = np.diag(np.diag(precision))
        index = ACTIONS.index(action)
        arrays = solve(spec, learned(spec, records)).arrays
        found = (
            covariance_of(arrays["factor"][index], 3)
            if name == NAMES[0]
            else np.diag(arrays["variance"][index])
        )
        assert np.allclose(arrays["mean"][index], mean, rtol=0, atol=1e-5)
        assert np.allclose(found, np.linalg.inv(precision), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("mean", "strength"), [(0.002, 500), (0.03, 900), (0.3, 400), (0.9, 20)])
def test_a_prior_is_the_curvature_and_the_mean_of_its_outcomes(
    name: str, mean: float, strength: float
) -> None:
    """Before any outcome: scipy's curvature of their likelihood, and the mean that expects them."""
    reward = {"name": "click", "low": -2.0, "high": 3.0}
    spec = spec_of(name, prior={"mean": 5 * mean - 2, "strength": strength}, reward=reward)
    arrays = solve(spec, Statistics.empty(spec)).arrays
    expected, precision = start_of(mean, strength)
    for index in range(3):
        found = (
            covariance_of(arrays["factor"][index], 3)
            if name == NAMES[0]
            else np.diag(arrays["variance"][index])
        )
        assert np.allclose(found @ precision, np.eye(3), rtol=0, atol=1e-4)
        off = (arrays["mean"][index] - expected) * np.sqrt(np.diag(precision))
        assert np.abs(off).max() < 0.05  # of a deviation: scores are near the integral only


@pytest.mark.parametrize("name", NAMES)
def test_a_prior_is_worth_its_outcomes(name: str) -> None:
    """It comes near what a learner that began with nearly nothing makes of as many."""
    told = spec_of(name, prior={"mean": 0.1, "strength": 500})
    blank = Spec.model_validate(
        {**spec_of(name).model_dump(mode="json"), "policy": {"name": name, "prior_precision": 0.01}}
    )
    clicks = np.random.default_rng(3).permutation(np.arange(500) < 50)
    rows = [outcome("red", [float(c)], numeric={"age": 40.0}, words={"land": "ch"}) for c in clicks]
    ours = solve(told, Statistics.empty(told)).arrays
    theirs = solve(blank, learned(blank, rows)).arrays
    width = "factor" if name == NAMES[0] else "variance"
    assert ours["mean"][0, 0] == pytest.approx(theirs["mean"][0, 0], abs=0.05)
    assert ours[width][0, 0] == pytest.approx(theirs[width][0, 0], rel=0.1)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["plain", "prior"])
def test_many_outcomes_come_to_the_posterior_of_all_at_once(prior: dict[str, Any] | None) -> None:
    """The chain's posterior is near Laplace's of all 3,000 outcomes together."""
    spec, records = spec_of(NAMES[0], prior=prior), events(3000)
    arrays = solve(spec, learned(spec, records)).arrays
    for index, action in enumerate(ACTIONS):
        x, y = rows_of(spec, records, action)
        mean, before = start_of(*BELIEFS[action]) if prior else (np.zeros(3), PRECISION * np.eye(3))

        def loss(
            w: Floats, x: Floats = x, y: Floats = y, m: Floats = mean, p: Floats = before
        ) -> float:
            odds = x @ w
            return float(np.logaddexp(0.0, odds).sum() - y @ odds + (w - m) @ p @ (w - m) / 2)

        mode = minimize(loss, mean, method="BFGS").x
        share = expit(x @ mode)
        precision = before + (x.T * (share * (1 - share))) @ x
        whitened = np.linalg.cholesky(precision).T @ (arrays["mean"][index] - mode)
        assert np.linalg.norm(whitened) < 0.3  # in standard deviations
        ratios = np.linalg.eigvals(covariance_of(arrays["factor"][index], 3) @ precision).real
        assert (np.abs(ratios - 1) < 0.15).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["plain", "prior"])
def test_partitions_together_know_what_one_would(name: str, prior: dict[str, Any] | None) -> None:
    """Four chains, merged, come near the single one: what all of them began with counts once."""
    spec, records = spec_of(name, prior=prior), events(2000)
    alone = learned(spec, records)
    merged = Statistics.empty(spec)
    for partition in range(4):
        merged = merged.merge(learned(spec, records[partition::4]))
    assert merged.outcomes == alone.outcomes
    one, four = solve(spec, alone).arrays, solve(spec, merged).arrays
    assert np.allclose(one["mean"], four["mean"], rtol=0, atol=0.08 if name == NAMES[0] else 0.2)
    if name == NAMES[1]:
        assert np.allclose(one["variance"], four["variance"], rtol=0.05)
        return
    for index in range(3):
        inverse = np.linalg.inv(covariance_of(one["factor"][index], 3))
        ratios = np.linalg.eigvals(covariance_of(four["factor"][index], 3) @ inverse).real
        assert (np.abs(ratios - 1) < 0.15).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_outcome_of_weight_four_is_four_at_once(name: str) -> None:
    """The mode and the curvature of the likelihood to the fourth power, by scipy."""
    kept = {"name": "click", "keep_probability": {"attribute": "kept"}}
    spec = spec_of(name, reward=kept)
    record = outcome("red", [1.0], numeric={"age": 10.0, "kept": 0.25}, words={"land": "no"})
    statistics = learned(spec, [record])
    arrays = solve(spec, statistics).arrays
    x = np.array([1.0, -0.75, 1.0])

    def loss(w: Floats) -> float:
        return float(4 * np.logaddexp(0.0, -(x @ w)) + PRECISION * w @ w / 2)

    mode = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    share = expit(x @ mode)
    precision = PRECISION * np.eye(3) + 4 * share * (1 - share) * np.outer(x, x)
    assert np.allclose(arrays["mean"][0], mode, rtol=0, atol=1e-5)
    if name == NAMES[0]:
        found = covariance_of(arrays["factor"][0], 3)
        assert np.allclose(found, np.linalg.inv(precision), rtol=0, atol=1e-5)
    else:
        assert np.allclose(1 / arrays["variance"][0], np.diag(precision), rtol=0, atol=1e-5)
    assert statistics.solvable()["outcomes"].tolist() == [4.0, 0.0, 0.0]
    once = dict(record["decision"]["subject_numeric"]) | {"kept": 1.0}
    record["decision"]["subject_numeric"] = list(once.items())
    assert learned(spec, [record]).digest() == learned(spec_of(name), [record]).digest()


@pytest.mark.parametrize("name", NAMES)
def test_a_partition_without_outcomes_of_an_action_changes_no_bit_of_it(name: str) -> None:
    """What only one has had is taken over as it is, whichever of them it is."""
    spec, records = spec_of(name, prior=PRIOR), events(90)
    mixed = learned(spec, records)
    bare = learned(spec, [r for r in records if r["decision"]["action"] != "green"])
    for merged in (mixed.merge(bare), bare.merge(mixed)):
        for key, array in merged.arrays().items():
            assert (array[1] == mixed.arrays()[key][1]).all()
            assert (array[0] != mixed.arrays()[key][0]).any()


@pytest.mark.parametrize(
    ("mean", "strength", "least"),
    [(1e-4, 900.0, "give at least 1000"), (0.0, 9.0, "can't be sure"), (1.0, 1e9, "can't be sure")],
)
def test_a_prior_that_is_too_sure_is_refused(mean: float, strength: float, least: str) -> None:
    """Log-odds have no mode for a reward that never or always comes."""
    for name in NAMES:
        with pytest.raises(ValidationError, match=least):
            spec_of(name, prior={"mean": mean, "strength": strength})


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_the_log_odds(name: str) -> None:
    """The largest log-odds is the largest reward."""
    spec = spec_of(name)
    snapshot = build(spec, learned(spec, events(300)), 0, "", {})
    solved = solve(spec, learned(spec, events(300))).arrays
    context = {"age": 60.0, "land": "no"}
    choice = policy_from_snapshot(snapshot).decide(context, spec.actions)
    x = Features(spec).vector(context).astype(np.float64)
    deviations = [
        np.sqrt(x @ covariance_of(solved["factor"][index], 3) @ x)
        if name == NAMES[0]
        else np.sqrt(solved["variance"][index] @ x**2)
        for index in range(3)
    ]
    expected = gaussian_best(solved["mean"] @ x, np.array(deviations))
    assert np.allclose(choice.probabilities, expected, rtol=0, atol=1e-12)


def test_scores_are_near_the_expected_reward() -> None:
    """Within 0.02 of the integral for log-odds up to 12; within 5 % where rewards are rare."""
    worst, rare = 0.0, 0.0
    for mean in np.linspace(-12, 12, 49):
        for deviation in (0.1, 0.5, 1.0, 2.0, 5.0):
            exact = integral(mean, deviation)
            found = expected(np.array([mean]), np.array([deviation]))[0]
            worst = max(worst, abs(found - exact))
            if exact < 0.01 and deviation <= 1.0:
                rare = max(rare, abs(found / exact - 1.0))
    assert 0.005 < worst < 0.02
    assert 0.005 < rare < 0.05


@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.floats(0, 1e6))
def test_an_expected_reward_has_its_log_odds(share: float, variance: float) -> None:
    """Both ways agree."""
    odds = expecting(np.array([share]), np.array([variance]))
    found = expected(odds, np.sqrt(np.array([variance])))[0]
    assert found == pytest.approx(share, rel=1e-6, abs=1e-12)


def test_a_chain_cannot_be_subtracted_or_take_what_is_not_finite() -> None:
    """Both say why."""
    spec = spec_of(NAMES[0])
    statistics = learned(spec, events(20))
    with pytest.raises(StateError, match="'logistic_thompson' keeps a chain"):
        statistics.subtract(statistics)
    broken = {name: array.copy() for name, array in statistics.arrays().items()}
    broken["mean"].view(np.float64)[1, 2] = np.inf
    with pytest.raises(StateError, match="mean of bandit 'paint' isn't finite"):
        Statistics.from_arrays(spec, broken, {}, 20, None)
