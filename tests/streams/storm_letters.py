"""Dead letters beside what must have one: each its own, and none other."""

from __future__ import annotations

from collections import Counter

from bandstand.schemas.wire import Wire
from bandstand.streams.join_types import Record
from tests.streams.storm_follower import DifferenceError

__all__ = ["Letters"]

_WIRE = Wire.single_object()


class Letters:
    """Matches refused records with letters, in whatever order they are met."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        """Refused records by reason."""
        self.repeats = 0
        """Letters about a record that had one."""
        self._refused: dict[bytes, tuple[str, bytes | None]] = {}
        self._early: dict[bytes, tuple[str, bytes | None]] = {}
        self._answered: set[bytes] = set()

    def refuse(self, place: str, record: Record, reason: str) -> None:
        """Note that a record of a place (topic/partition) must have a letter.

        Raises
        ------
        DifferenceError
            If its letter says something else.
        """
        self.reasons[reason] += 1
        key = f"{place}/{record.offset}".encode()
        self._match(key, (reason, record.value), self._early, self._refused)

    def take(self, letter: Record) -> None:
        """Note a letter.

        Raises
        ------
        DifferenceError
            If what it is about was refused for something else.
        """
        assert letter.key is not None
        assert letter.value is not None
        fields = _WIRE.loads("dead_letter", letter.value)
        said = fields["reason"], fields["value"]
        if letter.key in self._answered or self._early.get(letter.key) == said:
            self.repeats += 1
        else:
            self._match(letter.key, said, self._refused, self._early)

    @property
    def unfinished(self) -> list[str]:
        """What is still to come."""
        return [
            f"{len(which)} {what}, e.g. {next(iter(which))!r}"
            for what, which in (
                ("letters are missing", self._refused),
                ("letters are about nothing refused", self._early),
            )
            if which
        ]

    def _match(
        self,
        key: bytes,
        mine: tuple[str, bytes | None],
        others: dict[bytes, tuple[str, bytes | None]],
        own: dict[bytes, tuple[str, bytes | None]],
    ) -> None:
        other = others.pop(key, None)
        if other is None:
            own[key] = mine
        elif other != mine:
            raise DifferenceError(
                f"the letter about {key.decode()}: {other} and {mine} must be equal"
            )
        else:
            self._answered.add(key)
