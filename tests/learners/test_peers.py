"""Learners without context against other libraries: river, coba, bayesianbandits and scipy."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from bayesianbandits import DirichletClassifier, NormalInverseGammaRegressor, NormalRegressor
from coba.learners import BanditEpsilonLearner, BanditUCBLearner, RandomLearner
from river.bandit import UCB
from river.bandit import Exp3 as RiverExp3
from river.stats import Mean
from scipy.special import softmax

from bandstand.learners.policies import policy_from_snapshot
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from tests.learners.given import batch, outcome
from tests.learners.same_logs import (
    ACTIONS,
    HIGH,
    LOW,
    SEEDS,
    Floats,
    Log,
    decided,
    log,
    scaled,
    solution,
    spec_of,
)

CONTEXT = np.ones((1, 1))
"""The one column of a regression on nothing but an intercept."""


def river_means(seen: Log) -> Floats:
    """Give each action's mean by river, 0 for one that was never taken."""
    means = []
    for _, _, mine in seen.by_action():
        mean = Mean()
        for reward in mine:
            mean.update(reward)
        means.append(mean.get())
    return np.array(means)


def coba_scores(learner: Any) -> list[float]:
    """Give the probability of each action by coba."""
    return [learner.score(None, list(ACTIONS), action) for action in ACTIONS]


def coba_epsilon(epsilon: float, seen: Log) -> list[float]:
    """Give what coba's epsilon-greedy makes of a log."""
    learner = BanditEpsilonLearner(epsilon)
    for action, reward in zip(seen.taken, seen.rewards, strict=True):
        learner.learn(None, ACTIONS[action], float(reward), 0.5)
    return coba_scores(learner)


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_and_explore_first(seed: int) -> None:
    """Means are river's; probabilities coba's random ones, and after the test its greedy ones."""
    seen = log(seed)
    means = river_means(seen)
    during = decided(spec_of("explore_first", outcomes=201), seen.records)
    after = decided(spec_of("explore_first", outcomes=200), seen.records)
    uniform = decided(spec_of("uniform"), seen.records)
    for choice in (during, after, uniform):
        assert np.allclose(scaled(choice.scores)[:4], means[:4], rtol=0, atol=1e-12)
    assert scaled(after.scores)[4] == means[4] == 0.0
    assert np.allclose(uniform.probabilities, coba_scores(RandomLearner()), rtol=0, atol=1e-12)
    assert np.allclose(during.probabilities, coba_scores(RandomLearner()), rtol=0, atol=1e-12)
    assert np.allclose(after.probabilities, coba_epsilon(0.0, seen), rtol=0, atol=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.7])
@pytest.mark.parametrize("seed", SEEDS)
def test_epsilon_greedy(seed: int, epsilon: float) -> None:
    """Probabilities are coba's, which takes 0 for the mean of an action without outcomes.

    Also where two are equally good. A schedule as 1/t isn't in coba; river's falls exponentially.
    """
    spec = spec_of("epsilon_greedy", epsilon=epsilon, initial=0.0)
    seen = log(seed)
    choice = decided(spec, seen.records)
    assert np.allclose(choice.probabilities, coba_epsilon(epsilon, seen), rtol=0, atol=1e-12)
    assert np.allclose(scaled(choice.scores), river_means(seen), rtol=0, atol=1e-12)
    records = [outcome(action, [2.0]) for action in ACTIONS[:2]]
    tied = decided(spec, records)
    expected = coba_epsilon(epsilon, Log(np.arange(2), np.full(2, 0.5), np.ones((2, 5)), records))
    assert expected[0] == expected[1] > expected[2]
    assert np.allclose(tied.probabilities, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("temperature", "initial"), [(0.02, 0.0), (0.3, 0.75)])
