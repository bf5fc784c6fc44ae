"""Which decisions a log held lately: 16 bytes each and a hash table's slots, whatever their ids.

Both what makes a decision a duplicate and what makes a reward late are questions about decisions
that came before. Millions of them are kept for ``lateness``, so an id is kept as 96 bits of two
hash functions (a false match once in 10^21 decisions, with 10^7 of them in memory), and batches are
looked up at once. Memory comes in chunks by time; a chunk that nothing can ask for goes as a whole.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["DecisionTable", "Known", "Prints", "Segment"]

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_FEWEST = 1_024
"""Rows that a new chunk has room for."""

_GROWTH = 1.3
_LEAST_SLOTS = 1.5
"""Slots a row; there are a power of two of them, so up to twice as many."""

_CHUNKS = 2
"""Parts of `lateness` after which a new chunk begins."""

_MANY_CHUNKS = 4
_FULL = 4_096
"""With many chunks a new one begins only behind so many rows: each of them is looked through for
each batch, and has a least size. A sparse log that waits for a long window would have thousands."""

_HALF = 2**31
"""Event times are kept in 32 bits, from this many milliseconds before a chunk's origin."""

_EARLIEST = -(2**63)

_FEW = 8
"""Ids, as between two ticks of a quiet log, up to which looking one by one is faster."""


class Prints(NamedTuple):
    """What is kept of ids, one entry each.

    Parameters
    ----------
    wide
        64 bits, by the hash function of Python's dictionaries.
    narrow
        32 more, by CRC-32.
    """

    wide: Ints
    narrow: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, ids: Sequence[bytes]) -> Prints:
        """Hash ids."""
        count = len(ids)
        return cls(
            np.fromiter(map(hash, ids), np.int64, count),
            np.fromiter(map(zlib.crc32, ids), np.uint32, count),
        )

    def __getitem__(self, rows: slice | Flags | Ints) -> Prints:  # type: ignore[override]
        """Give some of them."""
        return Prints(self.wide[rows], self.narrow[rows])


class Segment(NamedTuple):
    """What decisions between two ticks share.

    Parameters
    ----------
    first
        Number of the first decision, in the order of the table.
    before
        Largest tick before them, milliseconds; None before the first one.
    window_ms, grace_ms
        The lane's where they stand.
    """

    first: int
    before: int | None
    window_ms: int
    grace_ms: int

    def due(self, times: Ints) -> Ints:
        """Give when decisions of these event times are due."""
        closes = times + self.window_ms
        if self.before is not None:
            closes = np.maximum(closes, self.before)
        return closes + self.grace_ms


class Known(NamedTuple):
    """A decision that the table holds.

    Parameters
    ----------
    number
        Its place in the order of the table.
    ts
        Its event time, milliseconds.
    due
        When its outcome may leave.
    window_ms
        The attribution window that applies to it.
    repeat
        Whether it was marked as a repeat of another one.
    """

    number: int
    ts: int
    due: int
    window_ms: int
    repeat: bool


