"""Thompson sampling on means of rewards, without context: known noise, or noise that is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from bandstand.learners.beliefs import beliefs
from bandstand.learners.contextless import ContextlessPolicy, Moments, sample_variance
from bandstand.learners.grid import STEPS
from bandstand.learners.probabilities import gaussian_best, student_best
from bandstand.learners.protocols import Solved, Whole
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import PolicySpec, Positive, Share

__all__ = ["GaussianThompson", "GaussianThompsonSpec", "StudentThompson", "StudentThompsonSpec"]

Shape = Annotated[float, Field(strict=True, ge=0.5, le=1e6)]


class GaussianThompsonSpec(PolicySpec):
    """Thompson sampling on one mean an action, with noise of a known variance.

    All of it in scaled rewards.

    Parameters
    ----------
    prior_mean
        Expected mean of every action before any data, 0 to 1.
    prior_variance
        Variance of the means around it, 1e-9 to 1e9.
    noise_variance
        Variance of the rewards around their mean, 1e-9 to 1e9; 1/4 is the largest that a reward
        in [0, 1] can have.
    """

    informed: ClassVar[bool] = True

    name: Literal["gaussian_thompson"] = "gaussian_thompson"
    prior_mean: Share = 0.5
    prior_variance: Positive = 1.0
    noise_variance: Positive = 0.25


class StudentThompsonSpec(PolicySpec):
    """Thompson sampling on one mean an action, whose noise is learned with it.

    All of it in scaled rewards.

    Parameters
    ----------
    prior_mean
        Expected mean of every action before any data, 0 to 1.
    prior_outcomes
        Outcomes that this expectation is worth, 1e-9 to 1e9.
    prior_shape
        Half the outcomes that the expected noise is worth, 0.5 to 1e6.
    prior_variance
        Expected variance of the rewards around their mean, 1e-9 to 1e9.
    """

    informed: ClassVar[bool] = True

    name: Literal["student_thompson"] = "student_thompson"
    prior_mean: Share = 0.5
    prior_outcomes: Positive = 1.0
    prior_shape: Shape = 1.0
    prior_variance: Positive = 0.25


class GaussianThompson(Moments):
    """Gaussian posteriors of the means.

    With n outcomes of an action that sum up to s::

        precision = 1 / prior_variance + n / noise_variance
        mean      = (prior_mean / prior_variance + s / noise_variance) / precision

    A spec's prior takes the place of ``prior_mean``, and ``noise_variance / strength`` that of
    ``prior_variance``.

    Each action is taken with the probability that its mean is the largest (`gaussian_best`).

    References
    ----------
    Murphy, Conjugate Bayesian analysis of the Gaussian distribution (2007), eq. 20 and 24.
    """

    parameters = GaussianThompsonSpec

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean`` and ``deviation`` of each action's mean, in scaled rewards."""
        prior = spec.policy
        assert isinstance(prior, GaussianThompsonSpec)
        mean, strength = beliefs(spec)
        before = np.where(np.isnan(mean), prior.prior_mean, mean)
        own = 1.0 / prior.prior_variance
        certainty = np.where(np.isnan(mean), own, strength / prior.noise_variance)
        precision = certainty + sums["outcomes"] / prior.noise_variance
        total = before * certainty + sums["reward"] / STEPS / prior.noise_variance
        return Solved({}, {"mean": total / precision, "deviation": 1.0 / np.sqrt(precision)})

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``deviation`` per action."""
        return dict.fromkeys(("mean", "deviation"), (len(spec.actions),))

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy of a posterior."""
        mean, deviation = solved.arrays["mean"], solved.arrays["deviation"]
        return ContextlessPolicy(
            spec, mean, lambda indexes: gaussian_best(mean[indexes], deviation[indexes])
        )


class StudentThompson(Moments):
    """Student-t posteriors of the means, from a normal-inverse-gamma prior.

    With n outcomes of an action, their mean m and their variance v (over n)::

        outcomes = prior_outcomes + n
        mean     = (prior_outcomes * prior_mean + n * m) / outcomes
        shape    = prior_shape + n / 2
        rate     = prior_shape * prior_variance + n * v / 2
                   + prior_outcomes * n * (m - prior_mean)**2 / (2 * outcomes)

    A spec's prior takes the place of ``prior_mean``, its strength that of ``prior_outcomes``.

    The mean has a Student-t posterior around ``mean``, of scale ``sqrt(rate / (shape * outcomes))``
    and ``2 * shape`` degrees of freedom. Each action is taken with the probability that its mean is
    the largest (`student_best`).

    References
    ----------
    Murphy, Conjugate Bayesian analysis of the Gaussian distribution (2007), section 3.
    """

    parameters = StudentThompsonSpec

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean``, ``scale`` and ``freedom`` of each action's mean, in scaled rewards."""
        prior = spec.policy
        assert isinstance(prior, StudentThompsonSpec)
        count = sums["outcomes"]
        mean, strength = beliefs(spec)
        before = np.where(np.isnan(mean), prior.prior_mean, mean)
        worth = np.where(np.isnan(mean), prior.prior_outcomes, strength)
        outcomes = worth + count
        observed = np.where(count > 0, self.means(sums, absent=0.0), before)
        shape = prior.prior_shape + count / 2
        rate = prior.prior_shape * prior.prior_variance + count * sample_variance(sums) / 2
        rate += worth * count * (observed - before) ** 2 / (2 * outcomes)
        return Solved(
            {},
            {
                "mean": (worth * before + count * observed) / outcomes,
                "scale": np.sqrt(rate / (shape * outcomes)),
                "freedom": 2 * shape,
            },
        )

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean``, ``scale`` and ``freedom`` per action."""
        return dict.fromkeys(("mean", "scale", "freedom"), (len(spec.actions),))

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy of a posterior."""
        mean, scale, freedom = (solved.arrays[name] for name in ("mean", "scale", "freedom"))
        return ContextlessPolicy(
            spec,
            mean,
            lambda indexes: student_best(mean[indexes], scale[indexes], freedom[indexes]),
        )
