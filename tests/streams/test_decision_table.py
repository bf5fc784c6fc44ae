"""The table of decisions against a plain list, and what it weighs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
