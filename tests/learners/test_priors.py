"""A spec's beliefs count as the outcomes that they are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandstand.learners.policies import policy_from_snapshot, solve
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.schemas.spec_policy import learner, learner_names
from tests.learners.given import ACTIONS, batch, linear_spec, outcome

RANGE = {"low": -1.0, "high": 3.0}
PRIOR = {"mean": 1.0, "strength": 12.0, "actions": {"green": {"mean": 2.5, "strength": 40.0}}}
COLOUR = {
    "name": "colour",
    "kind": "categorical",
    "values": ACTIONS,
    "of": {action: action for action in ACTIONS},
}
MEANS, STRENGTHS = np.array([0.5, 0.875, 0.5]), np.array([12.0, 40.0, 12.0])


def given_spec(policy: dict[str, Any], prior: dict[str, Any] | None = None) -> Spec:
    """Give a spec without context; the range makes scaled rewards of what is believed."""
    text = json.loads(linear_spec(features=[], reward=RANGE).canonical())
    more = {} if prior is None else {"prior": prior}
    return Spec.model_validate({**text, "policy": policy, **more})


def learned(spec: Spec) -> Statistics:
    """Learn some outcomes of two of three actions."""
    rows = [outcome(a, [v]) for a, v in (("red", 3.0), ("red", 0.25), ("green", -1.0))]
    return Statistics.empty(spec).update(batch(rows))


@pytest.mark.parametrize(
    ("policy", "same"),
    [
        (
            {"name": "beta_thompson"},
            lambda m, n: {"prior_successes": m * n, "prior_failures": (1 - m) * n},
        ),
        (
            {"name": "gaussian_thompson", "noise_variance": 0.2, "prior_variance": 3.0},
            lambda m, n: {"prior_mean": m, "prior_variance": 0.2 / n},
        ),
        (
            {"name": "student_thompson", "prior_shape": 2.0, "prior_variance": 0.4},
            lambda m, n: {"prior_mean": m, "prior_outcomes": n},
        ),
    ],
    ids=lambda part: part["name"] if isinstance(part, dict) else "",
)
def test_a_belief_is_the_policy_s_own_prior_for_one_action(
    policy: dict[str, Any], same: Any
) -> None:
    """Each action solves as under a policy whose prior parameters say the same of all."""
    spec = given_spec(policy, PRIOR)
    ours = solve(spec, learned(spec)).arrays
    for index, (mean, strength) in enumerate(zip(MEANS, STRENGTHS, strict=True)):
        alike = given_spec({**policy, **same(float(mean), float(strength))})
        theirs = solve(alike, learned(alike)).arrays
        for name, array in ours.items():
            assert array[index] == pytest.approx(theirs[name][index], rel=1e-12), (name, index)


@pytest.mark.parametrize(
    ("name", "ridge", "noise"),
    [("linear_thompson", 2.0, 0.3), ("lin_ucb", 2.0, 1.0), ("square_cb", 2.0, 1.0)],
)
def test_a_linear_belief_is_that_many_outcomes_at_the_middle(
    name: str, ridge: float, noise: float
) -> None:
    """Mean and precision are those of a Gaussian prior on the intercept, by plain algebra."""
    text = json.loads(linear_spec(reward=RANGE).canonical())
    policy = {"name": name, "prior_precision": 2.0}
    policy |= {"noise_variance": noise} if name == "linear_thompson" else {}
    spec = Spec.model_validate({**text, "policy": policy, "prior": PRIOR})
    rows = [outcome("green", [v], numeric={"age": a}) for v, a in ((3.0, 80.0), (0.0, 20.0))]
    solved = solve(spec, Statistics.empty(spec).update(batch(rows))).arrays
    x = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [1, -0.5, 0, 0, 0, 0, 0, 0]], float)
    y = np.array([1.0, 0.25])
    for index in range(3):
        precision = np.diag([STRENGTHS[index] / noise, *[ridge] * 7])
        total = precision[:, 0] * MEANS[index]
        if index == 1:
            precision, total = precision + x.T @ x / noise, total + x.T @ y / noise
        np.testing.assert_allclose(solved["mean"][index], np.linalg.solve(precision, total))
        factor = np.zeros((8, 8))
        factor[np.tril_indices(8)] = solved["factor"][index]
        np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(precision), atol=1e-12)


@pytest.mark.parametrize("noise", [0.25, 1e9])
def test_a_weak_belief_beside_a_strong_ridge(noise: float) -> None:
    """What is believed of the intercept isn't lost beside a precision that is far greater."""
    text = json.loads(linear_spec(reward=RANGE).canonical())
    policy = {"name": "linear_thompson", "prior_precision": 1e9, "noise_variance": noise}
    prior = {"mean": 0.6, "strength": 0.1}
    spec = Spec.model_validate({**text, "policy": policy, "prior": prior})
    solved = solve(spec, Statistics.empty(spec)).arrays
    np.testing.assert_allclose(solved["mean"][:, 0], 0.4, rtol=1e-14)
    np.testing.assert_allclose(solved["factor"][:, 0], (noise / 0.1) ** 0.5, rtol=1e-14)


def test_a_base_rate_is_what_a_bandit_without_outcomes_expects() -> None:
    """Every informed learner scores its actions by the spec's beliefs before any data."""
    informed = [name for name in learner_names() if learner(name).parameters.informed]
    assert len(informed) >= 11
    for name in informed:
        text = json.loads(linear_spec(reward={"high": 1.0}).canonical())
        rare = {
            "mean": 0.001,
            "strength": 400.0,
            "actions": {"blue": {"mean": 0.01, "strength": 90}},
        }
        features = text["features"] if learner(name).parameters.contextual else []
        shared = learner(name).parameters.shares_weights
        spec = Spec.model_validate(
            {
                **text,
                "features": features,
                **({"action_features": [COLOUR]} if shared else {}),
                "policy": {"name": name},
                "prior": rare,
            }
        )
        policy = policy_from_snapshot(build(spec, Statistics.empty(spec), 0, "", {}))
        scores = policy.decide({}, ACTIONS).scores
        np.testing.assert_allclose(scores, [0.001, 0.001, 0.01], rtol=1e-9, err_msg=name)


def test_the_prior_in_the_docs_is_one() -> None:
    """What docs/learners.md shows can be added to a spec as it stands."""
    prior = Path("docs/learners.md").read_text().split("<!-- run: prior -->\n```yaml\n")[1]
    spec = parse_spec(
        "bandit: b\nactions: [spring, autumn]\npolicy: {name: beta_thompson}\n"
        "reward: {name: click}\n" + prior.split("```")[0],
        "docs/learners.md",
    )
    assert spec.prior is not None
    assert [b and b.mean for b in spec.prior.beliefs(spec.actions)] == [0.01, 0.002]
