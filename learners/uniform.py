"""The uniform policy: every eligible action alike, whatever happened; for A/B tests and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from bandstand.learners.contextless import ContextlessPolicy, Moments
from bandstand.learners.protocols import Solved, Whole
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import PolicySpec

__all__ = ["Uniform", "UniformSpec"]


class UniformSpec(PolicySpec):
    """Every eligible action with the same probability; it has no parameters."""

    name: Literal["uniform"] = "uniform"


class Uniform(Moments):
    """``P(a) = 1 / number of eligible actions``; the means are learned and shown, not used.

    Its logs have the largest propensities that all actions can have at once, so they are the best
    to evaluate other policies on.
    """

    parameters = UniformSpec

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean`` per action, in scaled rewards; the middle without outcomes."""
        del spec
        return Solved({}, {"mean": self.means(sums, absent=0.5)})

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` per action."""
        return {"mean": (len(spec.actions),)}

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy."""
        return ContextlessPolicy(
            spec, solved.arrays["mean"], lambda indexes: np.full(len(indexes), 1 / len(indexes))
        )
