"""What is in the dead letters, counted: each record once, however often it was refused."""

from __future__ import annotations

from typing import Any, NamedTuple

from bandstand.streams.offset_set import OffsetSet

__all__ = ["Group", "LetterSummary"]


class Group(NamedTuple):
    """What letters are counted by; the bandit is None where it isn't asked for or not known."""

    reason: str
    topic: str
    bandit: str | None


class _Count:
    def __init__(self) -> None:
        self.role: str | None = None
        self.letters = 0
        self.repeats = 0
        self.redriven = 0
        self.first: int | None = None
        self.last: int | None = None

    def spans(self, written: int) -> None:
        self.first = written if self.first is None else min(self.first, written)
        self.last = written if self.last is None else max(self.last, written)


class LetterSummary:
    """Counts letters by group; memory grows by eight bytes a letter.

    Examples
    --------
    >>> summary = LetterSummary()
    >>> group = Group("key", "a.rewards", None)
    >>> for written in (5, 9):
    ...     summary.add(group, ("a.rewards", 0, 17), written, "join")
    >>> [(row["letters"], row["repeats"], row["last"]) for row in summary.rows()]
    [(1, 1, 9)]
    """

    def __init__(self) -> None:
        self._seen = OffsetSet()
        self._counts: dict[Group, _Count] = {}

    def add(self, group: Group, place: tuple[str, int, int], written: int, role: str) -> None:
        """Count a letter about the record at a place, written by a role at a time in ms."""
        count = self._counts.setdefault(group, _Count())
        count.role = role
        count.spans(written)
        if self._seen.add(*place):
            count.letters += 1
        else:
            count.repeats += 1

    def mark_redriven(self, group: Group) -> None:
        """Count a letter of a group whose record was published again."""
        self._counts.setdefault(group, _Count()).redriven += 1

    def rows(self) -> list[dict[str, Any]]:
        """Give a row a group, the largest first; times in milliseconds since 1970."""
        rows = [{**group._asdict(), **vars(count)} for group, count in self._counts.items()]
        return sorted(rows, key=lambda row: (-row["letters"], row["topic"], row["reason"]))
