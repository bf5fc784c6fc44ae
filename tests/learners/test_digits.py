"""Linear Thompson learns to read: scikit-learn's digits, rewards that come late, in batches."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from bandstand.learners.policies import draw, policy_from_snapshot
from bandstand.learners.protocols import AdditiveLearner, Rows
from bandstand.learners.registry import learner_of
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from tests.learners.given import linear_spec

LAG = 600
"""Decisions made before the reward of one is learned."""

BATCH = 300
"""Decisions between snapshots."""


def test_digits_are_learned_from_delayed_rewards() -> None:
    """Within 5,391 decisions (three passes) the error of the last 1,000 falls below 0.1."""
    images, digits = load_digits(return_X_y=True)
    names = [f"pixel{i}" for i in range(64)]
    spec = linear_spec(
        [str(digit) for digit in range(10)],
        [{"name": name, "kind": "numeric", "low": 0.0, "high": 16.0} for name in names],
        prior_precision=100.0,
        noise_variance=0.01,
    )
    rng = np.random.default_rng(1)
    order = np.concatenate([rng.permutation(len(images)) for _ in range(3)])
    statistics = Statistics.empty(spec)
    steps: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
    actions: list[int] = []
    for number, image in enumerate(order):
        if number % BATCH == 0:
            done, ready = statistics.outcomes, max(number - LAG, 0)
            if ready > done:
                new = slice(done, ready)
                rows = Rows(np.array(actions[new]), np.array(steps[new]), np.ones(ready - done))
                learner = learner_of(spec)
                assert isinstance(learner, AdditiveLearner)
                sums = learner.sums(spec, rows)
                statistics = statistics.merge(Statistics(spec, sums, {}, ready - done, number))
            policy = policy_from_snapshot(build(spec, statistics, 0, "", {}))
        context = dict(zip(names, images[image].tolist(), strict=True))
        choice = policy.decide(context, spec.actions)
        actions.append(draw(choice.probabilities, number))
        right = float(actions[-1] == digits[image])
        steps.append(np.append(choice.features.astype(np.float64), right) * 4096)
    error = np.array(actions) != digits[order]
    assert error[:LAG].mean() > 0.8
    assert error[-1000:].mean() < 0.1
