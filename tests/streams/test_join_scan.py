"""Stretches without ticks, longer than is read ahead: let go of, looked through, and read again."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from bandstand.streams import join_core
from tests.streams.join_driver import Owner, Partition, reading_ahead
from tests.streams.join_logs import LOGS
from tests.streams.join_story import AT, Story, outcomes_in, reads_all


def _reads_by(most: int, partition: Partition, owner: Owner | None = None) -> Owner:
    """Let an owner, or a new one, read all that is there, so many records at once, and deliver."""
    owner = owner or partition.take_over()
    for log in LOGS:
        partition.appear(log)
    for _ in range(100):
        if not sum(owner.wants(log) and partition.read(owner, log, most) for log in LOGS):
            partition.deliver(owner)
            return owner
    raise AssertionError("it reads the same again and again")


@pytest.mark.parametrize("most", [1, 2, 3, 5, 100])
def test_what_is_unusable_in_a_stretch_that_is_read_twice_is_refused_once(most: int) -> None:
    """Be it before the first decision, before or behind the end of what was read ahead."""
    story = Story()
    story.unusable("decisions", "truncated", "x", AT + 1)
    story.unusable("rewards", "truncated", "x", AT + 1)
    story.decides("a", 10).decides("b", 20).decides("c", 30)
    for fault in ("magic", "tick", "key", "tick", "timestamp"):
        story.unusable("decisions", fault, "x", AT + 31)
    story.decides("d", 40)
    story.unusable("decisions", "empty", "x", AT + 41)
    story.ticks(100)
    story.unusable("decisions", "tick", "x", AT + 101)
    story.ticks(9_000)
    partition = Partition(story)
    with reading_ahead(2):
        owner = _reads_by(most, partition)
    expected = story.judged()
    assert sorted(owner.refused) == sorted(expected.refused)
    assert owner.decisions == {"defaulted": 4, "invalid": 8}
    assert partition.written() == expected.outcomes


def test_the_tick_that_ends_a_stretch_is_the_first_readable_one() -> None:
    """Its settings apply to all of the stretch and to nothing behind it, however it is read."""
    story = Story().rewards("a", "r", 49).rewards("b", "r", 60).rewards("c", "r", 300)
    story.decides("a", 10).decides("b", 20)
    story.unusable("decisions", "tick", "x", AT + 21)
    story.ticks(100, window=40, grace=0).decides("c", 110).ticks(120, window=200).ticks(9_000)
    partition = Partition(story)
    with reading_ahead(1):
        owner = partition.take_over()
        for log in LOGS:
            partition.appear(log)
        partition.read(owner, "decisions", 3)
        assert (owner.core.scanning, owner.core.waiting) == (True, 0)
        partition.read(owner, "decisions", 100)
        assert (owner.core.scanning, owner.core.next_decision) == (False, 1)
        _reads_by(1, partition, owner)
    told = outcomes_in(partition)
    assert told == [("a", "joined", ["r"]), ("b", "defaulted", []), ("c", "joined", ["r"])]
    assert partition.written() == story.judged().outcomes
    assert owner.refused == [("decisions", 3, "tick")]


def test_a_second_stretch_is_looked_through_like_the_first() -> None:
    """What is unusable there is refused, too, once."""
    story = Story()
    for number in range(2):
        at = 100 * number
        story.decides(f"a{number}", at + 10).decides(f"b{number}", at + 20)
        story.unusable("decisions", "tick", "x", AT + at + 31)
        story.decides(f"c{number}", at + 40).ticks(at + 100)
    story.ticks(9_000)
    partition = Partition(story)
    with reading_ahead(1):
        owner = _reads_by(1, partition)
    assert sorted(owner.refused) == sorted(story.judged().refused)
    assert partition.written() == story.judged().outcomes


@pytest.mark.parametrize(("spare", "scanning"), [(1, True), (0, False)])
def test_how_many_decisions_are_kept_until_a_tick_comes(spare: int, scanning: bool) -> None:
    """As many as may be read ahead, and not one more."""
    story = Story().decides("a", 10).decides("b", 20).decides("c", 30)
    partition = Partition(story)
    with reading_ahead(3 - spare):
        owner = _reads_by(100, partition)
    assert (owner.core.scanning, owner.core.waiting) == (scanning, 0 if scanning else 3)


@pytest.mark.parametrize(("spare", "scanning"), [(1, True), (0, False)])
def test_how_many_bytes_of_decisions_are_kept_until_a_tick_comes(
    spare: int, scanning: bool
) -> None:
    """Few large decisions are let go of as many small ones are, and none is lost."""
    story = Story()
    story.unusable("decisions", "tick", "x", AT + 1)
    story.decides("a", 10, 400).decides("b", 20, 500)
    sizes = [len(r.value) for r in story.records["decisions"] if r.value is not None]
    story.decides("c", 30).ticks(100, 9_000)
    partition = Partition(story)
    with patch.object(join_core, "_MAX_WAITING_BYTES", sum(sizes) - spare):
        owner = partition.take_over()
        for log in LOGS:
            partition.appear(log)
        partition.read(owner, "decisions", 4)
        assert owner.core.scanning is scanning
        assert [d for d, _, _ in reads_all(partition, owner)] == ["a", "b", "c"]
    assert partition.written() == story.judged().outcomes
    assert owner.refused == [("decisions", 1, "tick")]
