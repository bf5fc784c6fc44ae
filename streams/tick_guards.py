"""When a log may get a tick: the four guards of the join's clock, without clock or network.

A tick closes windows, so one too many or one too early falsifies outcomes for good, while a missing
one only delays them. Whenever in doubt the answer is to wait.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from bandstand.durations import format_duration, milliseconds
from bandstand.errors import SettingsError
from bandstand.settings import JoinSettings

__all__ = ["Brake", "GuardRules", "Heard", "LogClock", "Reading", "Verdict"]

_DEADLINE_S = 2.0

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
        Longest time for which a log may be unwritable without having to settle.
    settle
        How long it must have been writable after a pause.
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

    @property
    def deadline(self) -> float:
        """Within what time a tick or an answer must be there: two tries fit into a pause."""
        return min(_DEADLINE_S, 0.4 * self.pause)

    @property
    def gone(self) -> float:
        """After how long a topic that is denied is held to be gone."""
        return self.pause + self.settle

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


class Brake:
    """Holds the broker's time against this process's clock; one for all logs of a process.

    Parameters
    ----------
    rules
        The guards' settings.

    Examples
    --------
    >>> rules = GuardRules(1, 10, pause=5, settle=15, brake_ms=5_000, brake_release=600)
    >>> brake = Brake(rules)
    >>> brake.holds(Reading(1_000_000, at=50.0)), brake.holds(Reading(4_600_000, at=51.0))
    (False, True)
    """

    def __init__(self, rules: GuardRules) -> None:
        self._rules = rules
        self._anchor: Reading | None = None
        """The largest time of the broker's that was trusted, and when that was."""
        self._since: float | None = None

    @property
    def engaged(self) -> bool:
        """Whether the broker's time is held to be wrong."""
        return self._since is not None

    def holds(self, reading: Reading) -> bool:
        """Tell whether a time ran too far ahead to be written; the first one is trusted."""
        if not self._is_ahead(reading):
            self._since = None
            return False
        if self._since is None:
            self._since = reading.at
        if reading.at - self._since < self._rules.brake_release:
            return True
        self.accept(reading)
        return False

    def trust(self, reading: Reading) -> None:
        """Note a time that was written into a log, or that none was there to be written into."""
        if self._anchor is None or reading.broker_ms >= self._anchor.broker_ms:
            self._anchor = reading

    def accept(self, reading: Reading) -> None:
        """Trust the broker's time as it is now."""
        self._anchor = reading
        self._since = None

    def _is_ahead(self, reading: Reading) -> bool:
        if self._anchor is None:
            self._anchor = reading
        passed_ms = (reading.at - self._anchor.at) * 1_000
        return reading.broker_ms - self._anchor.broker_ms - passed_ms > self._rules.brake_ms


class Heard:
    """Since when a log could be written without a pause, as far as this process has seen it.

    Kept for logs of other owners, too: only who has heard its leader all the while can tell a
    killed worker from a broker that was away.

    Parameters
    ----------
    rules
        The guards' settings.

    Examples
    --------
    >>> heard = Heard(GuardRules(1, 10, pause=5, settle=15, brake_ms=5_000, brake_release=600))
    >>> heard.answered(asked=10.0, now=10.1)
    >>> heard.answered(asked=14.0, now=14.1)
    >>> heard.known(ticked=11.0, now=16.0), heard.known(ticked=9.0, now=16.0)
    (14.0, None)
    >>> heard.known(ticked=16.5, now=17.0), heard.known(ticked=11.0, now=19.5)
    (16.5, None)
    """

    def __init__(self, rules: GuardRules) -> None:
        self._pause = rules.pause
        self._span: tuple[float, float] | None = None
        """From when to when it was answered, in one piece; other threads look at it."""

    def answered(self, *, asked: float, now: float) -> None:
        """Note that the log could be written; see `LogClock.answered`."""
        since, last = self._span or (now, asked)
        if asked - last > self._pause:
            since = now
        self._span = since, max(asked, last)

    def known(self, *, ticked: float, now: float) -> float | None:
        """Tell up to when a log was writable without a pause since its last tick; None: unknown.

        Parameters
        ----------
        ticked, now
            When it had that tick, and now; seconds of the monotonic clock.
        """
        since, last = self._span or (now, now)
        known = max(ticked, last) if since <= ticked and self._span else ticked
        return known if now - known <= self._pause else None


