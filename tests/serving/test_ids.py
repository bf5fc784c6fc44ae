from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from bandstand.serving.ids import TimeOrderedIds


@given(st.lists(st.integers(0, 2**48 - 5_000), min_size=1, max_size=50))
def test_ids_are_version_7_and_grow_whatever_the_clock_does(times: list[int]) -> None:
    """Each identity is a UUIDv7 greater than the one before, also when the clock steps back."""
    ids = TimeOrderedIds()
    made = [ids.make(ts) for ts in times]
    assert made == sorted(set(made))
    for text in made:
        assert str(uuid.UUID(text)) == text
        assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (7, uuid.RFC_4122)


def test_the_time_stands_in_the_first_48_bits() -> None:
    """An identity says when it was made, to the millisecond."""
    assert uuid.UUID(TimeOrderedIds().make(1_764_000_000_123)).int >> 80 == 1_764_000_000_123


def test_ids_of_one_millisecond_and_many_threads_are_distinct() -> None:
    """A full counter runs ahead into the next millisecond instead of beginning anew."""
    ids = TimeOrderedIds()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(ids.make, [1_764_000_000_000] * 10_000))
    assert len(set(made)) == 10_000
