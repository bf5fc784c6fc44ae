"""Where a new owner begins to read a partition's two logs, and what is no longer there.

What a restart needs lies behind the time that the outcomes' tail gives. Where retention took some
of that, decisions are lost or default though they had a reward: never without an operator's word.
"""

from __future__ import annotations

from datetime import UTC, datetime

from bandstand.errors import BrokerError, LogGapError
from bandstand.logs import get_logger
from bandstand.settings import Settings
from bandstand.streams.join_types import Rules, Tail, resume_times
from bandstand.streams.leaders import Place
from bandstand.streams.tail import LogEnds
from bandstand.streams.tick_guards import Reading
from bandstand.streams.ticker import BrokerClock

__all__ = ["Starts", "broker_time"]

_log = get_logger(__name__)
_CLOCK_S = 2.0


def broker_time(clock: BrokerClock) -> Reading:
    """Give the broker's time.

    Raises
    ------
    BrokerError
        If it doesn't answer.
    """
    reading = clock.read(within=_CLOCK_S)
    if reading is None:
        raise BrokerError("the broker didn't tell the time")
    return reading


class Starts:
    """Finds the offsets at which reading begins; for one thread.

    Parameters
    ----------
    settings
        The settings in force.
    ends
        Looks at the logs.
    clock
        Gives the broker's time.
    """

    def __init__(self, settings: Settings, ends: LogEnds, clock: BrokerClock) -> None:
        self._accept = settings.join.accept_deleted
        self._ends = ends
        self._clock = clock

    def find(
        self, decisions: Place, rewards: Place, tail: Tail | None, rules: Rules
    ) -> tuple[int, int]:
        """Give the first offset to be read of both logs.

        Parameters
        ----------
        decisions, rewards
            The logs.
        tail
            Where the outcomes end; None where there is none.
        rules
            The lane's.

        Raises
        ------
        LogGapError
            If records were deleted that are needed, and nobody accepted that.
        """
        times = None if tail is None else resume_times(tail, rules)
        if times is None:
            starts = self._first(decisions), self._first(rewards)
        else:
            starts = self._start_at(decisions, times[0]), self._start_at(rewards, times[1])
        if tail is None or starts[0] <= tail.source_offset + 1:
            return starts
        # What comes next may be older than what the index was asked for: never pass it over.
        first = self._first(decisions)
        if first > tail.source_offset + 1:
            self._mind(
                f"decisions from offset {tail.source_offset + 1} to {first - 1} of {decisions} "
                "were deleted before they were joined"
            )
        return max(first, tail.source_offset + 1), starts[1]

    def _first(self, place: Place) -> int:
        return self._ends.bounds(*place)[0]

    def _start_at(self, place: Place, time_ms: int) -> int:
        found, first = self._ends.offset_at(*place, time_ms), self._first(place)
        start = first if found is None else found
        if 0 < first == start:
            self._mind_deleted_since(place, time_ms)
        return start

    def _mind_deleted_since(self, place: Place, time_ms: int) -> None:
        retention_ms = self._ends.retention_ms(place.topic)
        time = datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="seconds")
        what = f"{place} begins after {time}, from when on its records may still count"
        now_ms = broker_time(self._clock).broker_ms
        if retention_ms is not None and time_ms < now_ms - retention_ms:
            self._mind(what)
        else:
            _log.warning("records were deleted before their time", what=what)

    def _mind(self, what: str) -> None:
        if not self._accept:
            raise LogGapError(
                f"{what}: the join was away for longer than they were kept; raise the topic's "
                "retention; to go on without them, start once with "
                "BANDSTAND_JOIN__ACCEPT_DELETED=true: decisions whose rewards are gone will have "
                "none"
            )
        _log.error("goes on without what was deleted, as it was told", what=what)
