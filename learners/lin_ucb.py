"""LinUCB, disjoint: the largest upper confidence bound of a ridge regression an action."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from bandstand.learners.linear import Regressions, Ridge
from bandstand.learners.linear_policy import LinearPolicy, Weigh, disjoint
from bandstand.learners.probabilities import shared_best
from bandstand.learners.protocols import Solution, Solved, Whole
from bandstand.learners.triangles import Floats
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import NotNegative, PolicySpec

__all__ = ["BoundSpec", "LinUCB", "LinUCBSpec", "largest_bound"]


class BoundSpec(PolicySpec):
    """What upper confidence bounds of linear models have to be told.

    Parameters
    ----------
    alpha
        Width of the bound in standard deviations, 0 to 1e6.
    prior_precision
        Weight of the ridge, 1e-6 to 1e9; 1 in the paper.
    """

    contextual: ClassVar[bool] = True
    informed: ClassVar[bool] = True

    alpha: NotNegative = 1.0
    prior_precision: Ridge = 1.0

    @property
    def explores(self) -> bool:
        """Never: all but the best bound have probability 0."""
        return False


class LinUCBSpec(BoundSpec):
    """The largest upper confidence bound of one linear model an action; deterministic.

    Parameters
    ----------
    alpha
        Width of the bound in standard deviations, 0 to 1e6.
    prior_precision
        Weight of the ridge, 1e-6 to 1e9; 1 in the paper.
    """

    name: Literal["lin_ucb"] = "lin_ucb"


class LinUCB(Regressions):
    """``bound_a = mean_a @ x + alpha * sqrt(x' A_a**-1 x)``, ``A = prior_precision * I + X'X``.

    ``mean = A**-1 X'y`` over the features X and scaled rewards y of the action's outcomes. Equal
    bounds, such as those of actions without outcomes, share.

    References
    ----------
    Li, Chu, Langford and Schapire, A contextual-bandit approach to personalized news article
    recommendation (2010), algorithm 1.
    """

    parameters = LinUCBSpec
    resumes = True

    def solve(self, spec: Spec, sums: Whole, before: Solution | None = None) -> Solved:
        """Solve each action's regression; see `Regressions.regress`."""
        policy = spec.policy
        assert isinstance(policy, LinUCBSpec)
        solved = self.regress(spec, sums, policy.prior_precision, 1.0, before)
        return replace(solved, parameters={"alpha": policy.alpha})

    def policy(self, spec: Spec, solved: Solved) -> LinearPolicy:
        """Make the policy of a regression."""
        moments = disjoint(solved.arrays["mean"], solved.arrays["factor"])
        return LinearPolicy(spec, moments, largest_bound(solved.parameters["alpha"]))


def largest_bound(alpha: float) -> Weigh:
    """Give probability 1 to the largest mean plus `alpha` deviations; equal ones share."""

    def weigh(mean: Floats, deviation: Floats) -> Floats:
        deviation *= alpha
        deviation += mean
        return shared_best(deviation)

    return weigh
