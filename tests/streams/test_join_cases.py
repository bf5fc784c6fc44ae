"""What the join must get right, case by case, each named after what it defends from."""

from __future__ import annotations

from collections import Counter

import pytest

from bandstand.errors import BrokerError
from bandstand.schemas.codec import WriterSchema, current
from bandstand.schemas.wire import Wire
from tests.streams.join_driver import Owner, Partition, core_of
from tests.streams.join_logs import LOGS, WIRE
from tests.streams.join_oracle import Lane
from tests.streams.join_story import AT, LANE, Story, outcomes_in, reads_all


@pytest.mark.parametrize(
    ("after", "state"),
    [(499, "joined"), (500, "out_of_window"), (501, "out_of_window")],
)
def test_a_reward_at_the_windows_end(after: int, state: str) -> None:
    """The window is half open, to the millisecond."""
    story = Story().decides("d", 10).ticks(510).rewards("d", "r", 10 + after).ticks(520, 5_000)
    assert story.states("rewards") == {state: 1}
    assert story.told() == [("d", "joined", ["r"]) if state == "joined" else ("d", "defaulted", [])]


@pytest.mark.parametrize(
    ("ahead", "state"),
    [(199, "joined"), (200, "joined"), (201, "out_of_window")],
)
def test_a_reward_before_its_decision(ahead: int, state: str) -> None:
    """A reward may lie `backward` before its decision and no more, and may be written first."""
    story = Story().rewards("d", "r", 300 - ahead).ticks(290).decides("d", 300).ticks(310, 5_000)
    assert story.states("rewards") == {state: 1}
    assert story.told() == [("d", "joined", ["r"]) if state == "joined" else ("d", "defaulted", [])]


def test_an_out_of_order_decision_waits_for_its_grace() -> None:
    """A decision that comes after its window has closed still waits for rewards (KAFKA-19536)."""
    story = Story().ticks(570).decides("d", 10).ticks(600).rewards("d", "r", 100).ticks(619)
    partition = Partition(story)
    owner = partition.take_over()
    assert reads_all(partition, owner) == []
    story.ticks(620)
    assert reads_all(partition, owner) == [("d", "joined", ["r"])]


def test_an_out_of_order_decision_is_due_by_its_own_time_whoever_it_waits_behind() -> None:
    """What comes after the due time is late, also while an earlier record holds up the outcome."""
    story = Story().ticks(570).decides("ahead", 560).decides("d", 10).ticks(619)
    story.rewards("d", "in time", 20).ticks(620).rewards("d", "late", 20).ticks(1_109)
    partition = Partition(story)
    owner = partition.take_over()
    assert reads_all(partition, owner) == []
    story.ticks(1_110, 5_000)
    assert reads_all(partition, owner) == [("ahead", "defaulted", []), ("d", "joined", ["in time"])]
    assert owner.rewards == {"joined": 1, "late": 1}


def test_when_the_input_stops_everything_closes() -> None:
    """Ticks alone bring each decision and each reward to its state."""
    story = Story().decides("a", 10).rewards("a", "r", 20).rewards("b", "r", 20).decides("c", 30)
    story.ticks(*range(100, 2_200, 100))
    assert story.told() == [("a", "joined", ["r"]), ("c", "defaulted", [])]
    assert story.states("decisions") == {"joined": 1, "defaulted": 1}
    assert story.states("rewards") == {"joined": 1, "unmatched": 1}


def test_a_partition_that_was_silent_for_ten_windows_and_is_back_with_old_records() -> None:
    """What is within `lateness` joins; what is older is refused, and is no false zero."""
    story = Story().decides("first", 10).ticks(*range(100, 5_100, 100))
    story.decides("old", 4_000).decides("too old", 3_999).decides("new", 5_000)
    story.rewards("old", "r", 4_010).rewards("too old", "r", 4_010).ticks(5_010, 9_000)
    assert story.told() == [
        ("first", "defaulted", []),
        ("old", "joined", ["r"]),
        ("new", "defaulted", []),
    ]
    assert story.states("decisions") == {"joined": 1, "defaulted": 2, "invalid": 1}
    assert story.states("rewards") == {"joined": 1, "unmatched": 1}


