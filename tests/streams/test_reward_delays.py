"""Histograms of delays, against the lists that they stand for."""

from __future__ import annotations

import math
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandstand.serving.ids import TimeOrderedIds
from bandstand.streams.reward_delays import NO_TIME, DelayHistogram, decision_times

MARKS = [-500, 0, 1_000, 60_000, 600_000]
DELAYS = st.lists(st.integers(-(2**40), 2**40) | st.sampled_from(MARKS), min_size=1, max_size=50)


@given(DELAYS, DELAYS)
def test_shares_are_exact_and_quantiles_close(first: list[int], second: list[int]) -> None:
    """Between any marks the count is exact; a quantile lies within five percent of the value."""
    histogram = DelayHistogram(MARKS)
    for part in (first, second):
        histogram.add(np.asarray(part, np.int64))
    delays = sorted(first + second)
    assert histogram.count == len(delays)
    bounds: list[int | None] = [None, *MARKS, None]
    for i, begin in enumerate(bounds[:-1]):
        for end in bounds[i + 1 :]:
            counted = [
                d for d in delays if (begin is None or d >= begin) and (end is None or d < end)
            ]
            assert histogram.between(begin, end) == len(counted)
    for share in (0.1, 0.5, 1.0):
        true = delays[math.ceil(share * len(delays)) - 1]
        within = min(abs(true), 100 * 86_400_000)  # beyond a hundred days there is one bucket
        assert abs(histogram.quantile(share)) >= within / 1.06 - 1
        if abs(true) < 100 * 86_400_000:
            assert abs(histogram.quantile(share) - true) <= 0.06 * abs(true) + 1


def test_only_marks_can_be_asked_for() -> None:
    """A share at another delay would be a guess, so it is refused."""
    with pytest.raises(ValueError, match="999 is no mark"):
        DelayHistogram(MARKS).between(0, 999)


def test_identities_of_version_7_tell_their_time() -> None:
    """Ids as the client makes them give back their time; all else has none."""
    ids = TimeOrderedIds()
    times = [1_764_000_000_000 + i for i in range(5)]
    made = [ids.make(ts) for ts in times]
    others = ["", "order-7", str(uuid.uuid4()), made[0][:-1], f"{made[0]}0", f"x{made[0][1:]}"]
    texts = [*made, made[0].upper(), *others]
    found = decision_times(pa.array(texts)).tolist()
    assert found == [*times, times[0], *[NO_TIME] * len(others)]
    assert decision_times(pa.array([], pa.string())).tolist() == []
