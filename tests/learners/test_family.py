"""Each learner's numbers are those of its paper, computed another way: outcome by outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bandstand.errors import SpecError
from bandstand.learners.features import Features
from bandstand.learners.policies import policy_from_snapshot, solve
from bandstand.learners.probabilities import gaussian_best, student_best
from bandstand.learners.protocols import Choice
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec, parse_spec
from tests.learners.given import ACTIONS, batch, outcome

Floats = np.ndarray[Any, np.dtype[np.float64]]

STEP = 1 / 4096
CONTEXT = {"age": 31.0, "land": "no"}


def spec_of(name: str, **parameters: float) -> Spec:
    """Give a spec of a policy; those with context have two features."""
    features = [
        {"name": "age", "kind": "numeric", "low": 0.0, "high": 80.0},
        {"name": "land", "kind": "categorical", "values": ["ch", "no"]},
    ]
    contextual = name in ("lin_ucb", "square_cb", "linear_epsilon_greedy")
    return Spec.model_validate(
        {
            "bandit": "paint",
            "actions": ACTIONS,
            "features": features if contextual else [],
            "policy": {"name": name, **parameters},
            "reward": {"name": "click", "aggregate": "last"},
        }
    )


def events(count: int = 300, actions: tuple[str, ...] = ACTIONS) -> list[dict[str, Any]]:
    """Give outcomes whose rewards stand on the grid, so that nothing is rounded."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(count):
        record = outcome(
            str(rng.choice(actions)),
            [float(rng.integers(0, 4097)) * STEP],
            numeric={"age": float(rng.integers(0, 81))},
            words={"land": str(rng.choice(["ch", "no"]))},
        )
        record["decision"]["propensity"] = float(rng.integers(1, 9)) / 8
        found.append(record)
    return found


def decided(
    spec: Spec, records: list[dict[str, Any]], context: Mapping[str, Any] = CONTEXT
) -> Choice:
    """Decide by a snapshot of what was learned."""
    statistics = Statistics.empty(spec).update(batch(records))
    policy = policy_from_snapshot(build(spec, statistics, 0, "", {}))
    return policy.decide(context, spec.actions)


def rewards_of(records: list[dict[str, Any]], action: str) -> list[float]:
    """Give the rewards of an action, in their order."""
    mine = [record for record in records if record["decision"]["action"] == action]
    return [record["rewards"][0]["value"] for record in mine]


def means_of(records: list[dict[str, Any]]) -> Floats:
    """Give each action's mean reward."""
    return np.array([np.mean(rewards_of(records, action)) for action in ACTIONS])


def test_uniform_is_uniform_and_shows_means() -> None:
    """All alike whatever was learned; the scores are the means."""
    choice = decided(spec_of("uniform"), events())
    assert choice.probabilities.tolist() == [1 / 3] * 3
    assert np.allclose(choice.scores, means_of(events()), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("decay_after", "epsilon"), [(0.0, 0.3), (30.0, 0.03), (1e6, 0.3)])
def test_epsilon_greedy(decay_after: float, epsilon: float) -> None:
    """The best mean gets what epsilon leaves; with a schedule epsilon falls as 1/t."""
    spec = spec_of("epsilon_greedy", epsilon=0.3, decay_after=decay_after)
    expected = np.full(3, epsilon / 3)
    expected[means_of(events()).argmax()] += 1 - epsilon
    assert np.allclose(decided(spec, events()).probabilities, expected, rtol=0, atol=1e-15)


def test_actions_without_outcomes_are_as_good_as_the_spec_says() -> None:
    """An optimist tries them first, all alike; a pessimist leaves them alone."""
    seen = [outcome("red", [0.5])]
    for initial, expected in ((1.0, [0.0, 0.5, 0.5]), (0.2, [1.0, 0.0, 0.0])):
        spec = spec_of("epsilon_greedy", epsilon=0.0, initial=initial)
        assert decided(spec, seen).probabilities.tolist() == expected
    for name in ("ucb1", "ucb_tuned"):
        assert decided(spec_of(name), seen).probabilities.tolist() == [0.0, 0.5, 0.5]


