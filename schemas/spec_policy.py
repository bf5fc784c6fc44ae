"""The policies that a spec may name, and their parameters."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

__all__ = ["BetaThompson", "LinearThompson", "Policy"]

Positive = Annotated[float, Field(strict=True, ge=1e-9, le=1e9)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=1e6)]
Pseudocount = Annotated[float, Field(strict=True, ge=0.1, le=1e9)]

LEAST_RIDGE: Final = 1e-6
"""Least product of prior precision and noise variance."""


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
        1 / variance of each weight before any data, 1e-9 to 1e9.
    noise_variance
        Variance of the scaled reward around its mean, 1e-9 to 1e9. Its product with the prior
        precision is at least 1e-6: then a posterior can be solved even after a hundred million
        outcomes with dependent features, since float64 resolves that much.
    exploration
        Standard deviations are multiplied by this before actions compete, 0 to 1e6; 1 is Thompson
        sampling, 0 takes the best mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    contextual: ClassVar[bool] = True

    name: Literal["linear_thompson"] = "linear_thompson"
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


Policy = Annotated[BetaThompson | LinearThompson, Field(discriminator="name")]
