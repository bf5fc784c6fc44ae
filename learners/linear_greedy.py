"""Ridge regression an action with two ways to explore: epsilon-greedy, and by the gaps."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from bandstand.learners.epsilon_greedy import EpsilonSpec, epsilon_after, greedy_with
from bandstand.learners.linear import Regressions, Ridge
from bandstand.learners.linear_policy import LinearPolicy, disjoint
from bandstand.learners.protocols import Solution, Solved, Whole
from bandstand.learners.triangles import Floats
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import PolicySpec, Positive, Share

__all__ = [
    "LinearEpsilonGreedy",
    "LinearEpsilonGreedySpec",
    "SquareCB",
    "SquareCBSpec",
]


class LinearEpsilonGreedySpec(EpsilonSpec):
    """Epsilon-greedy over the predictions of one linear model an action.

    Parameters
    ----------
    prior_precision
        Weight of the ridge, 1e-6 to 1e9.
    """

    contextual: ClassVar[bool] = True
    informed: ClassVar[bool] = True

    name: Literal["linear_epsilon_greedy"] = "linear_epsilon_greedy"
    prior_precision: Ridge = 1.0


class SquareCBSpec(PolicySpec):
    """Probabilities fall with the gap of the prediction to the best one.

    Parameters
    ----------
    gamma_scale, gamma_exponent
        ``gamma = gamma_scale * outcomes ** gamma_exponent``, 1e-9 to 1e9 and 0 to 1: the larger,
        the greedier. The paper's rate for linear models is an exponent of 1/2.
    prior_precision
        Weight of the ridge, 1e-6 to 1e9.
    """

    contextual: ClassVar[bool] = True
    informed: ClassVar[bool] = True

    name: Literal["square_cb"] = "square_cb"
    gamma_scale: Positive = 10.0
    gamma_exponent: Share = 0.5
    prior_precision: Ridge = 1.0


class LinearEpsilonGreedy(Regressions):
    """Epsilon-greedy over ``mean_a @ x``, ``mean = (prior_precision * I + X'X)**-1 X'y``.

    X and y are the features and scaled rewards of the action's outcomes; the k eligible actions
    get ``epsilon / k`` each and the best the rest.

    References
    ----------
    Langford and Zhang, The epoch-greedy algorithm for contextual multi-armed bandits (2007), for
    exploring evenly over a regressor's greedy choice.
    """

    parameters = LinearEpsilonGreedySpec
    resumes = True

    def solve(self, spec: Spec, sums: Whole, before: Solution | None = None) -> Solved:
        """Solve each action's regression; ``epsilon`` as it is now."""
        policy = spec.policy
        assert isinstance(policy, LinearEpsilonGreedySpec)
        epsilon = epsilon_after(policy.epsilon, policy.decay_after, int(sums["outcomes"].sum()))
        solved = self.regress(spec, sums, policy.prior_precision, 1.0, before)
        return replace(solved, parameters={"epsilon": epsilon})

    def policy(self, spec: Spec, solved: Solved) -> LinearPolicy:
        """Make the policy of a regression."""
        epsilon = solved.parameters["epsilon"]

        def weigh(mean: Floats, deviation: Floats) -> Floats:  # noqa: ARG001 - by means alone
            return greedy_with(epsilon, mean)

        return LinearPolicy(spec, disjoint(solved.arrays["mean"], solved.arrays["factor"]), weigh)


class SquareCB(Regressions):
    """Inverse gap weighting: ``P(a) = 1 / (k + gamma * (best - mean_a @ x))``, the best the rest.

    k actions are eligible; ``mean = (prior_precision * I + X'X)**-1 X'y`` as in ridge regression,
    in scaled rewards.

    References
    ----------
    Foster and Rakhlin, Beyond UCB: optimal and efficient contextual bandits with regression
    oracles (2020), algorithm 1.
    """

    parameters = SquareCBSpec
    resumes = True

    def solve(self, spec: Spec, sums: Whole, before: Solution | None = None) -> Solved:
        """Solve each action's regression; ``gamma`` as it is now."""
        policy = spec.policy
        assert isinstance(policy, SquareCBSpec)
        outcomes = max(int(sums["outcomes"].sum()), 1)
        solved = self.regress(spec, sums, policy.prior_precision, 1.0, before)
        gamma = policy.gamma_scale * outcomes**policy.gamma_exponent
        return replace(solved, parameters={"gamma": gamma})

    def policy(self, spec: Spec, solved: Solved) -> LinearPolicy:
        """Make the policy of a regression."""
        gamma = solved.parameters["gamma"]

        def weigh(mean: Floats, deviation: Floats) -> Floats:  # noqa: ARG001 - by means alone
            gaps = mean.max() - mean
            best = gaps == 0.0
            probabilities = 1.0 / (len(mean) + gamma * gaps)
            probabilities[best] = (1.0 - probabilities[~best].sum()) / best.sum()
            return np.asarray(probabilities)

        return LinearPolicy(spec, disjoint(solved.arrays["mean"], solved.arrays["factor"]), weigh)