def test_ucb1_and_ucb_tuned() -> None:
    """Their bounds are those of Auer et al., summed up reward by reward."""
    records = events(40)
    one, tuned = [], []
    for action in ACTIONS:
        rewards = rewards_of(records, action)
        n, t = len(rewards), len(records)
        mean = math.fsum(rewards) / n
        variance = math.fsum(r * r for r in rewards) / n - mean * mean
        one.append(mean + 0.8 * math.sqrt(2 * math.log(t) / n))
        wide = min(0.25, variance + math.sqrt(2 * math.log(t) / n))
        tuned.append(mean + 0.8 * math.sqrt(math.log(t) / n * wide))
    for name, bounds in (("ucb1", one), ("ucb_tuned", tuned)):
        spec = spec_of(name, exploration=0.8)
        statistics = Statistics.empty(spec).update(batch(records))
        assert np.allclose(solve(spec, statistics).arrays["bound"], bounds, rtol=0, atol=1e-12)
        winner = np.eye(3)[np.argmax(bounds)]
        assert (decided(spec, records).probabilities == winner).all()


def test_softmax() -> None:
    """Ratios of probabilities are exponentials of the differences of means."""
    probabilities = decided(spec_of("softmax", temperature=0.02), events()).probabilities
    means = means_of(events())
    for i in range(3):
        for j in range(3):
            expected = math.exp((means[i] - means[j]) / 0.02)
            assert math.isclose(probabilities[i] / probabilities[j], expected, rel_tol=1e-9)


def test_exp3_follows_its_weights() -> None:
    """Auer et al.'s update of the weights, outcome by outcome, from the logged propensities."""
    gamma, records = 0.3, events()
    weights = dict.fromkeys(ACTIONS, 1.0)
    for record in records:
        decision = record["decision"]
        gain = record["rewards"][0]["value"] / decision["propensity"]
        weights[decision["action"]] *= math.exp(gamma * gain / 3)
    total = sum(weights.values())
    expected = [(1 - gamma) * weights[action] / total + gamma / 3 for action in ACTIONS]
    # A gain is rounded to 1/4096: over 300 outcomes at most 300 / 8192 * gamma / 3 in the exponent.
    choice = decided(spec_of("exp3", gamma=gamma), records)
    assert np.allclose(choice.probabilities, expected, rtol=4e-3)


def test_gaussian_thompson_is_updated_one_by_one() -> None:
    """The posterior of the sums is that of as many single updates."""
    spec = spec_of("gaussian_thompson", prior_mean=0.3, prior_variance=0.04, noise_variance=0.1)
    mean, variance = np.full(3, 0.3), np.full(3, 0.04)
    for k, action in enumerate(ACTIONS):
        for reward in rewards_of(events(), action):
            gain = variance[k] / (variance[k] + 0.1)
            mean[k] += gain * (reward - mean[k])
            variance[k] *= 1 - gain
    choice = decided(spec, events())
    assert np.allclose(choice.scores, mean, rtol=0, atol=1e-12)
    assert np.allclose(
        choice.probabilities, gaussian_best(mean, np.sqrt(variance)), rtol=0, atol=1e-9
    )


def test_student_thompson_is_updated_one_by_one() -> None:
    """The normal-inverse-gamma posterior of the sums is that of as many single updates."""
    prior = {"prior_mean": 0.3, "prior_outcomes": 2.0, "prior_shape": 1.5, "prior_variance": 0.2}
    mean, outcomes = np.full(3, 0.3), np.full(3, 2.0)
    shape, rate = np.full(3, 1.5), np.full(3, 1.5 * 0.2)
    for k, action in enumerate(ACTIONS):
        for reward in rewards_of(events(), action):
            rate[k] += outcomes[k] * (reward - mean[k]) ** 2 / (2 * (outcomes[k] + 1))
            mean[k] += (reward - mean[k]) / (outcomes[k] + 1)
            outcomes[k] += 1
            shape[k] += 0.5
    choice = decided(spec_of("student_thompson", **prior), events())
    expected = student_best(mean, np.sqrt(rate / (shape * outcomes)), 2 * shape)
    assert np.allclose(choice.scores, mean, rtol=0, atol=1e-12)
    assert np.allclose(choice.probabilities, expected, rtol=0, atol=1e-9)


