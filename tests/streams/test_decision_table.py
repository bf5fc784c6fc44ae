"""The table of decisions against a plain list, and what it weighs."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.streams import decision_table
from bandstand.streams.decision_table import DecisionTable, Known, Prints

LATENESS = 100
IDS = st.sampled_from([bytes([letter]) for letter in range(65, 75)])
FAR = -(2**40)


class Batch(NamedTuple):
    """Decisions between two ticks."""

    before: int | None
    window: int
    grace: int
    ids: list[bytes]
    times: list[int]


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    """Draw what a log brings between its ticks, some of it from another century."""
    clock = 10_000
    found: list[Batch] = []
    for _ in range(draw(st.integers(1, 12))):
        near = st.integers(clock - LATENESS, clock + 30)
        times = near if found else near | st.just(FAR)
        ids = draw(st.lists(IDS, max_size=6))
        found.append(
            Batch(
                clock if found else draw(st.sampled_from([clock, None])),
                draw(st.sampled_from([10, 50])),
                draw(st.sampled_from([0, 5])),
                ids,
                [draw(times) for _ in ids],
            )
        )
        clock += draw(st.sampled_from([0, 1, 20, 60, 300]))
    return found


@settings(max_examples=200, deadline=None)
@given(batches(), st.booleans())
def test_it_knows_what_a_list_knows(drawn: list[Batch], collide: bool) -> None:
    """Ids that come again are known, with their times, as long as anything can ask for them."""
    with pytest.MonkeyPatch.context() as patch:
        if collide:  # all in a row of one hash table: every probe is a long one
            patch.setattr(Prints, "of", classmethod(_alike))
        table = DecisionTable(LATENESS)
        everything: list[tuple[bytes, Known]] = []
        for batch in drawn:
            _add(table, everything, batch)
            clock = batch.before
            if clock is not None:
                table.forget(clock, clock)
            for key in {key for key, _ in everything}:
                expected = [known for other, known in everything if other == key]
                found = table.find(key) if not collide else []
                assert found == expected[len(expected) - len(found) :]
                for lost in expected[: len(expected) - len(found)] if not collide else []:
                    assert clock is not None
                    assert lost.ts < clock - LATENESS
                    assert lost.due + LATENESS <= clock
    assert len(table) <= len(everything)


def _alike(_cls: type[Prints], ids: list[bytes]) -> Prints:
    wide = np.full(len(ids), 7, np.int64)
    return Prints(wide, np.array([key[0] for key in ids], np.uint32))


def _add(table: DecisionTable, everything: list[tuple[bytes, Known]], batch: Batch) -> None:
    before, window, grace, ids, times = batch
    table.open(before=before, window_ms=window, grace_ms=grace)
    held = {key for key, _ in everything[len(everything) - len(table) :]}
    first, known = table.add(Prints.of(ids), np.array(times, np.int64))
    assert first == len(everything)
    for row, (key, ts) in enumerate(zip(ids, times, strict=True)):
        closes = ts + window if before is None else max(ts + window, before)
        everything.append((key, Known(first + row, ts, closes + grace, window, False)))
    marked = {key for key, seen in zip(ids, known.tolist(), strict=True) if seen}
    assert marked == {key for key in ids if key in held or ids.count(key) > 1}


@pytest.fixture
def two_chunks() -> DecisionTable:
    """Give a table where "a" of time 10, due at 560, may be forgotten and "b" may not yet."""
    table = DecisionTable(lateness_ms=1_000)
    for key, before, ts in ((b"a", 0, 10), (b"b", 600, 600)):
        table.open(before=before, window_ms=500, grace_ms=50)
        table.add(Prints.of([key]), np.array([ts]))
    return table


@pytest.mark.parametrize(("watermark", "there"), [(1_010, 1), (1_011, 0)])
def test_a_decision_is_kept_while_another_may_repeat_it(
    two_chunks: DecisionTable, watermark: int, there: int
) -> None:
    """A repeat counts as one up to `lateness` later, that millisecond included."""
    two_chunks.forget(watermark, 99_000)
    assert (len(two_chunks.find(b"a")), len(two_chunks.find(b"b"))) == (there, 1)


@pytest.mark.parametrize(("watermark", "there"), [(None, 1), (1_559, 1), (1_560, 0)])
def test_a_decision_is_kept_while_a_reward_may_be_late_for_it(
    two_chunks: DecisionTable, watermark: int | None, there: int
) -> None:
    """A reward at a tick `lateness` behind the due time meets it no more."""
    two_chunks.forget(99_000, watermark)
    assert (len(two_chunks.find(b"a")), len(two_chunks.find(b"b"))) == (there, 1)


def test_a_mark_in_a_later_chunk_stays_there(two_chunks: DecisionTable) -> None:
    """Numbers go on from chunk to chunk."""
    two_chunks.mark_repeat(1)
    assert [[k.repeat for k in two_chunks.find(key)] for key in (b"a", b"b")] == [[False], [True]]


def test_a_sparse_log_that_waits_for_a_long_window_has_few_chunks() -> None:
    """Decisions further apart than `lateness` cost their rows, not a hash table each."""
    table = DecisionTable(LATENESS)
    for number in range(2_000):
        before = number * 10 * LATENESS
        table.open(before=before, window_ms=10**9, grace_ms=0)
        table.add(Prints.of([b"%d" % number]), np.array([before]))
        table.forget(before, 0)
    assert len(table) == 2_000
    assert table.nbytes < 400_000
    assert [known.ts for known in table.find(b"1234")] == [1_234 * 10 * LATENESS]
    table.forget(10**8, 10**10)
    assert len(table) < 2_000


def test_decisions_of_one_chunk_keep_the_settings_of_their_own_ticks() -> None:
    """Windows may change at any tick."""
    table = DecisionTable(LATENESS)
    for key, window in ((b"a", 10), (b"b", 20), (b"c", 30)):
        table.open(before=0, window_ms=window, grace_ms=0)
        table.add(Prints.of([key, key]), np.array([1, 2]))
    found = [known for key in (b"a", b"b", b"c") for known in table.find(key)]
    assert [known.window_ms for known in found] == [10, 10, 20, 20, 30, 30]
    assert [known.due for known in found] == [11, 12, 21, 22, 31, 32]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [(lambda _: 7, zlib.crc32), (lambda key: key[0] << 32, lambda _: 7)],
    ids=["the wide one", "the narrow one and the slot"],
)
def test_ids_that_agree_in_one_of_their_two_hashes_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, wide: Callable[[bytes], int], narrow: Callable[[bytes], int]
) -> None:
    """Else a stranger's reward would be late, and a stranger's decision a duplicate."""
    monkeypatch.setattr(decision_table, "hash", wide, raising=False)
    monkeypatch.setattr(decision_table, "zlib", SimpleNamespace(crc32=narrow))
    table = DecisionTable(LATENESS)
    table.open(before=0, window_ms=10, grace_ms=0)
    assert not table.add(Prints.of([b"a", b"b"]), np.array([1, 2]))[1].any()
    assert not table.add(Prints.of([b"c"]), np.array([3]))[1].any()
    assert table.contains(Prints.of([b"b", b"d", b"c"])).tolist() == [True, False, True]
    assert [[known.ts for known in table.find(key)] for key in (b"a", b"b", b"d")] == [[1], [2], []]


@pytest.mark.parametrize("before", [None, 1_700_000_000_000])
def test_times_far_from_the_others_are_kept_to_the_millisecond(before: int | None) -> None:
    """Before the first tick of a log a decision may lie centuries back."""
    table = DecisionTable(LATENESS)
    segment = table.open(before=before, window_ms=10, grace_ms=5)
    origin = 1_700_000_000_000
    deltas = (0, -(2**31) - 1, -(2**31), 2**31 - 1, 2**31, 2**32, -(2**41), 0)
    times = [origin + delta for delta in deltas]
    for at in range(0, len(times), 2):  # rows of later batches count from the chunk's first
        ids = [f"{number}".encode() for number in range(at, at + 2)]
        table.add(Prints.of(ids), np.array(times[at : at + 2]))
    found = [known for number in range(len(times)) for known in table.find(f"{number}".encode())]
    assert [known.ts for known in found] == times
    assert [known.due for known in found] == segment.due(np.array(times)).tolist()


def test_a_mark_stays_with_its_decision() -> None:
    """Which of two decisions of an id was the repeat is told later."""
    table = DecisionTable(LATENESS)
    table.open(before=None, window_ms=10, grace_ms=0)
    table.add(Prints.of([b"a", b"b", b"a"]), np.array([1, 1, 1]))
    table.mark_repeat(2)
    assert [known.repeat for known in table.find(b"a")] == [False, True]


def test_a_decision_weighs_what_is_promised() -> None:
    """Sixteen bytes and the slots of a hash table, for half of `lateness` more than must be."""
    table = DecisionTable(lateness_ms=60_000)
    rate, heaviest = 2_000, 0
    for second in range(300):
        clock = second * 1_000
        table.open(before=clock, window_ms=10_000, grace_ms=0)
        ids = [f"decision-{second}-{number}".encode() for number in range(rate)]
        table.add(Prints.of(ids), np.full(rate, clock))
        table.forget(clock, clock + 10_000)
        heaviest = max(heaviest, table.nbytes)
    assert len(table) >= rate * 60
    assert 16 * rate * 60 < heaviest < 45 * rate * 60
