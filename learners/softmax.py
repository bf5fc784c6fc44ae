"""Softmax, or Boltzmann exploration: the better the mean, the likelier; without context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from bandstand.learners.contextless import ContextlessPolicy, Floats, Moments
from bandstand.learners.protocols import Solved, Whole
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import PolicySpec, Share

__all__ = ["Softmax", "SoftmaxSpec", "softmax"]

Temperature = Annotated[float, Field(strict=True, ge=1e-3, le=1e6)]


class SoftmaxSpec(PolicySpec):
    """Probabilities grow exponentially with the means.

    Parameters
    ----------
    temperature
        Difference of scaled rewards that makes an action e times as likely, 1e-3 to 1e6.
    initial
        Scaled reward, 0 to 1, that an action without outcomes is taken to have.
    """

    name: Literal["softmax"] = "softmax"
    temperature: Temperature = 0.1
    initial: Share = 0.5


class Softmax(Moments):
    """``P(a) = exp(mean_a / temperature) / sum over b of exp(mean_b / temperature)``.

    References
    ----------
    Sutton and Barto, Reinforcement Learning (1998), section 2.3.
    """

    parameters = SoftmaxSpec

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean`` per action, in scaled rewards."""
        policy = spec.policy
        assert isinstance(policy, SoftmaxSpec)
        mean = self.means(sums, absent=policy.initial)
        return Solved({"temperature": policy.temperature}, {"mean": mean})

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` per action."""
        return {"mean": (len(spec.actions),)}

    def policy(self, spec: Spec, solved: Solved) -> ContextlessPolicy:
        """Make the policy."""
        mean, temperature = solved.arrays["mean"], solved.parameters["temperature"]
        return ContextlessPolicy(spec, mean, lambda indexes: softmax(mean[indexes] / temperature))


def softmax(values: Floats) -> Floats:
    """Give ``exp(v) / sum of exp``, without overflow.

    Examples
    --------
    >>> softmax(np.array([1_000.0, 1_000.0 + np.log(3.0)])).round(12).tolist()
    [0.25, 0.75]
    """
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
