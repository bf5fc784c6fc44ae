"""Upper confidence bounds without context: UCB1 and UCB-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from bandstand.learners.contextless import ContextlessPolicy, Floats, Moments, sample_variance
from bandstand.learners.probabilities import shared_best
from bandstand.learners.protocols import Solved, Whole
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import NotNegative, PolicySpec

__all__ = ["UCB1", "UCB1Spec", "UCBTuned", "UCBTunedSpec"]

UNSEEN = 1e9
"""Bound of an action without outcomes, in scaled rewards: above all others'."""


class UCB1Spec(PolicySpec):
    """The largest upper confidence bound of the mean; deterministic but for ties.

    Parameters
    ----------
    exploration
        Factor of the bound's width, 0 to 1e6; 1 is UCB1.
    """

    name: Literal["ucb1"] = "ucb1"
    exploration: NotNegative = 1.0

    @property
    def explores(self) -> bool:
        """Never: all but the best bound have probability 0."""
        return False


class UCBTunedSpec(PolicySpec):
    """As UCB1, with the width from each action's own variance.

    Parameters
    ----------
    exploration
        Factor of the bound's width, 0 to 1e6; 1 is UCB-tuned.
    """

    name: Literal["ucb_tuned"] = "ucb_tuned"
    exploration: NotNegative = 1.0

    @property
    def explores(self) -> bool:
        """Never: all but the best bound have probability 0."""
        return False


class _UpperBounds(Moments):
    """Takes the largest bound; equal ones, such as all actions without outcomes, share."""

    def widths(self, sums: Whole) -> Floats:
        """Give the width of the bound of each action that has outcomes."""
        raise NotImplementedError

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean`` and ``bound`` per action, in scaled rewards.

        Without outcomes the bound is 1e9 and the mean, which is only shown, the middle.
        """
        policy = spec.policy
        assert isinstance(policy, (UCB1Spec, UCBTunedSpec))
        mean = self.means(sums, absent=0.5)
        bound = np.where(
            sums["outcomes"] > 0, mean + policy.exploration * self.widths(sums), UNSEEN
        )
        return Solved({"exploration": policy.exploration}, {"mean": mean, "bound": bound})

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``bound`` per action."""
        return dict.fromkeys(("mean", "bound"), (len(spec.actions),))

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy."""
        bound = solved.arrays["bound"]
        return ContextlessPolicy(
            spec, solved.arrays["mean"], lambda indexes: shared_best(bound[indexes])
        )


class UCB1(_UpperBounds):
    """``bound = mean + exploration * sqrt(2 ln n / n_a)``, n outcomes in all, n_a of the action.

    References
    ----------
    Auer, Cesa-Bianchi and Fischer, Finite-time analysis of the multiarmed bandit problem (2002),
    fig. 1.
    """

    parameters = UCB1Spec

    def widths(self, sums: Whole) -> Floats:
        """Give ``sqrt(2 ln n / n_a)``."""
        return np.sqrt(2.0 * _log_share(sums))


class UCBTuned(_UpperBounds):
    """``bound = mean + exploration * sqrt(ln n / n_a * min(1/4, V_a))``.

    ``V_a`` is the variance of the action's scaled rewards plus ``sqrt(2 ln n / n_a)``; 1/4 is the
    largest variance that a reward in [0, 1] can have.

    References
    ----------
    Auer, Cesa-Bianchi and Fischer, Finite-time analysis of the multiarmed bandit problem (2002),
    section 4.
    """

    parameters = UCBTunedSpec

    def widths(self, sums: Whole) -> Floats:
        """Give ``sqrt(ln n / n_a * min(1/4, V_a))``."""
        share = _log_share(sums)
        variance = sample_variance(sums) + np.sqrt(2.0 * share)
        return np.sqrt(share * np.minimum(0.25, variance))


def _log_share(sums: Whole) -> Floats:
    outcomes = sums["outcomes"]
    known = np.where(outcomes > 0, outcomes, 1)
    return np.asarray(np.log(max(outcomes.sum(), 1)) / known)