def _regressed(spec: Spec, records: list[dict[str, Any]], ridge: float) -> tuple[Floats, Floats]:
    """Give mean and deviation of each action at CONTEXT, by updates of rank one."""
    features = Features(spec)
    x = features.vector(CONTEXT).astype(float)
    means, deviations = [], []
    for action in spec.actions:
        inverse, target = np.eye(len(x)) / ridge, np.zeros(len(x))
        for record in records:
            decision = record["decision"]
            if decision["action"] == action:
                attributes = dict(decision["subject_numeric"] + decision["subject_categorical"])
                row = features.vector(attributes).astype(float)
                turned = inverse @ row
                inverse -= np.outer(turned, turned) / (1 + row @ turned)
                target += row * record["rewards"][0]["value"]
        means.append(x @ inverse @ target)
        deviations.append(math.sqrt(x @ inverse @ x))
    return np.array(means), np.array(deviations)


def test_lin_ucb_is_li_et_als() -> None:
    """The largest bound of disjoint regressions updated one by one; an unseen action's is wide."""
    records = events(60, ACTIONS[:2])
    for alpha, winner in ((0.0, None), (100.0, 2)):
        spec = spec_of("lin_ucb", alpha=alpha, prior_precision=2.0)
        mean, deviation = _regressed(spec, records, 2.0)
        best = int((mean + alpha * deviation).argmax())
        assert winner in (None, best)
        choice = decided(spec, records)
        assert choice.probabilities.tolist() == np.eye(3)[best].tolist()
        assert np.allclose(choice.scores, mean, rtol=0, atol=1e-9)


def test_square_cb_weights_inverse_gaps() -> None:
    """1 / (k + gamma gap) for all but the best, which gets the rest."""
    spec = spec_of("square_cb", gamma_scale=3.0, gamma_exponent=0.5, prior_precision=0.5)
    records = events(100)
    mean, _ = _regressed(spec, records, 0.5)
    gamma = 3.0 * math.sqrt(100)
    expected = [1 / (3 + gamma * (mean.max() - m)) for m in mean]
    best = int(mean.argmax())
    expected[best] = 1 - sum(p for k, p in enumerate(expected) if k != best)
    assert np.allclose(decided(spec, records).probabilities, expected, rtol=0, atol=1e-9)


def test_linear_epsilon_greedy() -> None:
    """The best prediction gets what epsilon leaves, as it is after so many outcomes."""
    spec = spec_of("linear_epsilon_greedy", epsilon=0.4, decay_after=50.0)
    mean, _ = _regressed(spec, events(100), 1.0)
    expected = np.full(3, 0.2 / 3)
    expected[mean.argmax()] += 0.8
    assert np.allclose(decided(spec, events(100)).probabilities, expected, rtol=0, atol=1e-12)


def test_an_unknown_policy_names_those_that_there_are() -> None:
    """The nearest name and all others; parameters of another policy are refused by line."""
    text = "bandit: b\nactions: [x, y]\nreward: {name: click}\npolicy: {name: %s}\n"
    with pytest.raises(SpecError, match=r"b.yaml:4: policy.name: 'ucb'; .*allowed: beta_thompson"):
        parse_spec(text % "ucb", "b.yaml")
    with pytest.raises(SpecError, match=r"b.yaml:4: policy.alpha: unknown key; allowed: name, exp"):
        parse_spec(text % "ucb1, alpha: 2", "b.yaml")
    with pytest.raises(SpecError, match=r"b.yaml:4: policy.epsilon: 2.0"):
        parse_spec(text % "epsilon_greedy, epsilon: 2.0", "b.yaml")
