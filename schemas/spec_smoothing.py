"""The section ``smoothing`` of a spec: how fast allocation may move."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Smoothing"]


class Smoothing(BaseModel):
    """A bound on what a snapshot changes, against swings from one to the next.

    Parameters
    ----------
    most_change
        No action's probability moves by more from one snapshot to the next, above 0 to 1; but as
        far as a floor or the share of a new action asks for, which come first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    most_change: Annotated[float, Field(strict=True, gt=0, le=1)]
