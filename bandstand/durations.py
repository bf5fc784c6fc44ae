"""How lengths of time are written: a whole number and a unit."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

__all__ = ["Duration", "PositiveDuration", "format_duration", "milliseconds", "parse_duration"]

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]+)\s*(ms|s|m|h|d)")


def parse_duration(value: object) -> timedelta:
    """Read a duration such as ``250ms``, ``10s``, ``5m``, ``1h`` or ``7d``.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> parse_duration("90s")
    datetime.timedelta(seconds=90)
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a duration; write a whole number "
            "and a unit: 250ms, 10s, 5m, 1h or 7d"
        )
    try:
        return timedelta(milliseconds=int(match[1]) * _UNITS_MS[match[2]])
    except OverflowError:
        raise ValueError(f"{value!r} is longer than any duration; write a smaller number") from None


def milliseconds(duration: timedelta) -> int:
    """Give a duration in whole milliseconds.

    Examples
    --------
    >>> milliseconds(timedelta(seconds=1.5))
    1500
    """
    return duration // timedelta(milliseconds=1)


def format_duration(duration: timedelta) -> str:
    """Write a duration the way `parse_duration` reads it, in the largest unit that fits.

    Examples
    --------
    >>> format_duration(timedelta(minutes=90))
    '90m'
    """
    value = milliseconds(duration)
    for unit in ("d", "h", "m", "s"):
        if value and value % _UNITS_MS[unit] == 0:
            return f"{value // _UNITS_MS[unit]}{unit}"
    return f"{value}ms"


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)
]


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("0 is not allowed; write 1ms or more")
    return value


PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
