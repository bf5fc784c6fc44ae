"""Thompson sampling on linear models: one Gaussian posterior of the weights an action."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from bandstand.learners.linear import Regressions
from bandstand.learners.linear_policy import LinearPolicy, Weigh, disjoint
from bandstand.learners.probabilities import gaussian_best
from bandstand.learners.protocols import Solution, Solved, Whole
from bandstand.learners.triangles import Floats
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import NotNegative, PolicySpec, Positive

__all__ = ["GaussianWeightsSpec", "LinearThompson", "LinearThompsonSpec", "sampled_best"]

LEAST_RIDGE: Final = 1e-6
"""Least product of prior precision and noise variance."""


class GaussianWeightsSpec(PolicySpec):
    """What Gaussian posteriors of a linear model's weights have to be told.

    The reward is scaled so that the spec's ``low`` is 0 and ``high`` is 1; the units below are
    those of the scaled reward.

    Parameters
    ----------
    prior_precision
        1 / variance of each weight before any data, 1e-9 to 1e9.
    noise_variance
        Variance of the scaled reward around its mean, 1e-9 to 1e9. Its product with the prior
        precision is at least 1e-6: then a posterior can be solved even after a hundred million
        outcomes with dependent features, since float64 resolves that much.
    exploration
        Standard deviations are multiplied by this before actions compete, 0 to 1e6; 1 is Thompson
        sampling, 0 takes the best mean.
    """

    contextual: ClassVar[bool] = True
    informed: ClassVar[bool] = True

    prior_precision: Positive = 1.0
    noise_variance: Positive = Field(default=0.25, validate_default=True)
    exploration: NotNegative = 1.0

    @field_validator("noise_variance")
    @classmethod
    def _solvable(cls, noise_variance: float, info: ValidationInfo) -> float:
        precision = info.data.get("prior_precision")
        if precision is not None and precision * noise_variance < LEAST_RIDGE:
            raise ValueError(
                f"times prior_precision ({precision:g}) must be at least {LEAST_RIDGE:g}"
            )
        return noise_variance

    @property
    def explores(self) -> bool:
        """Whether exploration is positive."""
        return self.exploration > 0


class LinearThompsonSpec(GaussianWeightsSpec):
    """Thompson sampling on one linear model of the reward an action.

    Parameters
    ----------
    prior_precision, noise_variance, exploration
        As of `GaussianWeightsSpec`.
    """

    name: Literal["linear_thompson"] = "linear_thompson"


class LinearThompson(Regressions):
    """Gaussian posteriors of the weights, apart for each action ("disjoint").

    The scaled reward of action a is ``x @ weights_a`` plus noise of variance ``noise_variance``,
    and each weight has a prior ``N(0, 1 / prior_precision)``. With X and y the features and scaled
    rewards of the outcomes of that action::

        precision = prior_precision * I + X'X / noise_variance
        mean      = precision**-1 @ X'y / noise_variance

    A decision compares ``N(mean @ x, exploration**2 * x' precision**-1 x)`` of all actions, each on
    its own, so the probability of each is an integral over one number (`gaussian_best`).

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), eq. 3.50 and 3.51. Agrawal and Goyal,
    Thompson sampling for contextual bandits with linear payoffs (2013).
    """

    parameters = LinearThompsonSpec
    resumes = True

    def solve(self, spec: Spec, sums: Whole, before: Solution | None = None) -> Solved:
        """Solve each action's posterior; see `Regressions.regress`."""
        prior = spec.policy
        assert isinstance(prior, LinearThompsonSpec)
        solved = self.regress(spec, sums, prior.prior_precision, prior.noise_variance, before)
        return replace(
            solved,
            parameters={
                "exploration": prior.exploration,
                "noise_variance": prior.noise_variance,
                "prior_precision": prior.prior_precision,
            },
        )

    def policy(self, spec: Spec, solved: Solved) -> LinearPolicy:
        """Make the policy of a posterior."""
        moments = disjoint(solved.arrays["mean"], solved.arrays["factor"])
        return LinearPolicy(spec, moments, sampled_best(solved.parameters["exploration"]))


def sampled_best(exploration: float) -> Weigh:
    """Give each action the probability that its draw is the largest of all.

    Draws are Gaussian and independent, their deviations multiplied by `exploration`.
    """

    def weigh(mean: Floats, deviation: Floats) -> Floats:
        deviation *= exploration
        return gaussian_best(mean, deviation)

    return weigh
