"""The policies that a spec may name, and their parameters."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BetaThompson", "LinearThompson", "Policy"]

Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Pseudocount = Annotated[float, Field(strict=True, ge=0.1, le=1e9)]


class BetaThompson(BaseModel):
    """Thompson sampling on one share of successes an action, without context.

    Parameters
    ----------
    prior_successes, prior_failures
        Outcomes that each action is taken to have had before any data, 0.1 to 1e9 of each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    contextual: ClassVar[bool] = False

    name: Literal["beta_thompson"] = "beta_thompson"
    prior_successes: Pseudocount = 1.0
    prior_failures: Pseudocount = 1.0


class LinearThompson(BaseModel):
    """Thompson sampling on one linear model of the reward an action.

    The reward is scaled so that the spec's ``low`` is 0 and ``high`` is 1; the units below are
    those of the scaled reward.

    Parameters
    ----------
    prior_precision
        1 / variance of each weight before any data, > 0.
    noise_variance
        Variance of the scaled reward around its mean, > 0.
    exploration
        Standard deviations are multiplied by this before actions compete, >= 0; 1 is Thompson
        sampling, 0 takes the best mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    contextual: ClassVar[bool] = True

    name: Literal["linear_thompson"] = "linear_thompson"
    prior_precision: Positive = 1.0
    noise_variance: Positive = 0.25
    exploration: NotNegative = 1.0


Policy = Annotated[BetaThompson | LinearThompson, Field(discriminator="name")]
