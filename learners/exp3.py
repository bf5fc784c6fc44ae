"""EXP3: exponential weights on rewards over propensities, for rewards that follow no law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from bandstand.learners.contextless import WEIGHTED, ContextlessPolicy, counted, mean_rewards
from bandstand.learners.grid import STEPS, whole
from bandstand.learners.protocols import Rows, Solved, Whole
from bandstand.learners.softmax import softmax
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import PolicySpec

__all__ = ["Exp3", "Exp3Spec"]

Gamma = Annotated[float, Field(strict=True, gt=0, le=1)]


class Exp3Spec(PolicySpec):
    """Exponential weights on importance-weighted rewards.

    Parameters
    ----------
    gamma
        Share of decisions that are spread evenly, above 0 to 1; also the rate of learning.
    """

    needs_propensity: ClassVar[bool] = True

    name: Literal["exp3"] = "exp3"
    gamma: Gamma = 0.1


class Exp3:
    """``P(a) = (1 - gamma) * softmax(gamma / K * G)_a + gamma / K``.

    ``G_a`` is the sum of scaled reward over logged propensity of the action's outcomes, each cut at
    2**24: the reward that the action would have brought had it been taken always, without bias
    whatever the rewards are, and whichever snapshots and floors gave the propensities. K is the
    number of the spec's actions for the rate of learning, that of the eligible ones for the share.

    References
    ----------
    Auer, Cesa-Bianchi, Freund and Schapire, The nonstochastic multiarmed bandit problem (2002),
    fig. 1.
    """

    parameters = Exp3Spec
    weighted = WEIGHTED
    actions_apart = True

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``outcomes``, ``reward`` and ``gain`` (reward over propensity) per action.

        The last two are in steps of 2**-12.
        """
        return dict.fromkeys(("outcomes", "reward", "gain"), (len(spec.actions),))

    def sums(self, spec: Spec, rows: Rows) -> Whole:
        """Sum up outcomes, exactly."""
        count, reward = len(spec.actions), rows.steps[:, -1]
        if rows.roots is not None:
            reward = rows.roots / STEPS * reward
        gain = np.bincount(rows.actions, whole(reward / rows.propensities), count)
        return {**counted(rows, count), "gain": gain.astype(np.int64)}

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean`` per action, in scaled rewards, and ``gain`` as above."""
        policy = spec.policy
        assert isinstance(policy, Exp3Spec)
        arrays = {"mean": mean_rewards(sums, absent=0.5), "gain": sums["gain"] / STEPS}
        return Solved({"gamma": policy.gamma}, arrays)

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``gain`` per action."""
        return dict.fromkeys(("mean", "gain"), (len(spec.actions),))

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy."""
        gamma = solved.parameters["gamma"]
        exponents = gamma / len(spec.actions) * solved.arrays["gain"]
        return ContextlessPolicy(
            spec,
            solved.arrays["mean"],
            lambda indexes: (1.0 - gamma) * softmax(exponents[indexes]) + gamma / len(indexes),
        )
