"""What must be beside what is: any change of an outcome topic is named, none is never an error."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.schemas.codec import WriterSchema, fingerprint, known
from bandstand.schemas.wire import Wire
from bandstand.streams import audit_core, splice
from bandstand.streams.audit_core import Comparison, Difference
from bandstand.streams.join_types import PROGRESS_KEY, Emission, Record, Tail, progress_record
from tests.streams.test_join_core import decision_bytes

WIRE = Wire.single_object()
HEADER = WIRE.header("outcome")
LIMIT = 60
"""Where the decision log ends in these tests."""


class Item(NamedTuple):
    """One record of an outcome topic: which outcome, with whose bytes, or how much is done."""

    source: int
    what: str = "outcome"


def emission(source: int, window: int = 50) -> Emission:
    """Give the outcome of a decision."""
    rules, frame = splice.rules_part(None, window, 0, 0), decision_bytes(f"d{source}", source)
    [value] = splice.defaulted(
        np.array([source]), rules, [frame], len(WIRE.header("decision")), HEADER
    )
    return Emission(f"d{source}".encode(), source, value, None)


def record(offset: int, item: Item) -> Record:
    """Give the record of an outcome topic."""
    if item.what == "progress":
        progress = progress_record(Tail(item.source, 5), 0)
        assert progress is not None
        return Record(offset, 5, PROGRESS_KEY, None, progress.headers or ())
    made = emission(item.source, 51 if item.what == "altered" else 50)
    return Record(offset, made.timestamp, made.key, made.value, ())


def compared(
    expected: Sequence[int],
    found: Sequence[Item],
    seed: int = 0,
    *,
    deleted: bool = False,
    complete: bool = True,
) -> Comparison:
    """Compare, the two sides told piece by piece in any order."""
    pieces = random.Random(seed)
    comparison = Comparison(WIRE, deleted=deleted, complete=complete)
    comparison.judge_from, comparison.limit = 0, LIMIT
    records = [record(offset, item) for offset, item in enumerate(found)]
    emissions = [emission(source) for source in expected]
    while emissions or records:
        if not records or (emissions and pieces.random() < 0.5):
            count = pieces.choice((1, 2, 5, 50))
            told, emissions = emissions[:count], emissions[count:]
            done = expected[-len(emissions)] - 1 if emissions else LIMIT - 1
            comparison.expect(told, done)
        else:
            count = pieces.choice((1, 2, 5, 50))
            comparison.take(records[:count])
            records = records[count:]
            if not records and pieces.random() < 0.5:
                comparison.end()
    comparison.expect([], LIMIT - 1)
    comparison.judge_rest()
    comparison.end()
    assert comparison.closes, comparison.counts
    return comparison


def is_honest(expected: Sequence[int], found: Sequence[Item]) -> bool:
    """Say by the plainest rule whether honest writers can have left this, whole lists in hand."""
    there: list[int] = []
    for item in found:
        largest = max(there, default=-1)
        if item.what == "progress":
            if item.source >= LIMIT or any(
                source <= item.source and source not in there for source in expected
            ):
                return False
            continue
        if item.what == "altered" or item.source not in expected:
            return False
        if item.source > largest:
            there.append(item.source)
        elif item.source not in there:
            return False
    return there == list(expected[: len(there)])


SOURCES = st.lists(st.integers(0, LIMIT - 1), unique=True, min_size=1, max_size=12).map(sorted)


@st.composite
def written(draw: st.DrawFn) -> tuple[list[int], list[Item]]:
    """Draw what one or two honest writers leave: repeats and progress, and the end may lack."""
    expected = draw(SOURCES)
    there = draw(st.integers(0, len(expected)))
    found = [Item(source) for source in expected[:there]]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(found)))
        before = [item.source for item in found[:at] if item.what == "outcome"]
        repeats = draw(st.booleans())
        if before and repeats:
            found.insert(at, Item(draw(st.sampled_from(before))))
        else:
            following = [s for s in expected if s > max(before, default=-1)]
            most = following[0] - 1 if following else LIMIT - 1
            if most >= 0:
                found.insert(at, Item(draw(st.integers(0, most)), "progress"))
    return expected, found


@settings(deadline=None)
@given(written(), st.integers(0, 2**32))
def test_what_honest_writers_leave_is_no_fault(
    lists: tuple[list[int], list[Item]], seed: int
) -> None:
    """Repeats by zombies, progress records and an end that lacks are never an error."""
    expected, found = lists
    assert is_honest(expected, found)
    comparison = compared(expected, found, seed)
    assert comparison.faults == 0, comparison.differences
    assert comparison.counts["equal"] + comparison.counts["pending"] == len(expected)


@settings(max_examples=300, deadline=None)
@given(
    SOURCES,
    st.lists(
        st.builds(
            Item,
            st.integers(0, LIMIT + 3),
            st.sampled_from(("outcome", "outcome", "outcome", "altered", "progress")),
        ),
        max_size=8,
    ),
    st.integers(0, 2**32),
)
def test_anything_else_is_a_fault(expected: list[int], found: list[Item], seed: int) -> None:
    """Any list of outcomes is faulty exactly if no honest writers can have left it."""
    assert (compared(expected, found, seed).faults == 0) == is_honest(expected, found)


@settings(max_examples=200, deadline=None)
@given(written(), st.integers(0, 2**32), st.data())
def test_any_change_is_named(
    lists: tuple[list[int], list[Item]], seed: int, data: st.DataObject
) -> None:
    """One change of what honest writers left is a fault, unless they could have left that, too."""
    expected, found = lists
    changed = list(found)
    at = data.draw(st.integers(0, len(found)))
    how = data.draw(st.sampled_from(("drop", "swap", "alter", "insert")))
    if how == "insert" or at == len(found):
        changed.insert(at, Item(data.draw(st.integers(0, LIMIT + 3))))
    elif how == "drop":
        del changed[at]
    elif how == "alter":
        changed[at] = Item(changed[at].source, "altered")
    else:
        other = data.draw(st.integers(0, len(found) - 1))
        changed[at], changed[other] = changed[other], changed[at]
    assert (compared(expected, changed, seed).faults == 0) == is_honest(expected, changed)


def items(*sources: int) -> list[Item]:
    """Give outcomes."""
    return [Item(source) for source in sources]


def places(comparison: Comparison) -> list[tuple[str, int | None, int | None]]:
    """Give kind, offset and source offset of all differences."""
    return [difference[:3] for difference in comparison.differences]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("found", "differences"),
    [
        (items(1, 2, 6, 9), [("missing", 2, 4)]),
        (items(1, 2, 2, 4, 6, 9), [("repeated", 2, 2)]),
        ([*items(1, 2), Item(4, "altered"), *items(6, 9)], [("altered", 2, 4)]),
        (items(1, 2, 6, 4, 9), [("out_of_order", 3, 4)]),
        (items(1, 2, 3, 4, 6, 9), [("foreign", 2, 3)]),
        ([*items(1, 2, 4, 6, 9), Item(4, "altered")], [("repeat_altered", 5, 4)]),
        (items(1, 2, 4), [("pending", None, 6), ("pending", None, 9)]),
        ([*items(1, 2, 4), Item(6, "progress")], [("missing", 3, 6), ("pending", None, 9)]),
        ([Item(LIMIT, "progress"), *items(1, 2, 4, 6, 9)], [("foreign", 0, LIMIT)]),
    ],
)
def test_each_kind_is_named_with_its_place(
    found: list[Item], differences: list[tuple[str, int | None, int | None]], seed: int
) -> None:
    """Missing, twice, altered, out of order, foreign, cut off: each with its offsets."""
    assert places(compared([1, 2, 4, 6, 9], found, seed)) == differences


@pytest.mark.parametrize("seed", range(10))
def test_an_outcome_from_nowhere_makes_readers_drop_all_that_follows(seed: int) -> None:
    """A source offset that is too large is foreign, and what it hides is named, too."""
    comparison = compared([1, 2, 4], items(1, LIMIT + 5, 2, 4), seed)
    assert places(comparison) == [
        ("foreign", 1, LIMIT + 5),
        ("out_of_order", 2, 2),
        ("out_of_order", 3, 4),
    ]


def test_what_retention_deleted_is_truncated_not_missing() -> None:
    """Where the topic's beginning is gone, nobody says that it was never written."""
    comparison = compared([1, 2, 4, 6], items(4, 2, 6), deleted=True)
    assert places(comparison) == [("truncated", 0, 1), ("truncated", 0, 2), ("repeated", 1, 2)]


