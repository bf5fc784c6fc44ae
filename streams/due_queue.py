"""Decisions between being read and being due: columns, in the order of their log."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bandstand.streams.join_types import Record
from bandstand.streams.reward_index import Judged

__all__ = ["Decisions", "DueQueue", "Line"]

Ints = npt.NDArray[np.int64]

_LINE_BYTES = 2_500
"""What a line takes besides its decisions' bytes: in a sparse log each decision has its own."""


def _none() -> Ints:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions as columns.

    Parameters
    ----------
    offsets, times, keys, values, frames, sizes
        One entry a decision; times in milliseconds, values as they came, frames as the current
        schema writes them: the same objects where they came like that; sizes are the frames'.
    """

    offsets: Ints = field(default_factory=_none)
    times: Ints = field(default_factory=_none)
    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    sizes: Ints = field(default_factory=_none)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes of all frames."""
        return int(self.sizes.sum())

    def since(self, offset: int) -> int:
        """Give the first row of an offset or a larger one."""
        return int(self.offsets.searchsorted(offset))

    def record(self, row: int) -> Record:
        """Give a row as it came."""
        at, ts = int(self.offsets[row]), int(self.times[row])
        return Record(at, ts, self.keys[row], self.values[row], ())

    def cut(self, start: int, end: int) -> Decisions:
        """Give the rows from `start` up to, not including, `end`."""
        if start == 0 and end == len(self):
            return self
        return Decisions(
            self.offsets[start:end],
            self.times[start:end],
            self.keys[start:end],
            self.values[start:end],
            self.frames[start:end],
            self.sizes[start:end],
        )

    def pick(self, rows: Ints) -> Decisions:
        """Give some rows."""
        return Decisions(
            self.offsets[rows],
            self.times[rows],
            [self.keys[row] for row in rows.tolist()],
            [self.values[row] for row in rows.tolist()],
            [self.frames[row] for row in rows.tolist()],
            self.sizes[rows],
        )

    def __add__(self, more: Decisions) -> Decisions:
        if not self:
            return more
        if not more:
            return self
        return Decisions(
            np.concatenate((self.offsets, more.offsets)),
            np.concatenate((self.times, more.times)),
            self.keys + more.keys,
            self.values + more.values,
            self.frames + more.frames,
            np.concatenate((self.sizes, more.sizes)),
        )


@dataclass(slots=True)
class Line:
    """Decisions between two ticks that wait for the reward log.

    Parameters
    ----------
    decisions
        At least one.
    due
        When each may leave, milliseconds.
    numbers
        Their places in the order of the table of decisions.
    before
        Largest tick before them; None before the first one.
    window_ms
        The attribution window that applies.
    rules
        What their outcomes say of the rules, as bytes.
    """

    decisions: Decisions
    due: Ints
    numbers: Ints
    before: int | None
    window_ms: int
    rules: bytes
    at: int = 0
    """The first row that still waits."""
    nbytes: int = field(init=False)
    _reached: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.nbytes = self.decisions.nbytes + _LINE_BYTES
        # One that isn't due holds up those behind it: a row leaves at the largest due time so far.
        self._reached = np.maximum.accumulate(self.due)

    def judged(self, row: int) -> tuple[bytes, Judged, int | None]:
        """Give what rewards are judged by: the row's id, its times, and the tick before it."""
        decisions = self.decisions
        judged = Judged(int(decisions.times[row]), int(self.due[row]), self.window_ms)
        return decisions.keys[row], judged, self.before

    def leaving(self, reached: int) -> int:
        """Give the row before which all may leave once the reward log has reached a tick."""
        return int(self._reached.searchsorted(reached, "right"))


class DueQueue:
    """Lines in the order of their log."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque()
        self._count = 0
        self.nbytes = 0
        """Bytes of the lines that aren't done with."""

    def __len__(self) -> int:
        return self._count

    @property
    def head(self) -> Line | None:
        """The line whose turn it is."""
        try:
            return self._lines[0]
        except IndexError:
            return None

    def append(self, line: Line) -> None:
        """Put a line behind the others."""
        self._lines.append(line)
        self._count += len(line.decisions)
        self.nbytes += line.nbytes

    def leaving(self, reached: int | None) -> Iterator[tuple[Line, int, int]]:
        """Take out what is due at a tick of the reward log: lines, each with first and last row."""
        while reached is not None and self._lines:
            line = self._lines[0]
            start, end = line.at, line.leaving(reached)
            if start == end:
                return
            self._count -= end - start
            if end == len(line.decisions):
                self._lines.popleft()
                self.nbytes -= line.nbytes
            line.at = end
            yield line, start, end
