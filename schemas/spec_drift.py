"""The section ``drift`` of a spec: how a change is noticed, and what follows from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)

from bandstand.durations import PositiveDuration

__all__ = ["Drift", "Moment", "Widened", "moment", "moment_ms"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(ms: int) -> datetime:
    """Give a time of milliseconds since 1970.

    Examples
    --------
    >>> moment(1_500).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return _EPOCH + timedelta(milliseconds=ms)


def moment_ms(moment: datetime) -> int:
    """Give the milliseconds since 1970 of a time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _within_utc(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie in the years 1 to 9999 of UTC") from None
    return moment


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[
    AwareDatetime, AfterValidator(_within_utc), PlainSerializer(_text, return_type=str)
]
"""A time with its zone, such as 2026-11-29T20:00:00Z."""


class Widened(BaseModel):
    """A higher floor for a while.

    Parameters
    ----------
    floor
        Least probability of every eligible action, above 0, up to 1 / number of actions.
    until
        It holds while the newest outcome's decision was made before this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    floor: Annotated[float, Field(strict=True, gt=0, le=1)]
    until: Moment


class Drift(BaseModel):
    """A watch over the mean reward of each action, in the time of decisions.

    Parameters
    ----------
    step
        Length of a step of the series; 256 of them are looked at.
    detector
        River's ADWIN, or its Page-Hinkley test.
    outcomes
        Outcomes of an action that a point of its series has at least, 10 to 10,000; where steps
        have fewer, several make a point.
    act
        What a change leads to, beside a warning and a metric. ``alert``: nothing. ``explore``: the
        floor is `floor` for as long as `widen`. ``half_life``: the spec's half-life is halved.
        ``epoch``: what was learned before the change is dropped.
    floor, widen
        For ``explore``.
    since
        Earlier steps aren't looked at. Acts set it, so that none is done twice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: PositiveDuration
    detector: Literal["adwin", "page_hinkley"] = "adwin"
    outcomes: Annotated[int, Field(strict=True, ge=10, le=10_000)] = 25
    act: Literal["alert", "explore", "half_life", "epoch"] = "alert"
    floor: Annotated[float, Field(strict=True, gt=0, le=1)] | None = Field(
        default=None, validate_default=True
    )
    widen: PositiveDuration | None = Field(default=None, validate_default=True)
    since: Moment | None = None

    @field_validator("floor", "widen")
    @classmethod
    def _to_explore(cls, value: object, info: ValidationInfo) -> object:
        if "act" in info.data and (value is None) == (info.data["act"] == "explore"):
            raise ValueError("belongs to act: explore, and must be there with it")
        return value
