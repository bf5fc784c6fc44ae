"""The section ``forget`` of a spec: how long an outcome counts."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from bandstand.durations import PositiveDuration

__all__ = ["Forget"]


class Forget(BaseModel):
    """How long an outcome counts, in the time of decisions; one of the two.

    Parameters
    ----------
    half_life
        An outcome counts half as much as one whose decision came so much later.
    window
        An outcome counts for so long, and then not at all: for a 32nd part less at least, and for
        the next multiple of 32 ms at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    half_life: PositiveDuration | None = None
    window: PositiveDuration | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.half_life is None) == (self.window is None):
            raise ValueError("must have a half_life or a window, such as 7d, and not both")
        return self
