"""Which event times a broker takes: none far in the future, or it refuses a whole batch."""

from __future__ import annotations

import time

from bandstand.durations import format_duration, milliseconds
from bandstand.settings import LaneSettings, Settings

__all__ = ["FutureLimits"]


class FutureLimits:
    """How far ahead of this machine's clock an event time may lie.

    Parameters
    ----------
    settings
        Has ``skew`` by lane; a lane that isn't set up there has the default.
    """

    def __init__(self, settings: Settings) -> None:
        self._skews = {name: lane.skew for name, lane in settings.lanes.items()}
        self._ahead = {name: milliseconds(skew) for name, skew in self._skews.items()}
        self._default = LaneSettings().skew

    def fault(self, ts: int, lane: str) -> str | None:
        """Say what is wrong with an event time; None if nothing is.

        Parameters
        ----------
        ts
            Milliseconds since 1970, UTC.
        lane
            Lane that it is for.
        """
        ahead = ts - time.time_ns() // 1_000_000
        if ahead <= 0 or ahead <= self._ahead.get(lane, milliseconds(self._default)):
            return None
        skew = self._skews.get(lane, self._default)
        return (
            f"event time {ts} lies {ahead} ms ahead of this machine's clock; allowed in lane "
            f"{lane!r}: up to {format_duration(skew)} (skew); give the time at which it happened, "
            "in milliseconds, and check the clocks"
        )
