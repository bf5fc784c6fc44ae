"""Which log the join asks for, and how much it holds: neither log may hold up the other."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from bandstand.streams import due_queue, join_core
from tests.streams.join_driver import Owner, Partition, reading_ahead
from tests.streams.join_logs import LOGS
from tests.streams.join_oracle import Lane
from tests.streams.join_story import AT, GRACE, WINDOW, Story


def _with(story: Story, decisions: int, rewards: int) -> Owner:
    """Give an owner that has read so many records of each log."""
    partition = Partition(story)
    owner = partition.take_over()
    for log, most in zip(LOGS, (decisions, rewards), strict=True):
        partition.appear(log)
        if most:
            partition.read(owner, log, most)
    return owner


@pytest.mark.parametrize(
    ("decisions", "rewards", "wanted"),
    [
        (0, 0, False),  # nothing says yet how far
        (0, 1, False),
        (1, 0, True),  # nobody waits: up to the decision log's last tick, 0
        (1, 1, False),
        (2, 1, False),  # "a" waits for its own tick, not for rewards
        (3, 0, True),  # "a" is due at 560
        (3, 2, True),  # 559
        (3, 3, False),  # 560: it is out, and nobody waits behind the tick at 100
        (6, 3, False),
        (7, 3, True),  # "b" is due at 651
        (7, 4, True),  # 650
        (7, 5, True),  # 651: it is out, "c" is due at 660, whatever comes behind it
        (7, 6, True),  # 659
        (7, 7, True),  # 660: nobody waits, up to the tick at 1,000
        (7, 8, True),  # 999
        (7, 9, False),
    ],
)
def test_rewards_are_read_up_to_what_the_next_decision_needs(
    decisions: int, rewards: int, wanted: bool
) -> None:
    """Not a tick further, or memory grows; not a tick less, or nothing goes on."""
    story = Story().decides("a", 10)
    story.tick("decisions", AT + 100, WINDOW, GRACE)
    story.decides("b", 101).decides("c", 110).decides("early", 50)
    story.tick("decisions", AT + 1_000, WINDOW, GRACE)
    for time in (559, 560, 650, 651, 659, 660, 999, 1_000):
        story.tick("rewards", AT + time, WINDOW, GRACE)
    assert _with(story, decisions, rewards).core.wants_rewards is wanted


@pytest.mark.parametrize(("spare", "wanted"), [(0, False), (1, True)])
def test_so_many_decisions_are_read_ahead(spare: int, wanted: bool) -> None:
    """Those in line count, and those that wait for their tick."""
    story = Story().decides("a", 10).decides("b", 20).ticks(100).decides("c", 110)
    with reading_ahead(3 + spare):
        assert _with(story, decisions=5, rewards=0).core.wants_decisions is wanted


@pytest.mark.parametrize(("spare", "wanted"), [(0, False), (1, True)])
def test_so_many_bytes_of_decisions_are_read_ahead(spare: int, wanted: bool) -> None:
    """Large ones fill the memory long before they are many; each stretch between ticks counts."""
    story = Story().decides("a", 10, 700).ticks(100).decides("b", 110, 600).ticks(200)
    story.decides("c", 210, 500)
    size = sum(len(record.value or b"") for record in story.records["decisions"])
    lines = 2 * due_queue._LINE_BYTES
    with patch.object(join_core, "_MAX_WAITING_BYTES", size + lines + spare):
        owner = _with(story, decisions=6, rewards=0)
        assert owner.core.wants_decisions is wanted
        story.ticks(600)  # "a" is out, and makes room
        partition = Partition(story)
        partition.appear("rewards")
        partition.read(owner, "rewards", 100)
        assert owner.core.wants_decisions
        assert owner.core.waiting == 2


def test_decisions_are_read_on_for_their_tick_however_many_there_are() -> None:
    """Where none is in line, nothing but the decision log can bring the join on."""
    story = Story().decides("a", 10).decides("b", 20)
    with reading_ahead(2), patch.object(join_core, "_MAX_WAITING_BYTES", 1_000_000):
        assert _with(story, decisions=3, rewards=1).core.wants_decisions
    with reading_ahead(1):
        core = _with(story, decisions=3, rewards=1).core
        assert core.scanning
        assert core.wants_decisions


def test_rewards_that_are_two_hours_behind() -> None:
    """The core asks for rewards alone, holds what it may, and all comes out in the end."""
    lane = Lane(lateness=3_600_000, backward=0, skew=60_000, max_outcome_bytes=1_000)
    story, minute = Story(lane), 60_000
    for number in range(120):
        at = number * minute
        story.decides(f"a{number}", at + 1).decides(f"b{number}", at + 2)
        story.rewards(f"b{number}", "r", at + 3).ticks(at + minute)
    story.ticks(200 * minute)
    partition = Partition(story)
    ahead, batch = 20, 7
    with reading_ahead(ahead):
        owner = partition.take_over()
        partition.appear("decisions")

        def read_what_is_wanted() -> None:
            while sum(owner.wants(log) and partition.read(owner, log, batch) for log in LOGS):
                assert owner.core.waiting < ahead + batch

        read_what_is_wanted()
        while not partition.complete:
            if owner.core.next_decision < partition.end["decisions"]:
                assert (owner.wants("decisions"), owner.wants("rewards")) == (False, True)
                assert owner.core.waiting >= ahead
            partition.appear("rewards", batch)
            read_what_is_wanted()
    partition.deliver(owner)
    assert partition.written() == story.judged().outcomes
    assert owner.decisions == {"joined": 120, "defaulted": 120}
    assert owner.core.waiting == 0