def test_outcomes_ahead_of_the_archived_decisions_are_not_judged() -> None:
    """An archive may hold outcomes whose decisions come later; what lies before them must be."""
    comparison = compared([1, 2], items(1, LIMIT, LIMIT + 4), complete=False)
    assert places(comparison) == [("missing", 1, 2)]
    assert comparison.counts["unjudged"] == 2


def test_what_cannot_be_read_is_foreign() -> None:
    """Bytes that are no outcome, and a progress record without a position."""
    comparison = Comparison(WIRE)
    comparison.judge_from = 0
    comparison.take([Record(3, 5, b"x", b"junk", ()), Record(4, 5, b"y", None, ())])
    comparison.take([Record(5, 5, b"z", HEADER + b"\x00\x80", ())])
    assert places(comparison) == [("foreign", 3, None), ("foreign", 4, None), ("foreign", 5, None)]
    assert comparison.differences[0].found == (
        "unreadable (magic: a value begins with 6a 75; allowed: c3 01 (Avro) or 00 (registry)), "
        "4 bytes, CRC-32 06fb9c39, key x, time 5"
    )


def test_a_difference_says_what_was_expected() -> None:
    """An altered outcome comes with what it must be and what it is."""
    [difference] = compared([4], [Item(4, "altered")]).differences
    assert isinstance(difference, Difference)
    assert difference.expected.startswith("defaulted, 0 rewards, ")
    assert difference.expected.endswith(", key d4, time 4")
    assert difference.expected != difference.found


