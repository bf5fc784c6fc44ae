"""An A/B test, then its winner: even shares until so many outcomes, then the best mean so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from bandstand.learners.contextless import ContextlessPolicy, Moments
from bandstand.learners.probabilities import shared_best
from bandstand.learners.protocols import Solved, Whole
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import PolicySpec

__all__ = ["ExploreFirst", "ExploreFirstSpec"]


class ExploreFirstSpec(PolicySpec):
    """Every action alike until so many outcomes are learned, then the best mean so far.

    Parameters
    ----------
    outcomes
        Of the bandit, all actions together, 1 to 1e12.
    """

    name: Literal["explore_first"] = "explore_first"
    outcomes: Annotated[int, Field(strict=True, ge=1, le=10**12)] = 2_000

    @property
    def explores(self) -> bool:
        """Not for good."""
        return False


class ExploreFirst(Moments):
    """``P(a) = 1 / k`` for k eligible actions; later 1 for the best mean, equal ones share.

    Means go on being learned after the test, from what its winner brings. An action without
    outcomes counts as 0.

    References
    ----------
    Lattimore and Szepesvari, Bandit algorithms (2020), chapter 6: explore-then-commit.
    """

    parameters = ExploreFirstSpec

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean`` per action, in scaled rewards, and whether the test is ``over``: 0 or 1."""
        policy = spec.policy
        assert isinstance(policy, ExploreFirstSpec)
        over = float(int(sums["outcomes"].sum()) >= policy.outcomes)
        return Solved({"over": over}, {"mean": self.means(sums, absent=0.0)})

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` per action."""
        return {"mean": (len(spec.actions),)}

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy."""
        mean, over = solved.arrays["mean"], solved.parameters["over"]
        return ContextlessPolicy(
            spec, mean, lambda which: shared_best(mean[which] if over else np.zeros(len(which)))
        )
