"""Which records were seen already: offsets by partition, in eight bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np

__all__ = ["OffsetSet"]

_RECENT = 16_384


class OffsetSet:
    """A set of places in logs.

    Examples
    --------
    >>> seen = OffsetSet()
    >>> seen.add("a.rewards", 0, 7), seen.add("a.rewards", 0, 7), seen.add("a.rewards", 1, 7)
    (True, False, True)
    >>> ("a.rewards", 1, 7) in seen, len(seen)
    (True, 2)
    """

    def __init__(self) -> None:
        self._recent: dict[tuple[str, int], set[int]] = {}
        self._sorted: dict[tuple[str, int], array[int]] = {}
        self._length = 0

    def add(self, topic: str, partition: int, offset: int) -> bool:
        """Put a place in; tell whether it is new."""
        if (topic, partition, offset) in self:
            return False
        recent = self._recent.setdefault((topic, partition), set())
        recent.add(offset)
        self._length += 1
        if len(recent) >= _RECENT:
            self._merge((topic, partition))
        return True

    def __contains__(self, place: tuple[str, int, int]) -> bool:
        log, offset = place[:2], place[2]
        if offset in self._recent.get(log, ()):
            return True
        known = self._sorted.get(log)
        if known is None:
            return False
        at = bisect_left(known, offset)
        return at < len(known) and known[at] == offset

    def __len__(self) -> int:
        return self._length

    def _merge(self, log: tuple[str, int]) -> None:
        recent = np.fromiter(self._recent.pop(log), np.int64)
        known = np.frombuffer(self._sorted.get(log, array("q")), np.int64)
        merged = np.sort(np.concatenate([known, recent]), kind="stable")
        self._sorted[log] = array("q", merged.tobytes())
