"""Epsilon-greedy: the best mean so far, and now and then any action; without context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from bandstand.learners.contextless import ContextlessPolicy, Floats, Moments
from bandstand.learners.probabilities import shared_best
from bandstand.learners.protocols import Solved, Whole
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import NotNegative, PolicySpec, Share

__all__ = ["EpsilonGreedy", "EpsilonGreedySpec", "EpsilonSpec", "epsilon_after", "greedy_with"]


class EpsilonSpec(PolicySpec):
    """The best action with probability 1 - epsilon, any eligible one with the rest.

    Parameters
    ----------
    epsilon
        Probability of a look around, 0 to 1; the largest one where it decays.
    decay_after
        0: epsilon stays. Otherwise it is divided by ``outcomes / decay_after`` once that many
        outcomes of the bandit are learned, 0 to 1e6: the 1/t schedule.
    """

    epsilon: Share = 0.1
    decay_after: NotNegative = 0.0

    @property
    def explores(self) -> bool:
        """Whether epsilon is positive and stays."""
        return self.epsilon > 0 and self.decay_after == 0


class EpsilonGreedySpec(EpsilonSpec):
    """Epsilon-greedy over means.

    Parameters
    ----------
    initial
        Scaled reward, 0 to 1, that an action without outcomes is taken to have; 1 has it tried
        at once.
    """

    name: Literal["epsilon_greedy"] = "epsilon_greedy"
    initial: Share = 1.0


class EpsilonGreedy(Moments):
    """``P(a) = epsilon / k + (1 - epsilon) / b`` for the b best of k actions, else ``epsilon / k``.

    With ``decay_after = c``, epsilon after n outcomes is ``epsilon * min(1, c / n)``.

    References
    ----------
    Auer, Cesa-Bianchi and Fischer, Finite-time analysis of the multiarmed bandit problem (2002),
    fig. 3: their constant ``c K / d**2`` is ``epsilon * decay_after`` here.
    """

    parameters = EpsilonGreedySpec

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean`` per action, in scaled rewards, and ``epsilon`` as it is now."""
        policy = spec.policy
        assert isinstance(policy, EpsilonGreedySpec)
        epsilon = epsilon_after(policy.epsilon, policy.decay_after, int(sums["outcomes"].sum()))
        return Solved({"epsilon": epsilon}, {"mean": self.means(sums, absent=policy.initial)})

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` per action."""
        return {"mean": (len(spec.actions),)}

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy."""
        mean, epsilon = solved.arrays["mean"], solved.parameters["epsilon"]
        return ContextlessPolicy(spec, mean, lambda indexes: greedy_with(epsilon, mean[indexes]))


def epsilon_after(epsilon: float, decay_after: float, outcomes: int) -> float:
    """Give epsilon after so many outcomes.

    Examples
    --------
    >>> epsilon_after(0.5, 0.0, 1_000), epsilon_after(0.5, 100.0, 1_000)
    (0.5, 0.05)
    """
    return epsilon * min(1.0, decay_after / outcomes) if decay_after and outcomes else epsilon


def greedy_with(epsilon: float, scores: Floats) -> Floats:
    """Give the best score the most; equal ones share.

    Examples
    --------
    >>> import numpy as np
    >>> greedy_with(0.25, np.array([0.1, 0.5, 0.5, 0.0])).tolist()
    [0.0625, 0.4375, 0.4375, 0.0625]
    """
    return epsilon / len(scores) + (1.0 - epsilon) * shared_best(scores)