class _Registry:
    """A schema registry that can be asked or can't."""

    down = False

    def schema_id(self, _name: str) -> int:
        """Give the id of every schema here."""
        return 1

    def writer(self, name: str, _schema_id: int) -> WriterSchema:
        """Give the current schema."""
        if self.down:
            raise BrokerError("the schema registry can't be asked")
        return current(name)


def test_an_agent_that_raises_in_mid_batch() -> None:
    """A batch that failed half-way is read again by a new owner, and nothing is lost or twice."""
    story = Story().decides("a", 10).ticks(100, 700).decides("b", 700).ticks(1_400)
    by_id = story.records["decisions"][-2]
    assert by_id.key == b"b"
    assert by_id.value is not None
    framed = b"\x00\x00\x00\x00\x01" + by_id.value[len(WIRE.header("decision")) :]
    story.records["decisions"][-2] = by_id._replace(value=framed)
    registry = _Registry()
    partition = Partition(story)
    owner = Owner(core_of(LANE, wire=Wire.single_object(registry)))
    for log in LOGS:
        partition.appear(log)
    partition.read(owner, "rewards", 100)
    registry.down = True
    with pytest.raises(BrokerError, match="can't be asked"):
        partition.read(owner, "decisions", 100)
    assert outcomes_in(partition) == []
    registry.down = False
    second = Owner(core_of(LANE, wire=Wire.single_object(registry)))
    assert reads_all(partition, second) == [("a", "defaulted", []), ("b", "defaulted", [])]
    assert second.decisions == {"defaulted": 2}


def test_what_an_agent_had_not_sent_when_it_raised() -> None:
    """Outcomes that were given and never written are given again."""
    story = Story().decides("a", 10).decides("b", 20).ticks(100, 600)
    story.decides("c", 600).ticks(5_000)
    partition = Partition(story)
    owner = partition.take_over()
    reads_all(partition, owner)
    assert outcomes_in(partition) == [(name, "defaulted", []) for name in "abc"]
    for sent in range(3):
        lost = Partition(story)
        lost.outcomes = partition.outcomes[:sent]
        assert reads_all(lost, lost.take_over()) == outcomes_in(partition)


def test_the_first_of_two_in_flight_is_the_slow_one() -> None:
    """An outcome that is due waits for the one before it, so the tail never passes an open one."""
    story = Story().decides("slow", 90).ticks(100).decides("quick", 110)
    story.ticks(120, 200, window=20, grace=0)
    partition = Partition(story)
    owner = partition.take_over()
    assert reads_all(partition, owner) == []
    assert owner.core.position().source_offset == 0
    partition.progress(owner)
    partition.deliver(owner)
    story.ticks(1_000)
    assert reads_all(partition, partition.take_over()) == [
        ("slow", "defaulted", []),
        ("quick", "defaulted", []),
    ]


def test_a_restart_when_the_outcome_topic_holds_only_a_progress_record() -> None:
    """The next owner goes on where the record says, and gives what was still open."""
    story = Story().decides("gone", -2_000).ticks(100).decides("open", 110).ticks(200)
    partition = Partition(story)
    owner = partition.take_over()
    assert reads_all(partition, owner) == []
    partition.progress(owner)
    partition.deliver(owner)
    assert [emission.value for emission in partition.outcomes] == [None]
    story.rewards("open", "r", 210).ticks(1_000)
    second = partition.take_over()
    assert reads_all(partition, second) == [("open", "joined", ["r"])]
    assert (owner.decisions, second.decisions) == ({"invalid": 1}, {"joined": 1})


