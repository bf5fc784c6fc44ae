"""Thompson sampling on beta posteriors: one share of successes an action, without context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bandstand.learners.algorithm import Choice, Rows, Solved, Whole, eligible_indexes
from bandstand.learners.grid import STEPS
from bandstand.learners.probabilities import beta_best, with_floor
from bandstand.schemas.spec import BetaThompson, Spec

__all__ = ["BetaThompsonAlgorithm", "BetaThompsonPolicy"]

CACHE = 4096
"""Sets of eligible actions whose probabilities a policy remembers."""

_NO_FEATURES = np.zeros(0, dtype=np.float32)


class BetaThompsonAlgorithm:
    """Beta posteriors of the scaled reward r in [0, 1].

    ``P(share) = Beta(prior_successes + sum of r, prior_failures + sum of (1 - r))``

    For rewards of 0 and 1 this is the exact posterior of their share. A fraction counts as that
    part of a success and the rest of a failure: the mean is right, the width that of a binary
    reward with the same mean, which is the widest that a reward in [0, 1] can have.

    References
    ----------
    Agrawal and Goyal, Analysis of Thompson sampling for the multi-armed bandit problem (2012),
    algorithm 1; a fraction there is turned into a coin toss, here into its expectation.
    """

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``outcomes`` per action; ``reward``: sum of r per action, in steps of 1/4096."""
        return {"outcomes": (len(spec.actions),), "reward": (len(spec.actions),)}

    def sums(self, spec: Spec, rows: Rows) -> Whole:
        """Sum up outcomes, exactly."""
        count = len(spec.actions)
        outcomes = np.bincount(rows.actions, minlength=count)
        reward = np.bincount(rows.actions, weights=rows.steps[:, -1], minlength=count)
        return {"outcomes": outcomes.astype(np.int64), "reward": reward.astype(np.int64)}

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Add the prior: ``successes`` and ``failures`` per action."""
        prior = spec.policy
        assert isinstance(prior, BetaThompson)
        successes = sums["reward"] / STEPS
        failures = (sums["outcomes"] * STEPS - sums["reward"]) / STEPS
        return Solved(
            {"prior_successes": prior.prior_successes, "prior_failures": prior.prior_failures},
            {
                "successes": prior.prior_successes + successes,
                "failures": prior.prior_failures + failures,
            },
        )

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``successes`` and ``failures`` per action."""
        return {"successes": (len(spec.actions),), "failures": (len(spec.actions),)}

    def policy(self, spec: Spec, solved: Solved) -> BetaThompsonPolicy:
        """Make the policy of a posterior."""
        return BetaThompsonPolicy(spec, solved)


class BetaThompsonPolicy:
    """Takes each action with the probability that its share of successes is the largest.

    The probabilities don't depend on the context, so they are computed once a set of eligible
    actions: all actions when the policy is made, another set (about a millisecond) when it is first
    asked for.
    """

    def __init__(self, spec: Spec, solved: Solved) -> None:
        self.spec = spec
        self._successes = np.array(solved.arrays["successes"])
        self._failures = np.array(solved.arrays["failures"])
        self._known: dict[tuple[str, ...], Choice] = {}
        self.decide({}, spec.actions)

    def decide(
        self,
        context: Mapping[str, Any],  # noqa: ARG002 - the protocol's; without context by design
        eligible: Sequence[str],
    ) -> Choice:
        """Give the probability of every eligible action; the context doesn't matter."""
        key = tuple(eligible)
        choice = self._known.get(key)
        if choice is None:
            choice = self._choice(eligible_indexes(self.spec, eligible))
            if len(self._known) >= CACHE:
                self._known = {}
            self._known[key] = choice
        return choice

    def _choice(self, indexes: npt.NDArray[np.intp]) -> Choice:
        successes, failures = self._successes[indexes], self._failures[indexes]
        probabilities = with_floor(beta_best(successes, failures), self.spec.floor)
        low, high = self.spec.reward.low, self.spec.reward.high
        scores = low + (high - low) * successes / (successes + failures)
        for array in (probabilities, scores):
            array.flags.writeable = False  # shared by all decisions that follow
        return Choice(probabilities, scores, _NO_FEATURES)
