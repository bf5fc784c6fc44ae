"""When a log may get a tick: the four guards of the join's clock, without clock or network.

A tick closes windows, so one too many or one too early falsifies outcomes for good, while a missing
one only delays them. Whenever in doubt the answer is to wait.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from bandstand.durations import format_duration, milliseconds
from bandstand.errors import SettingsError
from bandstand.settings import JoinSettings

__all__ = ["GuardRules", "LogClock", "Reading", "Verdict"]

Reason = Literal["due", "not_due", "under_way", "stale_time", "settle", "brake"]


class Reading(NamedTuple):
    """The broker's time.

    Parameters
    ----------
    broker_ms
        Milliseconds since the epoch, by the broker's clock.
    at
        Seconds of this process's monotonic clock at which it was asked for, so at or before the
        moment at which the broker looked.
    """

    broker_ms: int
    at: float


class Verdict(NamedTuple):
    """Whether a tick may be written now.

    Parameters
    ----------
    reason
        ``due``: yes, with the time of the reading. Otherwise what has to be waited for.
    """

    reason: Reason

    @property
    def tick(self) -> bool:
        """Whether a tick may be written."""
        return self.reason == "due"


class GuardRules(NamedTuple):
    """The guards' settings; seconds, but for the brake.

    Parameters
    ----------
    tick, idle_tick
        Time between two ticks of a log with and without work.
    pause
        Longest time without a word from the leader after which it need not settle.
    settle
        How long a leader must have answered after a pause.
    brake_ms
        How far the broker's time may run ahead of this process's clock, milliseconds.
    brake_release
        After how long a braked tick is written nevertheless.
    stale
        Age above which a reading of the broker's time isn't used.
    """

    tick: float
    idle_tick: float
    pause: float
    settle: float
    brake_ms: int
    brake_release: float
    stale: float = 1.0

    @classmethod
    def from_settings(cls, join: JoinSettings) -> GuardRules:
        """Take the rules from the settings.

        Raises
        ------
        SettingsError
            If ticks are so far apart that each would look like a pause.
        """
        if join.pause < 3 * join.tick:
            raise SettingsError(
                f"join.pause is {format_duration(join.pause)}; allowed: three ticks "
                f"({format_duration(3 * join.tick)}) or more, because a leader is asked once a "
                "tick; raise join.pause or lower join.tick"
            )
        return cls(
            tick=join.tick.total_seconds(),
            idle_tick=join.idle_tick.total_seconds(),
            pause=join.pause.total_seconds(),
            settle=join.settle.total_seconds(),
            brake_ms=milliseconds(join.brake),
            brake_release=join.brake_release.total_seconds(),
        )


class LogClock:
    """Decides about the ticks of one log.

    Parameters
    ----------
    rules
        The guards' settings.
    opened
        The broker's time when the log was taken over.
    last_tick
        Time of the newest tick that is known, milliseconds since the epoch.
    settled
        Whether the log may be ticked at once: it never had a tick, or its last one isn't older than
        a take-over takes.

    Examples
    --------
    >>> rules = GuardRules(1, 10, pause=5, settle=15, brake_ms=5_000, brake_release=600)
    >>> clock = LogClock(rules, opened=Reading(1_000_000, at=50.0), last_tick=None, settled=True)
    >>> clock.decide(Reading(1_000_100, at=50.1), now=50.1, busy=True).reason
    'due'
    """

    def __init__(
        self, rules: GuardRules, *, opened: Reading, last_tick: int | None, settled: bool
    ) -> None:
        self._rules = rules
        self._anchor = opened
        """The newest moment at which the broker's time was trusted."""
        self._largest = last_tick
        self._settled = settled
        self._answering_since: float | None = None
        self._answered: float | None = opened.at if settled else None
        self._sent: Reading | None = None
        self._paced: float | None = None
        self._braked_since: float | None = None

    @property
    def braked(self) -> bool:
        """Whether the broker's time is held to be wrong."""
        return self._braked_since is not None

    @property
    def settled(self) -> bool:
        """Whether ticks may be written as far as the leader is concerned."""
        return self._settled

    def answered(self, *, asked: float, now: float) -> None:
        """Note that the leader answered now what it was asked then; both on the monotonic clock."""
        if self._silent(asked):
            self._answering_since = now
            self._settled = False
        self._answered = asked if self._answered is None else max(asked, self._answered)

    def decide(self, reading: Reading, *, now: float, busy: bool) -> Verdict:
        """Decide whether a tick with the reading's time may be written now.

        Parameters
        ----------
        reading
            The broker's time.
        now
            Seconds of the monotonic clock.
        busy
            Whether the log had a record since its last tick, or a decision waits.
        """
        if self._sent is not None:
            return Verdict("under_way")
        if now - reading.at > self._rules.stale:
            return Verdict("stale_time")
        if not self._leader_settled(now):
            return Verdict("settle")
        if not self._is_due(now, busy):
            return Verdict("not_due")
        if self._is_ahead(reading):
            return Verdict("brake")
        return Verdict("due")

    def sent(self, reading: Reading) -> None:
        """Note that a tick is under way."""
        self._sent = reading

    def delivered(self) -> None:
        """Note that the tick under way was written."""
        assert self._sent is not None
        reading, self._sent = self._sent, None
        self._paced = reading.at
        self._settled = True
        self._answered = max(reading.at, self._answered or reading.at)
        if self._largest is None or reading.broker_ms >= self._largest:
            self._largest = reading.broker_ms
            self._anchor = reading

    def failed(self) -> None:
        """Note that the tick under way wasn't written in time; the next try gets a fresh time."""
        self._sent = None

    def accept(self, reading: Reading) -> None:
        """Trust the broker's time as it is now."""
        self._anchor = reading
        self._braked_since = None

    def _silent(self, now: float) -> bool:
        return self._answered is None or now - self._answered > self._rules.pause

    def _leader_settled(self, now: float) -> bool:
        if self._silent(now):
            self._settled = False
            self._answering_since = None
            self._answered = None
        elif not self._settled and self._answering_since is not None:
            self._settled = now - self._answering_since >= self._rules.settle
        return self._settled

    def _is_due(self, now: float, busy: bool) -> bool:
        interval = self._rules.tick if busy else self._rules.idle_tick
        # Half: the caller comes by once a tick, and not to the millisecond.
        return self._paced is None or now - self._paced >= interval - self._rules.tick / 2

    def _is_ahead(self, reading: Reading) -> bool:
        passed_ms = (reading.at - self._anchor.at) * 1_000
        if reading.broker_ms - self._anchor.broker_ms - passed_ms <= self._rules.brake_ms:
            self._braked_since = None
            return False
        if self._braked_since is None:
            self._braked_since = reading.at
        if reading.at - self._braked_since < self._rules.brake_release:
            return True
        self.accept(reading)
        return False
