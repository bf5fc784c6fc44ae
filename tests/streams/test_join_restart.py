"""Where an owner stands, and from where the next one reads again, to the record and millisecond."""

from __future__ import annotations

from collections import Counter

from bandstand.streams.join_types import Tail
from tests.streams.join_driver import Owner, Partition, core_of, reading_ahead
from tests.streams.join_logs import LOGS
from tests.streams.join_story import AT, LANE, Story, outcomes_in, reads_all


def _handed_over(story: Story) -> Partition:
    """Give a partition whose owner has read and delivered all, and has said where it stands."""
    partition = Partition(story)
    owner = partition.take_over()
    reads_all(partition, owner)
    partition.progress(owner)
    partition.deliver(owner)
    return partition


def test_a_repeat_of_a_decision_that_a_tick_before_all_others_had_made_valid() -> None:
    """Read again `skew` earlier: without that tick its first record would be refused."""
    before = LANE.lateness + LANE.skew
    story = Story().decides("d", LANE.skew).ticks(-10, before)
    partition = _handed_over(story)
    assert outcomes_in(partition) == [("d", "defaulted", [])]
    story.decides("d", before + 10).ticks(before + 20, 9_000)
    second = partition.take_over()
    assert reads_all(partition, second) == [("d", "defaulted", [])]
    assert (second.decisions, second.refused) == ({"duplicate": 1}, [])


def test_a_reward_that_a_tick_before_all_others_had_made_valid() -> None:
    """Rewards are read again `backward` earlier than decisions, for the oldest that may come."""
    before = LANE.lateness + LANE.backward + LANE.skew
    story = Story().rewards("d", "r", LANE.skew).ticks(-10, before)
    partition = _handed_over(story)
    assert outcomes_in(partition) == []
    story.decides("d", before - LANE.lateness).ticks(before + 20, 9_000)
    second = partition.take_over()
    assert reads_all(partition, second) == [("d", "joined", ["r"])]
    assert (second.rewards, second.refused) == ({"joined": 1}, [])


def test_a_position_lies_before_the_first_decision_without_an_outcome() -> None:
    """Wherever the decision cursor is: none open, some in line, some that wait for a tick."""
    story = Story()
    partition = Partition(story)
    owner = partition.take_over()
    assert owner.core.position() == Tail(-1, None)

    def standing_at(before: int) -> int:
        """Read all, and give the offset up to where everything is done with."""
        reads_all(partition, owner)
        offset, clock = owner.core.position()
        assert clock == AT + before
        return offset

    assert standing_at(0) == 0
    story.unusable("decisions", "magic", "x", AT)
    assert standing_at(0) == 1
    story.decides("first", 10).decides("second", 40).decides("third", 40)
    assert standing_at(0) == 1
    story.ticks(100)
    assert standing_at(0) == 1
    story.decides("fourth", 110).ticks(565)
    assert standing_at(0) == 2
    story.ticks(600)
    assert standing_at(100) == 5
    story.skip("decisions", 3)
    story.ticks(9_000)
    assert standing_at(9_000) == story.records["decisions"][-1].offset == 12


def test_a_position_in_a_stretch_that_is_looked_through_for_a_tick() -> None:
    """It lies before the first decision that was let go of."""
    story = Story()
    story.unusable("decisions", "magic", "x", AT)
    story.decides("a", 10).decides("b", 20)
    partition = Partition(story)
    with reading_ahead(1):
        owner = partition.take_over()
        reads_all(partition, owner)
        assert owner.core.scanning
        assert owner.core.position() == Tail(1, AT)
        assert owner.core.oldest_waiting == AT + 10


def test_a_position_never_falls_behind_the_tail() -> None:
    """A new owner stands where the one before did until it has read beyond, so it can say so."""
    story = Story().decides("a", 10).ticks(100, 1_000).decides("b", 1_001).ticks(9_000)
    partition = Partition(story)
    for log in LOGS:
        partition.appear(log)
    tail = Tail(3, AT + 1_000)
    for start in (0, 3, 4):
        owner = Owner(core_of(LANE, tail, (start, 0)))
        assert owner.core.position() == tail
        while owner.core.next_decision < 4:
            partition.read(owner, "decisions", 1)
            assert owner.core.position() == tail
    owner = Owner(core_of(LANE, tail))
    assert reads_all(partition, owner) == [("b", "defaulted", [])]
    assert owner.core.position() == Tail(5, AT + 9_000)
    assert owner.decisions == Counter(defaulted=1)