class DecisionTable:
    """Decisions by id, in the order of their log, until they are of no use any more.

    Parameters
    ----------
    lateness_ms
        The lane's, >= 0.

    Examples
    --------
    >>> table = DecisionTable(lateness_ms=1_000)
    >>> _ = table.open(before=None, window_ms=50, grace_ms=10)
    >>> table.add(Prints.of([b"a", b"b"]), np.array([100, 200]))
    (0, array([False, False]))
    >>> table.add(Prints.of([b"c", b"a"]), np.array([300, 301]))
    (2, array([False,  True]))
    >>> [known.number for known in table.find(b"a")], table.find(b"b")
    ([0, 3], [Known(number=1, ts=200, due=260, window_ms=50, repeat=False)])
    """

    def __init__(self, lateness_ms: int) -> None:
        self._lateness_ms = lateness_ms
        self._chunk_ms = max(lateness_ms // _CHUNKS, 1)
        self._chunks: list[_Chunk] = []
        self._next = 0
        self._segment = Segment(0, None, 0, 0)

    def __len__(self) -> int:
        return sum(chunk.count for chunk in self._chunks)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows and their index take."""
        return sum(chunk.nbytes for chunk in self._chunks)

    def open(self, *, before: int | None, window_ms: int, grace_ms: int) -> Segment:
        """Say what the decisions that come next share."""
        self._segment = Segment(self._next, before, window_ms, grace_ms)
        if not self._chunks or (
            self._chunks[-1].is_old(before, self._chunk_ms)
            and (len(self._chunks) < _MANY_CHUNKS or self._chunks[-1].count >= _FULL)
        ):
            like = self._chunks[-1].count if self._chunks else 0
            self._chunks.append(_Chunk(self._next, before, room=max(like, _FEWEST)))
        self._chunks[-1].segments.append(self._segment)
        return self._segment

    def add(self, prints: Prints, times: Ints) -> tuple[int, Flags]:
        """Take decisions in.

        Parameters
        ----------
        prints
            Their ids.
        times
            Their event times, milliseconds.

        Returns
        -------
        tuple
            The first one's number, and which of them have an id that is there more than once.
            Where an id comes twice in the batch, at least one of the two is marked.
        """
        first = self._next
        self._next += len(times)
        *older, newest = self._chunks
        known = newest.add(prints, times, self._segment)
        if older:
            known |= _among(older, prints)
        return first, known

    def mark_repeat(self, number: int) -> None:
        """Mark a decision as a repeat of an earlier one."""
        chunk = next(chunk for chunk in reversed(self._chunks) if chunk.first <= number)
        chunk.repeats.add(number - chunk.first)

    def contains(self, prints: Prints) -> Flags:
        """Tell of each id whether it is there."""
        return _among(self._chunks, prints)

    def find(self, decision_id: bytes) -> list[Known]:
        """Give all decisions of an id, in their order."""
        wide, narrow = hash(decision_id), zlib.crc32(decision_id)
        return sorted(known for chunk in self._chunks for known in chunk.find(wide, narrow))

    def forget(self, watermark: int, reward_watermark: int | None) -> None:
        """Let go of what neither a decision nor a reward behind these ticks can meet."""
        if reward_watermark is None:
            return
        seen, met = watermark - self._lateness_ms, reward_watermark - self._lateness_ms
        while len(self._chunks) > 1 and self._chunks[0].is_past(seen, met):
            del self._chunks[0]


@dataclass
class _Chunk:
    """Rows in their order, and a hash table of their places with linear probing."""

    first: int
    opened: int | None
    room: InitVar[int]
    segments: list[Segment] = field(default_factory=list)
    repeats: set[int] = field(default_factory=set)
    count: int = 0
    newest_ts: int = _EARLIEST
    latest_due: int = _EARLIEST

    def __post_init__(self, room: int) -> None:
        self._wide = np.empty(room, np.int64)
        self._narrow = np.empty(room, np.uint32)
        self._deltas = np.empty(room, np.uint32)
        self._origin: int | None = None
        self._far: dict[int, int] = {}
        self._slots = _no_slots(room)

    def is_old(self, clock: int | None, span_ms: int) -> bool:
        if self.opened is None:
            self.opened = clock
        return self.opened is not None and clock is not None and clock - self.opened >= span_ms

    def is_past(self, seen: int, met: int) -> bool:
        return self.newest_ts < seen and self.latest_due <= met

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self._wide, self._narrow, self._deltas, self._slots))

    def add(self, prints: Prints, times: Ints, segment: Segment) -> Flags:
        if not len(times):
            return np.zeros(0, np.bool_)
        start, end = self.count, self.count + len(times)
        self._make_room(end)
        self._wide[start:end], self._narrow[start:end] = prints
        oldest, newest = int(times.min()), int(times.max())
        self._keep_times(start, times, oldest, newest)
        self.count = end
        self.newest_ts = max(self.newest_ts, newest)
        self.latest_due = max(self.latest_due, int(segment.due(times).max()))
        return self._insert(np.arange(start, end))

    def _keep_times(self, start: int, times: Ints, oldest: int, newest: int) -> None:
        if self._origin is None:
            self._origin = int(times[0]) if self.opened is None else self.opened
        first = self._origin - _HALF
        deltas = times - first
        if oldest < first or newest >= first + 2 * _HALF:
            for row in np.flatnonzero((deltas < 0) | (deltas >= 2 * _HALF)).tolist():
                self._far[start + row] = int(times[row])
                deltas[row] = 0
        self._deltas[start : start + len(times)] = deltas

    def _time(self, place: int) -> int:
        far = self._far.get(place)
        if far is not None:
            return far
        assert self._origin is not None
        return int(self._deltas[place]) - _HALF + self._origin

    def _make_room(self, count: int) -> None:
        if count > len(self._wide):
            room = int(max(count, _GROWTH * len(self._wide)))
            for name in ("_wide", "_narrow", "_deltas"):
                rows = getattr(self, name)
                larger = np.empty(room, rows.dtype)
                larger[: self.count] = rows[: self.count]
                setattr(self, name, larger)
        if count * _LEAST_SLOTS > len(self._slots):
            self._slots = _no_slots(count)
            for start in range(0, self.count, 2**16):
                self._insert(np.arange(start, min(start + 2**16, self.count)), compare=False)

    def _insert(self, rows: Ints, *, compare: bool = True) -> Flags:
        """Put rows into the hash table, and tell which met one of the same id on their way."""
        if len(rows) <= _FEW and compare:
            return np.fromiter(map(self._insert_one, rows.tolist()), np.bool_, len(rows))
        known = np.zeros(len(rows), np.bool_)
        mask = len(self._slots) - 1
        left = np.arange(len(rows))
        at = self._wide[rows] & mask
        while len(left):
            mine = rows[left]
            taken = self._slots[at]
            free = taken == 0
            self._slots[at[free]] = mine[free] + 1
            # Of several that want one slot, the last one written has it; the others meet it there.
            settled = self._slots[at] == mine + 1
            met = ~free
            if compare:
                known[left[met]] |= self._same(taken[met].astype(np.int64) - 1, mine[met])
            stays = ~settled
            at = np.where(met, (at + 1) & mask, at)[stays]
            left = left[stays]
        return known

    def _insert_one(self, row: int) -> bool:
        wide, narrow = self._wide.item(row), self._narrow.item(row)
        mask = len(self._slots) - 1
        at, known = wide & mask, False
        while taken := self._slots.item(at):
            known |= self._is(taken - 1, wide, narrow)
            at = (at + 1) & mask
        self._slots[at] = row + 1
        return known

    def _is(self, place: int, wide: int, narrow: int) -> bool:
        return bool(self._wide.item(place) == wide and self._narrow.item(place) == narrow)

    def _same(self, places: Ints, rows: Ints) -> Flags:
        same: Flags = self._wide[places] == self._wide[rows]
        same &= self._narrow[places] == self._narrow[rows]
        return same

    def contains(self, prints: Prints) -> Flags:
        known = np.zeros(len(prints.wide), np.bool_)
        mask = len(self._slots) - 1
        left = np.arange(len(known))
        at = prints.wide & mask
        while len(left):
            taken = self._slots[at]
            occupied = np.flatnonzero(taken)
            left, at = left[occupied], at[occupied]
            places = taken[occupied].astype(np.int64) - 1
            same = (self._wide[places] == prints.wide[left]) & (
                self._narrow[places] == prints.narrow[left]
            )
            known[left[same]] = True
            left, at = left[~same], (at[~same] + 1) & mask
        return known

    def find(self, wide: int, narrow: int) -> Iterator[Known]:
        return map(self._known, self.places(wide, narrow))

    def places(self, wide: int, narrow: int) -> Iterator[int]:
        mask = len(self._slots) - 1
        at = wide & mask
        while taken := self._slots.item(at):
            if self._is(taken - 1, wide, narrow):
                yield taken - 1
            at = (at + 1) & mask

    def _known(self, place: int) -> Known:
        number, ts = self.first + place, self._time(place)
        segment = self.segments[bisect_right(self.segments, number, key=lambda s: s.first) - 1]
        [due] = segment.due(np.array([ts]))
        return Known(number, ts, int(due), segment.window_ms, place in self.repeats)


def _among(chunks: Sequence[_Chunk], prints: Prints) -> Flags:
    """Tell of each id whether one of the chunks holds it."""
    known = np.zeros(len(prints.wide), np.bool_)
    if len(known) > _FEW:
        for chunk in chunks:
            known |= chunk.contains(prints)
        return known
    for row, (wide, narrow) in enumerate(
        zip(prints.wide.tolist(), prints.narrow.tolist(), strict=True)
    ):
        known[row] = any(True for chunk in chunks for _ in chunk.places(wide, narrow))
    return known


def _no_slots(rows: int) -> npt.NDArray[np.uint32]:
    return np.zeros(1 << int(rows * _LEAST_SLOTS).bit_length(), np.uint32)
