"""How long rewards take: counts by delay, in bounded memory, to choose a window from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["NO_TIME", "DelayHistogram", "decision_times"]

NO_TIME: Final = -1
"""What `decision_times` gives for an identity without a time."""

_UUID7 = "(?i)^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_RATIO = 1.05
_LARGEST_MS = 100 * 86_400_000


def decision_times(ids: pa.Array) -> npt.NDArray[np.int64]:
    """Give the times that identities of decisions carry, milliseconds; `NO_TIME` for the others.

    Parameters
    ----------
    ids
        Texts; those of them that are UUIDs of version 7 carry a time.

    Examples
    --------
    >>> decision_times(pa.array(["019ab697-e800-7000-8000-000000000000", "order-7"])).tolist()
    [1764000000000, -1]
    """
    times = np.full(len(ids), NO_TIME, np.int64)
    rows = np.flatnonzero(pc.match_substring_regex(ids, _UUID7).to_numpy(zero_copy_only=False))
    texts = ids.take(pa.array(rows)).to_pylist()
    times[rows] = [int(text[:8] + text[9:13], 16) for text in texts]
    return times


class DelayHistogram:
    """Counts of delays, a reward's time less its decision's.

    Buckets are five percent wide, so quantiles are right to five percent; shares at the marks are
    exact.

    Parameters
    ----------
    marks
        Delays at which shares are asked for, milliseconds; any sign.

    Examples
    --------
    >>> delays = DelayHistogram([0, 60_000])
    >>> delays.add(np.array([-5, 10, 59_999, 60_000]))
    >>> delays.count, delays.between(0, 60_000), delays.between(None, 0)
    (4, 2, 1)
    >>> 59_999 <= delays.quantile(1.0) <= 63_000
    True
    """

    def __init__(self, marks: Sequence[int]) -> None:
        steps = int(np.ceil(np.log(_LARGEST_MS) / np.log(_RATIO)))
        grid = np.ceil(_RATIO ** np.arange(steps + 1)).astype(np.int64)
        self._edges = np.unique(np.concatenate([grid, -grid, [0], np.asarray(marks, np.int64)]))
        self._counts = np.zeros(len(self._edges) + 1, np.int64)

    @property
    def count(self) -> int:
        """How many delays were added."""
        return int(self._counts.sum())

    def add(self, delays: npt.NDArray[np.int64]) -> None:
        """Count delays, milliseconds."""
        buckets = np.searchsorted(self._edges, delays, side="right")
        self._counts += np.bincount(buckets, minlength=len(self._counts))

    def between(self, first: int | None, end: int | None) -> int:
        """Count delays from `first` up to, not including, `end`; both marks, or None for no end."""
        begin = 0 if first is None else self._edge(first) + 1
        stop = len(self._counts) if end is None else self._edge(end) + 1
        return int(self._counts[begin:stop].sum())

    def quantile(self, share: float) -> float:
        """Give the delay, milliseconds, that a share of all doesn't exceed; within five percent.

        Parameters
        ----------
        share
            In (0, 1]; there must be a delay.
        """
        upto = np.cumsum(self._counts)
        bucket = int(np.searchsorted(upto, share * upto[-1], side="left"))
        low, high = max(bucket - 1, 0), min(bucket, len(self._edges) - 1)
        before = upto[bucket] - self._counts[bucket]
        inside = (share * upto[-1] - before) / self._counts[bucket]
        return float(self._edges[low] + inside * (self._edges[high] - self._edges[low]))

    def _edge(self, mark: int) -> int:
        at = int(np.searchsorted(self._edges, mark))
        if self._edges[at] != mark:
            raise ValueError(f"{mark} is no mark of this histogram")
        return at
