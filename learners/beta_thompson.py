"""Thompson sampling on beta posteriors: one share of successes an action, without context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from bandstand.learners.beliefs import LEAST, beliefs, refuse_too_sure
from bandstand.learners.contextless import WEIGHTED, ContextlessPolicy, counted
from bandstand.learners.grid import STEPS
from bandstand.learners.probabilities import beta_best
from bandstand.learners.protocols import Rows, Solved, Whole
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import PolicySpec

__all__ = ["BetaThompson", "BetaThompsonSpec"]

Pseudocount = Annotated[float, Field(strict=True, ge=LEAST, le=1e9)]


class BetaThompsonSpec(PolicySpec):
    """Thompson sampling on one share of successes an action, without context.

    Parameters
    ----------
    prior_successes, prior_failures
        Outcomes that each action is taken to have had before any data, 0.1 to 1e9 of each.
    """

    informed: ClassVar[bool] = True

    name: Literal["beta_thompson"] = "beta_thompson"
    prior_successes: Pseudocount = 1.0
    prior_failures: Pseudocount = 1.0

    def check_belief(self, action: str, mean: float, strength: float) -> None:
        """Refuse less than LEAST successes or failures."""
        refuse_too_sure(action, mean, strength)


class BetaThompson:
    """Beta posteriors of the scaled reward r in [0, 1].

    ``P(share) = Beta(prior_successes + sum of r, prior_failures + sum of (1 - r))``

    A spec's prior of mean m and strength n stands for n * m successes and n * (1 - m) failures.

    For rewards of 0 and 1 this is the exact posterior of their share. A fraction counts as that
    part of a success and the rest of a failure: the mean is right, the width that of a binary
    reward with the same mean, which is the widest that a reward in [0, 1] can have.

    Each action is taken with the probability that its share is the largest (`beta_best`).

    References
    ----------
    Agrawal and Goyal, Analysis of Thompson sampling for the multi-armed bandit problem (2012),
    algorithm 1; a fraction there is turned into a coin toss, here into its expectation.
    """

    parameters = BetaThompsonSpec
    weighted = WEIGHTED
    actions_apart = True

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``outcomes`` per action; ``reward``: sum of r per action, in steps of 1/4096."""
        return {"outcomes": (len(spec.actions),), "reward": (len(spec.actions),)}

    def sums(self, spec: Spec, rows: Rows) -> Whole:
        """Sum up outcomes, exactly."""
        return counted(rows, len(spec.actions))

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Add the prior: ``successes`` and ``failures`` per action."""
        prior = spec.policy
        assert isinstance(prior, BetaThompsonSpec)
        mean, strength = beliefs(spec)
        before = np.where(np.isnan(mean), prior.prior_successes, mean * strength)
        against = np.where(np.isnan(mean), prior.prior_failures, (1.0 - mean) * strength)
        successes = sums["reward"] / STEPS
        failures = (sums["outcomes"] * STEPS - sums["reward"]) / STEPS
        return Solved(
            {"prior_successes": prior.prior_successes, "prior_failures": prior.prior_failures},
            {"successes": before + successes, "failures": against + failures},
        )

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``successes`` and ``failures`` per action."""
        return {"successes": (len(spec.actions),), "failures": (len(spec.actions),)}

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy of a posterior."""
        successes, failures = solved.arrays["successes"], solved.arrays["failures"]
        return ContextlessPolicy(
            spec,
            successes / (successes + failures),
            lambda indexes: beta_best(successes[indexes], failures[indexes]),
        )