class LogClock:
    """Decides about the ticks of one log.

    Parameters
    ----------
    rules
        The guards' settings.
    known
        Up to when the log is known to have been writable since its last tick, without a pause;
        seconds of the monotonic clock. None: that isn't known, so it must settle.

    Examples
    --------
    >>> rules = GuardRules(1, 10, pause=5, settle=15, brake_ms=5_000, brake_release=600)
    >>> clock = LogClock(rules, known=50.0)
    >>> clock.decide(Reading(1_000_100, at=50.1), now=50.1, busy=True, braked=False).reason
    'due'
    """

    def __init__(self, rules: GuardRules, *, known: float | None) -> None:
        self._rules = rules
        self._settled = known is not None
        self._answering_since: float | None = None
        self._answered = known
        self._written = False
        """Whether a tick was written since the log settled."""
        self._refused = False
        """Whether a tick was not written, after others were."""
        self._sent: Reading | None = None
        self._paced: float | None = None

    def answered(self, *, asked: float, now: float) -> None:
        """Note that the log could be written, as far as its leader and the cluster tell.

        Parameters
        ----------
        asked, now
            When they were asked, and when they answered; seconds of the monotonic clock.
        """
        if self._refused:
            return  # what a tick found out is nearer to the truth
        if self._silent(asked):
            self._unsettle()
            self._answering_since = now
        self._answered = asked if self._answered is None else max(asked, self._answered)

    def decide(self, reading: Reading, *, now: float, busy: bool, braked: bool) -> Verdict:
        """Decide whether a tick with the reading's time may be written now.

        Parameters
        ----------
        reading
            The broker's time.
        now
            Seconds of the monotonic clock.
        busy
            Whether the log had a record since its last tick, or a decision waits.
        braked
            Whether the reading ran too far ahead.
        """
        if self._sent is not None:
            return Verdict("under_way")
        if now - reading.at > self._rules.stale:
            return Verdict("stale_time")
        if not self._leader_settled(now):
            return Verdict("settle")
        if not self._is_due(now, busy):
            return Verdict("not_due")
        return Verdict("brake" if braked else "due")

    def sent(self, reading: Reading) -> None:
        """Note that a tick is under way."""
        self._sent = reading

    def delivered(self) -> None:
        """Note that the tick under way was written."""
        assert self._sent is not None
        reading, self._sent = self._sent, None
        self._paced = reading.at
        self._settled = self._written = True
        self._refused = False
        self._answered = max(reading.at, self._answered or reading.at)

    def failed(self) -> None:
        """Note that the tick under way wasn't written in time; the next try gets a fresh time."""
        self._sent = None
        if self._written:
            self._refused = True
        else:
            self._unsettle()  # the answers were wrong

    def _unsettle(self) -> None:
        self._settled = self._written = self._refused = False
        self._answering_since = None
        self._answered = None

    def _silent(self, now: float) -> bool:
        return self._answered is None or now - self._answered > self._rules.pause

    def _unsure(self, now: float) -> bool:
        # A tick is the best question where no answers come.
        unheard = self._answered is None or now - self._answered > self._rules.pause / 2
        return self._refused or unheard

    def _leader_settled(self, now: float) -> bool:
        if self._silent(now):
            self._unsettle()
        elif not self._settled and self._answering_since is not None:
            self._settled = now - self._answering_since >= self._rules.settle
        return self._settled

    def _is_due(self, now: float, busy: bool) -> bool:
        interval = self._rules.tick if busy or self._unsure(now) else self._rules.idle_tick
        # Half: the caller comes by once a tick, and not to the millisecond.
        return self._paced is None or now - self._paced >= interval - self._rules.tick / 2
