"""Which refused records would be taken now: the join's own checks, asked again.

Time is what can't be repaired by a newer Bandstand: a record refused for its time, or whose time is
over by now, has no place in a live lane. It can be replayed into a lane of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from bandstand.partitioner import partition_for
from bandstand.schemas.columns import columns
from bandstand.schemas.wire import Wire
from bandstand.streams.event_checks import mismatches, wrong_clock
from bandstand.streams.join_types import Log, Rules
from bandstand.streams.letter_types import Letter

__all__ = ["LogNow", "Verdict", "judge", "refuse"]

Word = Literal["readable", "unreadable", "clock", "late", "not_an_event"]

_ELSEWHERE: Final = "replay it into a lane of its own, where time is that of its log"
_RESTART: Final = "a Bandstand that can read it takes it from its topic: restart the role with that"


class Verdict(NamedTuple):
    """What may become of a letter.

    Parameters
    ----------
    letter
        The letter.
    word
        ``readable``: it may be published again. ``unreadable``: today's checks refuse it, too.
        ``clock``, ``late``: the lane's time has no place for it. ``not_an_event``: it isn't one
        that a service sent to a lane.
    why
        For a human.
    """

    letter: Letter
    word: Word
    why: str


class LogNow(NamedTuple):
    """A lane's log as it is now.

    Parameters
    ----------
    log
        Which of the lane's two.
    rules
        The lane's settings.
    watermarks
        The newest tick of each partition, milliseconds; None where it has none.
    now
        Milliseconds since 1970.
    """

    log: Log
    rules: Rules
    watermarks: Sequence[int | None]
    now: int


def judge(letters: Sequence[Letter], log: LogNow, wire: Wire) -> Iterator[Verdict]:
    """Try letters of one log with today's checks.

    Parameters
    ----------
    letters
        Letters about records of this log.
    log
        What the lane would say to their times.
    wire
        How events are framed.
    """
    name = log.log.removesuffix("s")
    batch = columns(name, [letter.value for letter in letters], wire)
    problems = {bad.index: bad.error for bad in batch.bad}
    rows = batch.rows.tolist()
    good = [letters[row] for row in rows]
    wrong = mismatches([one.key for one in good], [one.ts for one in good], batch.table)
    problems |= {rows[at]: error for at, error in wrong.items()}
    for row, letter in enumerate(letters):
        if row in problems:
            yield Verdict(letter, "unreadable", str(problems[row]))
        elif letter.reason == "clock" and not letter.repaired:
            yield Verdict(letter, "clock", f"it was refused for its time; {_ELSEWHERE}")
        else:
            yield _judge_time(letter, log)


def refuse(letters: Iterable[Letter]) -> Iterator[Verdict]:
    """Say of letters that aren't about a lane's decisions or rewards why they stay."""
    for letter in letters:
        if letter.role == "join":
            why = "its topic is no lane of these settings; set the lane up, or its prefix"
        else:
            why = f"{letter.role} refused what Bandstand itself had written; {_RESTART}"
        yield Verdict(letter, "not_an_event", why)


def _judge_time(letter: Letter, log: LogNow) -> Verdict:
    assert letter.key is not None
    rules, ts = log.rules, letter.ts
    watermark = log.watermarks[partition_for(letter.key, len(log.watermarks))]
    latest = max(log.now, watermark or 0) + rules.skew_ms
    earliest = None
    if watermark is not None and log.log == "decisions":
        earliest = watermark - rules.lateness_ms
    if ts > latest or (earliest is not None and ts < earliest):
        error = wrong_clock(ts, earliest, latest)
        return Verdict(letter, "clock", f"it would be refused again: {error.detail}; {_ELSEWHERE}")
    # The last decision that it could count for is due then.
    over = ts + rules.backward_ms + max(rules.window_ms, rules.lateness_ms) + rules.grace_ms
    if log.log == "rewards" and watermark is not None and watermark >= over:
        return Verdict(
            letter, "late", f"every decision that it could count for is closed; {_ELSEWHERE}"
        )
    return Verdict(letter, "readable", "today's checks take it")