def _longest_text() -> int:
    """Give how long a decision's text may be for its outcome not to be too large."""
    partition = Partition(Story().decides("d", 10, 700).ticks(100, 1_000))
    reads_all(partition, partition.take_over())
    [outcome] = partition.written()
    return 700 + LANE.max_outcome_bytes - len(outcome.key) - len(outcome.value)


def test_an_outcome_too_large_by_one_byte() -> None:
    """An outcome of the size allowed is written; one byte more makes it a stub."""
    fits = _longest_text()
    story = Story().decides("d", 10, fits).decides("e", 10, fits + 1).decides("f", 10)
    story.rewards("e", "r", 20).ticks(100, 1_000, 5_000)
    assert story.told() == [("d", "defaulted", []), ("e", "oversize", []), ("f", "defaulted", [])]
    assert story.states("rewards") == {"joined": 1}


def test_an_outcome_that_only_its_key_makes_too_large() -> None:
    """What is limited is the record: key and value, also where nothing else in a batch is large."""
    fits = _longest_text()
    story = Story().decides("d", 10, fits).ticks(100).decides("e", 110, fits + 1)
    assert story.ticks(200, 5_000).told() == [("d", "defaulted", []), ("e", "oversize", [])]


def test_a_restart_behind_a_stub() -> None:
    """A stub moves the tail as an outcome does."""
    story = Story().decides("large", 10, 5_000).ticks(100, 1_000)
    partition = Partition(story)
    assert reads_all(partition, partition.take_over()) == [("large", "oversize", [])]
    story.decides("next", 1_000).ticks(2_000)
    second = partition.take_over()
    assert reads_all(partition, second)[1:] == [("next", "defaulted", [])]
    assert second.decisions == {"defaulted": 1}


def test_a_decision_and_its_reward_that_are_both_a_minute_late() -> None:
    """Both waited in queues for longer than the window: joined, and no false zero."""
    lane = Lane(lateness=3_600_000, backward=0, skew=60_000, max_outcome_bytes=1_000)
    story = Story(lane)
    story.ticks(60_000).decides("d", 0).ticks(60_049).rewards("d", "r", 10).ticks(60_050, 200_000)
    assert story.told() == [("d", "joined", ["r"])]


@pytest.mark.parametrize("last", ["duplicate", "invalid"])
def test_a_log_whose_last_records_give_no_outcome(last: str) -> None:
    """A hand-over passes them, so that they are neither counted again nor read for ever."""
    story = Story().decides("d", 10).ticks(100)
    for _ in range(5):
        story.decides("d" if last == "duplicate" else "x", 10 if last == "duplicate" else -5_000)
    story.ticks(1_000)
    partition = Partition(story)
    owner = partition.take_over()
    assert reads_all(partition, owner) == [("d", "defaulted", [])]
    assert owner.decisions == {"defaulted": 1, last: 5}
    partition.progress(owner)
    partition.deliver(owner)
    second = partition.take_over()
    reads_all(partition, second)
    assert second.decisions == Counter()
    assert second.core.position() == owner.core.position()
    story.decides("e", 1_000).ticks(5_000)
    assert reads_all(partition, second)[1:] == [("e", "defaulted", [])]


