"""Learners with context against other libraries: bayesianbandits, river and coba."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from bayesianbandits import (
    BayesianGLM,
    LaplaceApproximator,
    NormalInverseGammaRegressor,
    NormalRegressor,
)
from coba.learners import LinUCBLearner
from river.linear_model import BayesianLinearRegression

from bandstand.learners.protocols import Solved
from bandstand.learners.triangles import lower_of
from tests.learners.same_logs import (
    ACTIONS,
    HIGH,
    LOW,
    SEEDS,
    Floats,
    Log,
    columns,
    covariances,
    decided,
    log,
    scaled,
    solution,
    spec_of,
)

SUBJECTS = columns(np.random.default_rng(0), 20)
ONE_HOT = [tuple(row) for row in np.eye(len(ACTIONS)).tolist()]


def taught(model: Any, x: Floats, rewards: Floats, weights: Floats | None = None) -> Any:
    """Teach a regression of bayesianbandits in two parts; without outcomes it is its prior."""
    model.predict(np.zeros((1, x.shape[1])))  # makes the prior
    for part in (slice(0, len(x) // 2), slice(len(x) // 2, len(x))):
        if len(x[part]):
            weighed = None if weights is None else weights[part]
            model.partial_fit(x[part], rewards[part], sample_weight=weighed)
    return model


def moments(solved: Solved, x: Floats) -> tuple[Floats, Floats]:
    """Give mean and variance of each subject's and action's score, float64[n, K]."""
    variance = np.einsum("nd,kde,ne->nk", x, covariances(solved), x)
    return x @ solved.arrays["mean"].T, variance


def coba_bounds(alpha: float, seen: Log) -> Callable[[Floats, tuple[int, ...]], list[float]]:
    """Teach coba's LinUCB, its features those of actions one by one times a subject's columns.

    Gives the probabilities of the actions that are eligible for a subject.
    """
    learner = LinUCBLearner(alpha, features=["ax"])
    for action, x, reward in zip(seen.taken, seen.x, seen.rewards, strict=True):
        learner.learn(x.tolist(), ONE_HOT[action], float(reward), 1.0)

    def probabilities(x: Floats, eligible: tuple[int, ...]) -> list[float]:
        actions = [ONE_HOT[action] for action in eligible]
        return [learner.score(x.tolist(), actions, action) for action in actions]

    return probabilities


@pytest.mark.parametrize(("precision", "noise"), [(0.3, 0.05), (4.0, 0.7)])
@pytest.mark.parametrize("seed", SEEDS)
def test_linear_thompson(seed: int, precision: float, noise: float) -> None:
    """Means and covariances of the weights are a NormalRegressor's of bayesianbandits."""
    spec = spec_of("linear_thompson", prior_precision=precision, noise_variance=noise)
    seen = log(seed)
    solved = solution(spec, seen.records)
    for k, x, mine in seen.by_action():
        theirs = taught(NormalRegressor(alpha=precision, beta=1 / noise), x, mine)
        found = covariances(solved)[k]
        assert np.allclose(solved.arrays["mean"][k], theirs.coef_, rtol=0, atol=1e-9)
        assert np.allclose(found, theirs.cov_.covariance, rtol=0, atol=1e-9)
        for row in SUBJECTS[:3]:
            score = scaled(decided(spec, seen.records, row).scores)[k]
            assert np.allclose(score, theirs.predict(row[None]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("precision", "noise"), [(0.3, 0.05), (4.0, 0.7)])
@pytest.mark.parametrize("seed", SEEDS)
def test_linear_thompson_predicts_as_river(seed: int, precision: float, noise: float) -> None:
    """Means and variances at a subject are those of river's BayesianLinearRegression.

    Outcome by outcome there; its variance is that of a reward, so it has the noise in it.
    """
    spec = spec_of("linear_thompson", prior_precision=precision, noise_variance=noise)
    seen = log(seed)
    means, variances = moments(solution(spec, seen.records), SUBJECTS)
    for k, x, mine in seen.by_action():
        river = BayesianLinearRegression(alpha=precision, beta=1 / noise)
        for row, reward in zip(x.tolist(), mine, strict=True):
            river.learn_one(dict(enumerate(row)), reward)
        for n, row in enumerate(SUBJECTS.tolist()):
            theirs = river.predict_one(dict(enumerate(row)), with_dist=True)
            assert np.isclose(means[n, k], theirs.mu, rtol=0, atol=1e-9)
            assert np.isclose(variances[n, k], theirs.sigma**2 - noise, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_prior_of_the_spec(seed: int) -> None:
    """Mean and strength are prior mean and precision of the intercept in bayesianbandits.

    In its NormalInverseGammaRegressor, whose precisions are in parts of the noise's.
    """
    prior = {"mean": 2.0, "strength": 12.0, "actions": {"red": {"mean": 4.0, "strength": 40.0}}}
    more = {"prior": prior}
    spec = spec_of("linear_thompson", more, prior_precision=0.6, noise_variance=0.2)
    seen = log(seed)
    solved = solution(spec, seen.records)
    for k, x, mine in seen.by_action():
        mean, strength = (0.75, 40.0) if k == 0 else (0.5, 12.0)
        ridge = np.full(x.shape[1], 0.6 * 0.2)
        model = NormalInverseGammaRegressor(
            mu=np.array([mean, 0, 0, 0, 0]), lam=np.array([strength, *ridge[1:]])
        )
        theirs = taught(model, x, mine)
        found = covariances(solved)[k]
        assert np.allclose(solved.arrays["mean"][k], theirs.coef_, rtol=0, atol=1e-9)
        assert np.allclose(found, 0.2 * theirs.cov_.covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_outcome_weighs_what_it_stands_for(seed: int) -> None:
    """An outcome that was kept with probability p has the sample weight 1 / p in bayesianbandits.

    Weights are 1, 4 and 16, whose roots stand on the grid.
    """
    seen = log(seed)
    weights = 4.0 ** np.random.default_rng(seed).integers(0, 3, len(seen.taken))
    for record, weight in zip(seen.records, weights, strict=True):
        record["decision"]["subject_numeric"].append(("kept", 1 / weight))
    kept = {"attribute": "kept", "least": 1 / 16}
    more = {"reward": {"name": "click", "low": LOW, "high": HIGH, "keep_probability": kept}}
    spec = spec_of("linear_thompson", more, prior_precision=0.6, noise_variance=0.2)
    solved = solution(spec, seen.records)
    for k, x, mine in seen.by_action():
        theirs = taught(NormalRegressor(0.6, 1 / 0.2), x, mine, weights[seen.taken == k])
        found = covariances(solved)[k]
        assert np.allclose(solved.arrays["mean"][k], theirs.coef_, rtol=0, atol=1e-9)
        assert np.allclose(found, theirs.cov_.covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("precision", [0.3, 4.0])
@pytest.mark.parametrize("name", ["lin_ucb", "square_cb", "linear_epsilon_greedy"])
@pytest.mark.parametrize("seed", SEEDS)
def test_ridge_regressions(seed: int, name: str, precision: float) -> None:
    """Predictions and widths are those of a NormalRegressor of bayesianbandits with noise 1."""
    spec = spec_of(name, prior_precision=precision)
    seen = log(seed)
    solved = solution(spec, seen.records)
    for k, x, mine in seen.by_action():
        theirs = taught(NormalRegressor(alpha=precision, beta=1.0), x, mine)
        found = covariances(solved)[k]
        assert np.allclose(solved.arrays["mean"][k], theirs.coef_, rtol=0, atol=1e-9)
        assert np.allclose(found, theirs.cov_.covariance, rtol=0, atol=1e-9)
        score = scaled(decided(spec, seen.records, SUBJECTS[k]).scores)[k]
        assert np.allclose(score, theirs.predict(SUBJECTS[k][None]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_lin_ucb_turns_where_cobas_does(seed: int) -> None:
    """The alpha at which the choice between two actions turns is that of coba's LinUCB.

    Within 1e-9: it shows no bounds, only what it takes. Its ridge has the weight 1.
    """
    seen, turns = log(seed), 0
    solved = solution(spec_of("lin_ucb"), seen.records)
    means, variances = moments(solved, SUBJECTS)
    for n, (mean, width) in enumerate(zip(means[:4], np.sqrt(variances), strict=False)):
        for pair in combinations(range(len(ACTIONS)), 2):
            better, wider = sorted(pair, key=lambda k: -mean[k])
            if width[wider] <= width[better]:
                continue  # it is the better one at any alpha
            turns += 1
            turn = (mean[better] - mean[wider]) / (width[wider] - width[better])
            names = (ACTIONS[better], ACTIONS[wider])
            for factor, expected in ((1 - 1e-9, [1.0, 0.0]), (1 + 1e-9, [0.0, 1.0])):
                theirs = coba_bounds(turn * factor, seen)(SUBJECTS[n], (better, wider))
                spec = spec_of("lin_ucb", alpha=turn * factor)
                choice = decided(spec, seen.records, SUBJECTS[n], names)
                assert theirs == choice.probabilities.tolist() == expected
    assert turns >= 10


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_epsilon_greedy(seed: int) -> None:
    """Around epsilon for all, it takes what coba's LinUCB does without a width."""
    spec, seen = spec_of("linear_epsilon_greedy", epsilon=0.3), log(seed)
    greedy = coba_bounds(0.0, seen)
    for row in SUBJECTS:
        expected = 0.3 / 5 + 0.7 * np.array(greedy(row, (0, 1, 2, 3, 4)))
        choice = decided(spec, seen.records, row)
        assert np.allclose(choice.probabilities, expected, rtol=0, atol=1e-12)


PRICES = {"red": 1.0, "green": 4.0, "blue": 3.0, "grey": 0.0, "white": 2.0}
SORTS = {"red": "warm", "green": "cold", "blue": "cold", "grey": "cold", "white": "warm"}
SHARED = {
    "action_features": [
        {"name": "price", "kind": "numeric", "low": 0.0, "high": 4.0, "of": PRICES},
        {"name": "sort", "kind": "categorical", "values": ["warm", "cold"], "of": SORTS},
    ],
    "interactions": [["sort", "land"], ["pace", "price"], ["pace", "land"]],
}


def subject(x: Floats) -> Floats:
    """Add the products of pace and land, float64[n, 7]."""
    return np.column_stack([x, x[:, 1] * x[:, 3], x[:, 1] * x[:, 4]])


def theirs_of(x: Floats, action: int) -> Floats:
    """Give the columns of an action and of its interactions with subjects, float64[n, 8]."""
    name = ACTIONS[action]
    price = PRICES[name] / 2 - 1
    sort = np.array([SORTS[name] == "warm", SORTS[name] == "cold"], dtype=float)
    own = np.broadcast_to([price, *sort], (len(x), 3))
    lands = [x[:, land, None] * sort for land in (3, 4)]
    return np.column_stack([own, *lands, x[:, 1] * price])


def apart(x: Floats, action: int) -> Floats:
    """Give the columns of a hybrid model: shared ones, and a subject's for each action apart."""
    own = np.zeros((len(x), len(ACTIONS), 7))
    own[:, action] = subject(x)
    return np.concatenate([theirs_of(x, action), own.reshape(len(x), -1)], axis=1)


def together(x: Floats, action: int) -> Floats:
    """Give the columns of a model that all actions share: a subject's and theirs."""
    return np.concatenate([subject(x), theirs_of(x, action)], axis=1)


def all_rows(seen: Log, phi: Callable[[Floats, int], Floats]) -> Floats:
    """Give a row for each outcome."""
    pairs = zip(seen.x, seen.taken, strict=True)
    return np.concatenate([phi(x[None], int(action)) for x, action in pairs])


@pytest.mark.parametrize("draws", [0, 50])
@pytest.mark.parametrize(("precision", "noise"), [(0.3, 0.05), (4.0, 0.7)])
@pytest.mark.parametrize("seed", SEEDS)
def test_shared_linear_thompson(seed: int, precision: float, noise: float, draws: int) -> None:
    """Each action's marginal is that of one NormalRegressor of bayesianbandits on all columns.

    With joint draws, so are the weights and their covariances.
    """
    spec = spec_of(
        "shared_linear_thompson",
        SHARED,
        prior_precision=precision,
        noise_variance=noise,
        draws=draws,
    )
    seen = log(seed)
    solved = solution(spec, seen.records)
    model = NormalRegressor(alpha=precision, beta=1 / noise)
    theirs = taught(model, all_rows(seen, together), seen.rewards)
    means, variances = moments(solved, subject(SUBJECTS))
    for k in range(len(ACTIONS)):
        phi = together(SUBJECTS, k)
        expected = np.einsum("nd,de,ne->n", phi, theirs.cov_.covariance, phi)
        assert np.allclose(means[:, k], theirs.predict(phi), rtol=0, atol=1e-9)
        assert np.allclose(variances[:, k], expected, rtol=0, atol=1e-9)
    if draws:
        factor = lower_of(solved.arrays["weights_factor"], phi.shape[1])
        assert np.allclose(solved.arrays["weights"], theirs.coef_, rtol=0, atol=1e-9)
        assert np.allclose(factor.T @ factor, theirs.cov_.covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("precision", [0.3, 4.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_hybrid_lin_ucb(seed: int, precision: float) -> None:
    """Means and widths are those of one NormalRegressor of bayesianbandits with noise 1.

    Its columns are the shared ones and, for each action apart, the subject's.
    """
    spec = spec_of("hybrid_lin_ucb", SHARED, prior_precision=precision, alpha=0.7)
    seen = log(seed)
    solved = solution(spec, seen.records)
    model = NormalRegressor(alpha=precision, beta=1.0)
    theirs = taught(model, all_rows(seen, apart), seen.rewards)
    means, variances = moments(solved, subject(SUBJECTS))
    bounds = np.zeros(means.shape)
    for k in range(len(ACTIONS)):
        phi = apart(SUBJECTS, k)
        expected = np.einsum("nd,de,ne->n", phi, theirs.cov_.covariance, phi)
        assert np.allclose(means[:, k], theirs.predict(phi), rtol=0, atol=1e-9)
        assert np.allclose(variances[:, k], expected, rtol=0, atol=1e-9)
        bounds[:, k] = theirs.predict(phi) + 0.7 * np.sqrt(expected)
    for n, row in enumerate(SUBJECTS):
        choice = decided(spec, seen.records, row)
        assert choice.probabilities.argmax() == bounds[n].argmax()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("precision", [0.3, 4.0])
@pytest.mark.parametrize("name", ["logistic_thompson", "diagonal_logistic_thompson"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.filterwarnings("ignore:Posterior approximation did not converge")
def test_logistic_thompson(seed: int, name: str, precision: float, binary: bool) -> None:
    """Means and covariances are a BayesianGLM's of bayesianbandits, an outcome at a time.

    Laplace's approximation there, too, by 30 of Newton's steps whatever they gain, of which it
    warns. For the diagonal one it forgets after each outcome what stands beside the diagonal of
    its precision.
    """
    spec, seen = spec_of(name, prior_precision=precision), log(seed, binary=binary)
    solved = solution(spec, seen.records)
    for k, x, mine in seen.by_action():
        closely = LaplaceApproximator(n_iter=30, tol=0.0)
        theirs = BayesianGLM(alpha=precision, approximator=closely)
        theirs.predict(SUBJECTS)  # makes the prior
        for row, reward in zip(x, mine, strict=True):
            theirs.partial_fit(row[None], np.array([reward]))
            if name == "diagonal_logistic_thompson":
                theirs.cov_inv_ = np.diag(np.diag(theirs.cov_inv_))
        assert np.allclose(solved.arrays["mean"][k], theirs.coef_, rtol=0, atol=1e-9)
        if name == "diagonal_logistic_thompson":
            expected = 1 / np.diag(theirs.cov_inv_)
            assert np.allclose(solved.arrays["variance"][k], expected, rtol=0, atol=1e-9)
        else:
            found = covariances(solved)[k]
            assert np.allclose(found, theirs.cov_.covariance, rtol=0, atol=1e-9)
