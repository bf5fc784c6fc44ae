"""One dead letter, as it is read back, and the marks that say what became of it.

Whoever redrives letters writes two kinds of marks into the same topic, as letters of its own:

* ``redriven``: a letter's record was published again; under the letter's key.
* ``redriving``: a batch is under way, and from which offsets on its records may lie in their
  topics; one without offsets says that the batch is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bandstand.errors import BandstandError, EventError
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings

__all__ = [
    "REDRIVEN",
    "REDRIVING",
    "Letter",
    "bandit_of",
    "decode_value",
    "event_names",
    "parse_origin",
    "repair",
]

REDRIVEN: Final = "redriven"
REDRIVING: Final = "redriving"


class Letter(NamedTuple):
    """One dead letter, or a mark.

    Parameters
    ----------
    written
        When the letter was written, milliseconds since 1970.
    reason, detail, role
        Why the record was refused, and by whom.
    topic, partition, offset
        Where the record lies.
    ts, key, value
        The record's Kafka timestamp and bytes.
    repaired
        Whether these are no longer those that were refused.
    """

    written: int
    reason: str
    detail: str
    role: str
    topic: str
    partition: int
    offset: int
    ts: int
    key: bytes | None
    value: bytes | None
    repaired: bool = False

    @property
    def place(self) -> tuple[str, int, int]:
        """Where the record lies."""
        return self.topic, self.partition, self.offset

    @property
    def origin(self) -> str:
        """The same as users write it: ``topic/partition/offset``."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def is_mark(self) -> bool:
        """Whether this is no letter, but says what became of one."""
        return self.reason in (REDRIVEN, REDRIVING)

    @property
    def said(self) -> dict[str, Any]:
        """What a mark says."""
        said: dict[str, Any] = json.loads(self.detail)
        return said


def parse_origin(origin: str) -> tuple[str, int, int]:
    """Read ``topic/partition/offset``.

    Raises
    ------
    BandstandError
        If it isn't that.

    Examples
    --------
    >>> parse_origin("a.rewards/3/17")
    ('a.rewards', 3, 17)
    """
    topic, *numbers = origin.rsplit("/", 2)
    if len(numbers) != 2 or not topic or not all(number.isdecimal() for number in numbers):
        raise BandstandError(
            f"{origin!r} is no origin; allowed: topic/partition/offset, e.g. "
            "bandstand.default.decisions/3/17"
        )
    return topic, int(numbers[0]), int(numbers[1])


def event_names(settings: Settings) -> dict[str, str]:
    """Give the schema of the values of each topic that has one only."""
    names = TopicNames(settings.topics.prefix)
    schemas = ("decision", "reward", "outcome")
    lanes = {
        t: s for lane in settings.lanes for t, s in zip(names.lane(lane), schemas, strict=True)
    }
    return {**lanes, names.specs: "spec"}


def decode_value(letter: Letter, names: Mapping[str, str], wire: Wire) -> dict[str, Any] | None:
    """Read a letter's value as an event; None where that can't be."""
    name = names.get(letter.topic)
    if name is None:
        return None
    try:
        return wire.loads(name, letter.value)
    except EventError:
        return None


def repair(
    letter: Letter, repaired: bytes | Mapping[str, Any], names: Mapping[str, str], wire: Wire
) -> Letter:
    """Give the letter with other bytes; key and time become those that the bytes say.

    Parameters
    ----------
    letter
        About a decision or a reward.
    repaired
        The event, or its bytes with their header.
    names
        As `event_names` gives them.
    wire
        How events are framed.

    Raises
    ------
    EventError
        If the bytes are no event of the letter's topic.
    """
    name = names.get(letter.topic)
    if name not in ("decision", "reward"):
        raise EventError("repair", f"{letter.topic} has no decisions or rewards; nothing to repair")
    value = repaired if isinstance(repaired, bytes) else wire.dumps(name, repaired)
    event = wire.loads(name, value)
    key = event["decision_id"].encode()
    return letter._replace(key=key, ts=event["ts"], value=value, repaired=True)


def bandit_of(letter: Letter, names: Mapping[str, str], wire: Wire) -> str | None:
    """Tell whose record was refused, where its value says it."""
    event = decode_value(letter, names, wire) or {}
    bandit = event.get("bandit") or (event.get("decision") or {}).get("bandit")
    return None if bandit is None else str(bandit)