def test_hours_without_ticks_that_hold_more_than_is_read_ahead() -> None:
    """Decisions wait for the next tick, however many and however long, and none is lost."""
    lane = Lane(lateness=3_600_000, backward=0, skew=60_000, max_outcome_bytes=1_000)
    story = Story(lane)
    count, hours = 22_000, 3 * 3_600_000
    for number in range(count):
        story.decides(f"d{number}", number * hours // count)
        if number % 100 == 0:
            story.rewards(f"d{number}", "r", number * hours // count + 1)
    story.ticks(hours)
    story.ticks(hours + 1_000_000)
    partition = Partition(story)
    told = reads_all(partition, partition.take_over())
    assert [decision_id for decision_id, _, _ in told] == [f"d{n}" for n in range(count)]
    assert Counter(state for _, state, _ in told) == {"joined": 220, "defaulted": count - 220}


def test_settings_that_change_while_a_clock_steps_back() -> None:
    """The next tick record's window and grace apply, also where an earlier tick is larger."""
    story = Story().ticks(100).decides("d", 90).rewards("d", "r", 140)
    story.ticks(80, window=50, grace=0).ticks(5_000)
    assert story.told() == [("d", "defaulted", [])]


def test_settings_that_change_from_tick_to_tick_within_one_batch() -> None:
    """A decision gets those of the tick right behind it, not of the first or last one read."""
    story = Story()
    for number, window in enumerate((50, 300, 100)):
        at = 100 * number
        for decision_id, after in (("in", window - 1), ("out", window)):
            story.rewards(f"{decision_id}{number}", "r", at + after)
            story.decides(f"{decision_id}{number}", at)
        story.ticks(at + 10, window=window, grace=number).ticks(at + 100, window=7)
    story.ticks(9_000)
    assert [state for _, state, _ in story.told()] == ["joined", "defaulted"] * 3


def test_a_reward_that_meets_two_decisions_keeps_the_best_verdict() -> None:
    """A repeat of an id after `lateness` is another decision; one reward is counted once."""
    story = Story().decides("d", 10).ticks(100, 1_311).decides("d", 1_400)
    story.rewards("d", "r", 1_410).ticks(1_500, 9_000)
    assert story.told() == [("d", "defaulted", []), ("d", "joined", ["r"])]
    assert story.states("rewards") == {"joined": 1}


@pytest.mark.parametrize(
    ("time", "verdict"),
    [(100, "duplicate"), (500, "late")],
    ids=["a repeat for the other", "out of the other's window"],
)
def test_a_reward_that_is_late_for_one_of_two_decisions(time: int, verdict: str) -> None:
    """The verdict nearer to counting stays, whichever of the two came first."""
    story = Story().decides("d", 10).rewards("d", "r", 200).ticks(100, 600)
    story.rewards("d", "r", 210).ticks(1_011).decides("d", time).ticks(1_020, 9_000)
    assert story.states("decisions").total() == 2
    assert story.states("rewards") == {"joined": 1, verdict: 1}


def test_the_reward_log_is_read_no_further_than_decisions_need() -> None:
    """Rewards of days ahead stay in Kafka while the decisions are hours behind."""
    story = Story().decides("d", 10).ticks(*range(100, 100_000, 100))
    partition = Partition(story)
    owner = partition.take_over()
    for log in LOGS:
        partition.appear(log)
    assert not owner.wants("rewards")
    partition.read(owner, "decisions", 3)
    while owner.wants("rewards") and partition.read(owner, "rewards", 1):
        pass
    assert owner.core.reward_watermark == AT + 600


@pytest.mark.parametrize(
    ("time", "states"),
    [
        (-1_001, {"invalid": 1}),
        (-1_000, {"defaulted": 1}),
        (400, {"defaulted": 1}),
        (401, {"invalid": 1}),
    ],
)
def test_a_decision_whose_clock_is_off_by_as_much_as_is_allowed(
    time: int, states: dict[str, int]
) -> None:
    """Both ends of what ticks allow are valid, a millisecond beyond them isn't."""
    assert Story().decides("d", time).ticks(100, 5_000).states("decisions") == states


@pytest.mark.parametrize(
    ("time", "states"),
    [(400, {"joined": 1}), (401, {"invalid": 1})],
)
def test_a_reward_whose_clock_is_off_by_as_much_as_is_allowed(
    time: int, states: dict[str, int]
) -> None:
    """A reward may lie `skew` ahead of the next tick, and not a millisecond more."""
    story = Story().decides("d", 10).rewards("d", "r", time).ticks(100, 5_000)
    assert story.states("rewards") == states


@pytest.mark.parametrize(
    ("position", "states"),
    [
        (559, {"joined": 1}),
        (560, {"late": 1}),
        (1_559, {"late": 1}),
        (1_560, {"unmatched": 1}),
    ],
)
def test_a_reward_is_late_from_the_due_time_on_for_as_long_as_lateness(
    position: int, states: dict[str, int]
) -> None:
    """It is its position among the ticks that counts, to the millisecond."""
    story = Story().decides("d", 10).ticks(100, position).rewards("d", "r", 20)
    assert story.ticks(position + 1, 9_000).states("rewards") == states


@pytest.mark.parametrize(
    ("before", "states"),
    [(1_010, {"defaulted": 1, "duplicate": 1}), (1_011, {"defaulted": 2})],
)
def test_a_decision_repeats_another_for_as_long_as_lateness(
    before: int, states: dict[str, int]
) -> None:
    """An id that comes back later is a decision of its own."""
    story = Story().decides("d", 10).ticks(before).decides("d", 1_015).ticks(1_020, 9_000)
    assert story.states("decisions") == states


@pytest.mark.parametrize(("before", "states"), [(1_300, {"joined": 1}), (1_301, {"unmatched": 1})])
def test_a_reward_waits_for_its_decision_for_as_long_as_one_can_count_it(
    before: int, states: dict[str, int]
) -> None:
    """The oldest decision that is still valid may lie `backward` behind the reward."""
    story = Story().rewards("d", "r", 100).ticks(before).decides("d", before - 1_000)
    assert story.ticks(before + 1, 9_000).states("rewards") == states


def test_a_repeat_of_a_repeat_is_held_against_the_newest() -> None:
    """A decision that came late, with an old time, doesn't make those before it older."""
    story = Story().decides("d", 500).ticks(300).decides("d", 10).ticks(1_200)
    assert story.decides("d", 1_200).ticks(9_000).states("decisions") == {
        "defaulted": 1,
        "duplicate": 2,
    }


def test_a_clock_that_steps_back_admits_nothing_older() -> None:
    """How old a decision may be goes by the largest tick before it, not by the last one."""
    story = Story().ticks(1_500, 600).decides("d", 499).ticks(1_600, 9_000)
    assert story.states("decisions") == {"invalid": 1}


def test_a_repeat_of_a_decision_judges_no_reward() -> None:
    """A reward is held against the first of the two, also where it would suit the other better."""
    story = Story().decides("d", 10).decides("d", 300).decides("e", 310).ticks(320, 900)
    story.rewards("d", "r", 600).ticks(1_000, 9_000)
    assert story.states("rewards") == {"out_of_window": 1}


def test_a_repeat_of_a_decision_from_before_a_restart() -> None:
    """The next owner reads `lateness` again, so it knows what its predecessor has answered."""
    story = Story().decides("d", 10).ticks(100, 600, 1_000)
    partition = Partition(story)
    owner = partition.take_over()
    assert reads_all(partition, owner) == [("d", "defaulted", [])]
    partition.progress(owner)
    partition.deliver(owner)
    story.decides("d", 1_005).ticks(1_010, 9_000)
    second = partition.take_over()
    assert reads_all(partition, second) == [("d", "defaulted", [])]
    assert second.decisions == {"duplicate": 1}


def test_a_restart_refuses_nothing_that_was_valid() -> None:
    """A decision that has its outcome never gets a dead letter from the next owner."""
    story = Story().ticks(5_000)
    story.unusable("decisions", "magic", "x", AT + 86_400_000)
    story.decides("d", 5_200).ticks(3_000, 6_000, 10_000)
    partition = Partition(story)
    owner = partition.take_over()
    assert reads_all(partition, owner) == [("d", "defaulted", [])]
    partition.progress(owner)
    partition.deliver(owner)
    second = partition.take_over()
    reads_all(partition, second)
    assert set(second.refused) <= story.judged().refused