@pytest.mark.parametrize("seed", SEEDS)
def test_softmax(seed: int, temperature: float, initial: float) -> None:
    """Probabilities are scipy's softmax of river's means over the temperature."""
    seen = log(seed)
    means = river_means(seen)
    means[4] = initial
    spec = spec_of("softmax", temperature=temperature, initial=initial)
    choice = decided(spec, seen.records)
    assert np.allclose(choice.probabilities, softmax(means / temperature), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_ucb1_turns_where_rivers_does(seed: int) -> None:
    """The exploration at which the choice between two actions turns is river's within 1e-9.

    River shows no bounds, only what it pulls: of two actions the one with the better mean just
    below that exploration, the one with fewer outcomes just above it.
    """
    seen = log(seed)
    arrays = solution(spec_of("ucb1"), seen.records).arrays
    widths = arrays["bound"] - arrays["mean"]
    turns = 0
    for pair in combinations(range(4), 2):
        better, wider = sorted(pair, key=lambda k: -arrays["mean"][k])
        if widths[wider] <= widths[better]:
            continue  # it is the better one at any exploration
        turns += 1
        turn = (arrays["mean"][better] - arrays["mean"][wider]) / (widths[wider] - widths[better])
        names = [ACTIONS[better], ACTIONS[wider]]
        for factor, expected in ((1 - 1e-9, [1.0, 0.0]), (1 + 1e-9, [0.0, 1.0])):
            river = UCB(delta=turn * factor, seed=1)
            for action, reward in zip(seen.taken, seen.rewards, strict=True):
                river.update(ACTIONS[action], reward)
            assert [float(river.pull(names) == name) for name in names] == expected
            assert river.pull([*names, "white"]) == "white"
            spec = spec_of("ucb1", exploration=turn * factor)
            choice = decided(spec, seen.records, eligible=(names[0], names[1]))
            assert choice.probabilities.tolist() == expected
            assert decided(spec, seen.records).probabilities.tolist() == [0, 0, 0, 0, 1]
    assert turns >= 2


@pytest.mark.parametrize("steps", [(2048, 2000, 1024, 1600, 0), (4096, 4000, 3700, 3000, 2500)])
def test_ucb_tuned_takes_what_coba_takes(steps: tuple[int, ...]) -> None:
    """600 decisions on end, each of which has all bounds close together, are coba's.

    An action always brings the same here: coba leaves each action's first reward out of its mean
    and variance, so with rewards that vary the two can't be compared.
    """
    spec, coba = spec_of("ucb_tuned"), BanditUCBLearner()
    statistics, counts = Statistics.empty(spec), np.zeros(5)
    for _ in range(600):
        policy = policy_from_snapshot(build(spec, statistics, 0, "", {}))
        choice = policy.decide({}, ACTIONS)
        assert choice.probabilities.tolist() == coba_scores(coba)
        action = int(choice.probabilities.argmax())
        reward = steps[action] / 4096
        counts[action] += 1
        coba.learn(None, ACTIONS[action], reward, 1.0)
        record = outcome(ACTIONS[action], [LOW + (HIGH - LOW) * reward])
        statistics = statistics.update(batch([record]))
    assert (counts > 1).all()
    assert math.sqrt(2 * math.log(600) / counts.max()) < 0.25  # so that not all widths are cut


PRIOR = {"mean": 2.0, "strength": 12.0, "actions": {"red": {"mean": 4.0, "strength": 40.0}}}
"""In the reward's unit: half and three quarters of the range."""


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("prior", [None, PRIOR])
@pytest.mark.parametrize("seed", SEEDS)
def test_beta_thompson(seed: int, prior: dict[str, Any] | None, binary: bool) -> None:
    """Successes and failures are the Dirichlet parameters of bayesianbandits.

    A reward r of ours is a success of weight r and a failure of weight 1 - r there.
    """
    seen = log(seed, binary=binary)
    more = {} if prior is None else {"prior": prior}
    spec = spec_of("beta_thompson", more, prior_successes=0.3, prior_failures=2.5)
    arrays = solution(spec, seen.records).arrays
    choice = decided(spec, seen.records)
    for k, _, mine in seen.by_action():
        known = (0.3, 2.5) if prior is None else (30.0, 10.0) if k == 0 else (6.0, 6.0)
        theirs = DirichletClassifier({1: known[0], 0: known[1]})
        mean = theirs.predict_proba(CONTEXT)[0, 0]
        if len(mine):
            outcomes = np.concatenate([np.ones(len(mine)), np.zeros(len(mine))])
            weights = np.concatenate([mine, 1.0 - mine])
            theirs.fit(np.ones((len(outcomes), 1)), outcomes, sample_weight=weights)
            mean = theirs.predict_proba(CONTEXT)[0, 0]
        found = [arrays["successes"][k], arrays["failures"][k]]
        assert np.allclose(found, theirs.known_alphas_[1.0], rtol=0, atol=1e-9)
        assert math.isclose(scaled(choice.scores)[k], mean, rel_tol=0, abs_tol=1e-12)


@pytest.mark.parametrize("noise_variance", [0.01, 0.6])
@pytest.mark.parametrize("seed", SEEDS)
def test_gaussian_thompson(seed: int, noise_variance: float) -> None:
    """Means and variances are those of a NormalRegressor of bayesianbandits on an intercept.

    Its prior has mean 0, so it gets the rewards less ours.
    """
    seen = log(seed)
    spec = spec_of(
        "gaussian_thompson", prior_mean=0.3, prior_variance=0.04, noise_variance=noise_variance
    )
    arrays = solution(spec, seen.records).arrays
    for k, x, mine in seen.by_action():
        theirs = NormalRegressor(alpha=1 / 0.04, beta=1 / noise_variance)
        theirs.predict(CONTEXT)  # makes the prior
        if len(mine):
            theirs.fit(x[:, :1], mine - 0.3)
        variance = theirs.cov_.covariance[0, 0]
        assert math.isclose(arrays["mean"][k] - 0.3, theirs.coef_[0], rel_tol=0, abs_tol=1e-9)
        assert math.isclose(arrays["deviation"][k] ** 2, variance, rel_tol=1e-9, abs_tol=0)


@pytest.mark.parametrize("prior_variance", [0.02, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_student_thompson(seed: int, prior_variance: float) -> None:
    """Location, scale and degrees of freedom are a NormalInverseGammaRegressor's on an intercept.

    Of bayesianbandits; outcome by outcome there.
    """
    seen = log(seed)
    spec = spec_of(
        "student_thompson",
        prior_mean=0.3,
        prior_outcomes=2.5,
        prior_shape=1.5,
        prior_variance=prior_variance,
    )
    arrays = solution(spec, seen.records).arrays
    for k, x, mine in seen.by_action():
        theirs = NormalInverseGammaRegressor(mu=0.3, lam=2.5, a=1.5, b=1.5 * prior_variance)
        theirs.predict(CONTEXT)  # makes the prior
        for row, reward in zip(x[:, :1], mine, strict=True):
            theirs.partial_fit(row[None], np.array([reward]))
        scale = math.sqrt(theirs.b_ / (theirs.a_ * theirs.cov_inv_[0, 0]))
        assert math.isclose(arrays["mean"][k], theirs.coef_[0], rel_tol=0, abs_tol=1e-9)
        assert math.isclose(arrays["scale"][k], scale, rel_tol=1e-9, abs_tol=0)
        assert arrays["freedom"][k] == 2 * theirs.a_


@pytest.mark.parametrize("gamma", [0.05, 0.4])
@pytest.mark.parametrize("seed", SEEDS)
def test_exp3(seed: int, gamma: float) -> None:
    """Probabilities are river's, after 300 of its own decisions.

    Reward over propensity stands on our grid; river gets the reward that comes to the same.
    """
    rng, records = np.random.default_rng(seed), []
    river = RiverExp3(gamma=gamma, seed=seed)
    for _ in range(300):
        action = river.pull(list(ACTIONS))
        propensity = river._probabilities[action]
        steps = int(rng.integers(0, 1 + 4096 * (1 + ACTIONS.index(action)) // 5))
        river.update(action, np.rint(steps / propensity) / 4096 * propensity)
        records.append(outcome(action, [LOW + (HIGH - LOW) * steps / 4096]))
        records[-1]["decision"]["propensity"] = propensity
    river.pull(list(ACTIONS))
    choice = decided(spec_of("exp3", gamma=gamma), records)
    expected = [river._probabilities[action] for action in ACTIONS]
    assert max(expected) > 2 * min(expected)
    assert np.allclose(choice.probabilities, expected, rtol=0, atol=1e-9)