class _Registry:
    """A schema registry that knows each current schema, as id 7."""

    def schema_id(self, name: str) -> int:
        del name
        return 7

    def writer(self, name: str, schema_id: int) -> WriterSchema:
        assert schema_id == 7
        return known(name)[fingerprint(name)]


@pytest.mark.parametrize(
    ("at", "window", "kind"), [(4, 50, "equal"), (5, 50, "altered"), (4, 51, "altered")]
)
def test_another_framing_of_the_same_outcome_is_equal(at: int, window: int, kind: str) -> None:
    """What was written before the schema registry was set is compared field by field."""
    comparison = Comparison(Wire.confluent(_Registry()))
    comparison.judge_from = 0
    key, _, value, _ = emission(4)
    assert value is not None
    framed = Wire.confluent(_Registry()).frame("outcome", value[len(HEADER) :])
    comparison.expect([Emission(key, 4, framed, None)], 4)
    comparison.take([Record(0, at, key, emission(4, window).value, ())])
    assert comparison.counts[kind] == 1


def test_memory_is_bounded_by_what_one_side_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat older than what is remembered is dropped as readers do; nothing else is kept."""
    monkeypatch.setattr(audit_core, "_REMEMBERED", 4)
    comparison = compared(list(range(20)), items(*range(20), 0, 19))
    assert [place[0] for place in places(comparison)] == ["repeated", "repeated"]
    assert len(comparison._seen._young) + len(comparison._seen._old) <= 8


def test_only_the_first_of_a_kind_are_kept() -> None:
    """A topic with many faults costs no more memory than one with few."""
    comparison = compared(list(range(50)), items(49))
    assert (comparison.counts["missing"], len(comparison.differences)) == (49, 20)
