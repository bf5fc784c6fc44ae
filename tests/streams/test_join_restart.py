"""Where an owner stands, and from where the next one reads again, to the record and millisecond."""

from __future__ import annotations

from collections import Counter

import pytest

from bandstand.streams.join_types import Log, Tail
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


def test_what_an_owner_before_has_refused_is_refused_again_and_counted_once() -> None:
    """Its letter may be lost, its count isn't; what comes behind the tail is the new owner's."""
    story = Story().ticks(100)
    for log in LOGS:
        story.unusable(log, "magic", "x", AT + 800)  # what is read again begins here
    story.ticks(900, 2_000)
    for log in LOGS:
        story.unusable(log, "magic", "x", AT + 2_000)
    partition = _handed_over(story)
    story.ticks(2_001)
    for log in LOGS:
        story.unusable(log, "magic", "x", AT + 2_001)
    story.ticks(9_000)
    second = partition.take_over()
    reads_all(partition, second)
    assert (second.decisions, second.rewards) == ({"invalid": 1}, {"invalid": 1})
    assert sorted(second.refused) == sorted(story.judged().refused)


@pytest.mark.parametrize(
    ("log", "tick", "back", "event", "refused"),
    [
        ("decisions", 699, 600, 999, False),
        ("decisions", 600, 699, 1_000, True),
        ("rewards", 499, 400, 799, False),
        ("rewards", 400, 499, 800, True),
    ],
)
def test_an_event_that_is_too_old_to_matter_is_what_an_owner_before_said(
    log: Log, tick: int, back: int, event: int, refused: bool
) -> None:
    """A tick that isn't read again may have made it valid: no letter says that it wasn't."""
    story = Story().ticks(tick)
    if log == "decisions":
        story.decides("d", event)
    else:
        story.rewards("d", "r", event)
    partition = _handed_over(story.ticks(back, 2_000))
    owner, second = Owner(core_of(LANE)), partition.take_over()
    for reader in (owner, second):
        reads_all(partition, reader)
        assert bool(reader.refused) is refused


def test_a_decision_behind_the_tail_that_is_too_old_is_refused() -> None:
    """No owner before has said anything of it."""
    story = Story().ticks(2_000)
    partition = _handed_over(story)
    story.decides("d", 999).ticks(9_000)
    second = partition.take_over()
    reads_all(partition, second)
    assert second.decisions == {"invalid": 1}
    assert second.refused == [("decisions", 2, "clock")]


def test_what_an_owner_before_has_counted_is_not_counted_again() -> None:
    """A repeat right before the tail, and a reward that is in an outcome there."""
    story = Story().decides("d", 10).decides("d", 10).decides("e", 110).rewards("d", "r", 20)
    partition = _handed_over(story.ticks(100, 600))
    assert outcomes_in(partition) == [("d", "joined", ["r"])]
    story.ticks(9_000)
    second = partition.take_over()
    assert reads_all(partition, second)[1:] == [("e", "defaulted", [])]
    assert (second.decisions, second.rewards) == ({"defaulted": 1}, {})
