"""Memory that forgets: entries outlive a span of a clock that only the data moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

__all__ = ["AgeingDict"]

K = TypeVar("K")
V = TypeVar("V")


class AgeingDict(Generic[K, V]):
    """A dictionary in two generations; the older one is dropped whole.

    An entry stays at least until the clock has advanced by `span` since it was put, and at most
    twice as long. Who needs the exact moment checks it on the entry.

    Parameters
    ----------
    span
        In the unit of the clock, >= 0.

    Examples
    --------
    >>> seen = AgeingDict[str, int](span=10)
    >>> seen.advance(100); seen["a"] = 1
    >>> seen.advance(109); seen.get("a")
    1
    >>> seen.advance(110); seen.advance(120); seen.get("a") is None
    True
    """

    def __init__(self, span: int) -> None:
        self._span = span
        self._started: int | None = None
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def advance(self, clock: int) -> None:
        """Move the clock; never back."""
        if self._started is None:
            self._started = clock
        elif clock - self._started >= self._span:
            both_outlived = clock - self._started >= 2 * self._span
            self._old = {} if both_outlived else self._young
            self._young = {}
            self._started = clock

    def get(self, key: K) -> V | None:
        """Give the entry, or None where there is none."""
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def __setitem__(self, key: K, value: V) -> None:
        self._young[key] = value

    def update(self, entries: Mapping[K, V]) -> None:
        """Put several entries."""
        self._young.update(entries)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
