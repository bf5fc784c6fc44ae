"""What the join's core takes and refuses, record by record; test_join_oracle.py has the rules."""

from __future__ import annotations

from collections import Counter

import pytest

from bandstand.errors import LogGapError, StateError
from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import (
    Record,
    Records,
    Rules,
    Tail,
    parse_tail,
)

WIRE = Wire.single_object()
LATENESS, BACKWARD, SKEW = 40, 15, 20


def rules(window: int = 50, grace: int = 10) -> Rules:
    """Give small rules: every boundary is a few milliseconds away."""
    return Rules(window, grace, LATENESS, BACKWARD, SKEW)


def decision_bytes(decision_id: str, ts: int) -> bytes:
    """Write a small decision."""
    return WIRE.dumps(
        "decision",
        {
            "bandit": "b",
            "decision_id": decision_id,
            "subject": "s",
            "ts": ts,
            "action": "a",
            "propensity": 1.0,
        },
    )


def reward_bytes(decision_id: str, reward_id: str, ts: int, value: float = 1.0) -> bytes:
    """Write a small reward."""
    return WIRE.dumps(
        "reward",
        {
            "bandit": "b",
            "decision_id": decision_id,
            "reward_id": reward_id,
            "name": "click",
            "value": value,
            "ts": ts,
            "metadata": {"k": "v"},
        },
    )


def new_core(tail: Tail | None = None, starts: tuple[int, int] = (0, 0)) -> JoinCore:
    """Give a core with small rules."""
    return JoinCore(
        rules(),
        WIRE,
        max_outcome_bytes=10_000,
        tail=tail,
        decision_start=starts[0],
        reward_start=starts[1],
    )


def of(rows: list[Record]) -> Records:
    """Give records as columns."""
    return Records.of(rows)


def tick(offset: int, time: int) -> Record:
    """Give a tick record."""
    return Record(offset, time, TICK_KEY, None, [("tick", rules().to_header())])


def test_a_jump_in_the_offsets_is_an_error_and_a_repeat_is_not() -> None:
    """Nothing is skipped silently; what was read before is passed over."""
    core = new_core()
    core.push_decisions(of([tick(0, 1_000), tick(1, 1_010)]))
    core.push_decisions(of([tick(0, 1_000), tick(1, 1_010), tick(2, 1_020)]))
    assert core.next_decision == 3
    with pytest.raises(LogGapError, match="from offset 3, got them from 4"):
        core.push_decisions(of([tick(4, 1_030)]))


def test_a_jump_in_the_reward_log_is_an_error_too() -> None:
    """A reward that was passed over would be a false zero for ever."""
    core = new_core()
    core.push_rewards(of([tick(0, 1_000)]))
    with pytest.raises(LogGapError, match="from offset 1, got them from 2"):
        core.push_rewards(of([tick(2, 1_010)]))
    core.push_rewards(Records.of([tick(2, 1_010)], start=1))
    assert core.next_reward == 3


@pytest.mark.parametrize("known", [1, 2, 3, 4])
def test_records_that_come_again_count_once(known: int) -> None:
    """Whether a batch begins before the next record or holds nothing new."""
    decisions = [
        tick(0, 1_000),
        Record(1, 1_001, b"x", decision_bytes("x", 1_001), []),
        Record(2, 1_001, b"y", b"junk", []),
        tick(3, 1_100),
    ]
    rewards = [
        tick(0, 1_000),
        Record(1, 1_002, b"x", reward_bytes("x", "r", 1_002), []),
        Record(2, 1_003, b"x", reward_bytes("x", "s", 1_003), []),
        tick(3, 1_200),
    ]
    core = new_core()
    outputs = []
    for push, records in ((core.push_decisions, decisions), (core.push_rewards, rewards)):
        outputs += [push(of(records[:known])), push(of(records[:known])), push(of(records))]
    decided = Counter(state for output in outputs for state in output.decisions.elements())
    rewarded = Counter(state for output in outputs for state in output.rewards.elements())
    assert (decided, rewarded) == ({"joined": 1, "invalid": 1}, {"joined": 2})
    assert [len(output.emissions) for output in outputs].count(1) == 1
    assert core.next_decision == core.next_reward == 4


def test_offsets_that_hold_markers_are_no_jump() -> None:
    """Records that were written in transactions are read like others."""
    core = new_core()
    marked = [
        tick(0, 1_000),
        Record(3, 1_005, b"g", decision_bytes("g", 1_005), []),
        tick(5, 1_010),
    ]
    core.push_decisions(Records.of(marked))
    core.push_decisions(Records.of([tick(8, 1_020)], start=6))
    assert (core.next_decision, core.waiting, core.watermark) == (9, 1, 1_020)


def test_a_lane_whose_settings_for_good_changed_stops() -> None:
    """Another lateness than the log's would change verdicts of the past."""
    other = rules()._replace(lateness_ms=1).to_header()
    with pytest.raises(StateError, match="for good"):
        new_core().push_rewards(of([Record(0, 1_000, TICK_KEY, None, [("tick", other)])]))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record(0, 1_000, b"x", b"\x7b", []), "magic"),
        (Record(0, 1_000, b"x", None, []), "empty"),
        (Record(0, 1_000, b"y", decision_bytes("x", 1_000), []), "key"),
        (Record(0, 1_000, None, decision_bytes("x", 1_000), []), "key"),
        (Record(0, 1_001, b"x", decision_bytes("x", 1_000), []), "timestamp"),
        (Record(0, 1_000, TICK_KEY, None, [("tick", b"{}")]), "tick"),
        (Record(0, 2_000, b"x", decision_bytes("x", 2_000), []), "clock"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(record: Record, reason: str) -> None:
    """One bad record goes out with a reason and the next one still counts."""
    core = new_core()
    good = Record(1, 1_000, b"g", decision_bytes("g", 1_000), [])
    output = core.push_decisions(of([record, good, tick(2, 1_005)]))
    assert [(r.log, r.record.offset, r.reason) for r in output.refusals] == [
        ("decisions", 0, reason)
    ]
    assert core.waiting == 1


@pytest.mark.parametrize(
    ("key", "timestamp", "reason"),
    [
        (b"y", 1_000, "key"),
        (b"", 1_000, "key"),
        (None, 1_000, "key"),
        (b"x", 999, "timestamp"),
        (b"x", 1_001, "timestamp"),
    ],
)
def test_a_reward_whose_record_says_other_than_its_bytes_is_refused(
    key: bytes | None, timestamp: int, reason: str
) -> None:
    """It would be joined by what the record says."""
    core = new_core()
    core.push_decisions(
        of([Record(0, 1_000, b"y", decision_bytes("y", 1_000), []), tick(1, 1_000)])
    )
    reward = Record(0, timestamp, key, reward_bytes("x", "r", 1_000), ())
    output = core.push_rewards(of([reward, tick(1, 2_000)]))
    assert [(r.log, r.record, r.reason) for r in output.refusals] == [("rewards", reward, reason)]
    assert (output.rewards, output.decisions) == ({"invalid": 1}, {"defaulted": 1})


def test_a_reward_without_a_number_is_refused() -> None:
    """NaN never reaches an outcome."""
    value = reward_bytes("x", "r", 1_000, float("nan"))
    output = new_core().push_rewards(of([Record(0, 1_000, b"x", value, []), tick(1, 1_000)]))
    assert [refusal.reason for refusal in output.refusals] == ["value"]
    assert output.rewards == {"invalid": 1}


def test_an_outcome_above_the_limit_becomes_a_stub_that_moves_the_tail() -> None:
    """The accounts and the position go on without the decision's bytes."""
    core = JoinCore(
        rules(), WIRE, max_outcome_bytes=1_000, tail=None, decision_start=0, reward_start=0
    )
    long = "x" * 2_000
    core.push_decisions(
        of([Record(0, 1_000, long.encode(), decision_bytes(long, 1_000), []), tick(1, 1_000)])
    )
    output = core.push_rewards(of([tick(0, 2_000)]))
    outcome = WIRE.loads("outcome", output.emissions.values[0])
    assert (outcome["state"], outcome["source_offset"], outcome["decision"]) == (
        "oversize",
        0,
        None,
    )
    assert output.decisions == {"oversize": 1}


def test_the_outcome_carries_the_decisions_own_bytes_and_the_reward() -> None:
    """Splicing gives what encoding the whole record gives."""
    core = new_core()
    value = decision_bytes("x", 1_000)
    core.push_decisions(of([Record(0, 1_000, b"x", value, []), tick(1, 1_005)]))
    reward = Record(0, 1_020, b"x", reward_bytes("x", "r", 1_020, 0.5), [])
    output = core.push_rewards(of([reward, tick(1, 1_060)]))
    outcome = WIRE.loads("outcome", output.emissions.values[0])
    assert outcome["decision"] == WIRE.loads("decision", value)
    assert outcome["rewards"] == [
        {
            "reward_id": "r",
            "name": "click",
            "value": 0.5,
            "ts": 1_020,
            "offset": 0,
            "metadata": {"k": "v"},
        }
    ]
    assert output.emissions.values[0] == WIRE.dumps("outcome", outcome)
    assert (outcome["window_ms"], outcome["backward_ms"], outcome["grace_ms"]) == (50, 15, 10)


def test_a_progress_record_keeps_the_position_when_nothing_was_emitted() -> None:
    """A new owner goes on after trailing ticks and invalid decisions."""
    core = new_core()
    core.push_decisions(of([tick(0, 1_000), Record(1, 9, b"x", b"junk", []), tick(2, 1_010)]))
    progress = core.progress()
    assert progress is not None
    tail = parse_tail(
        Record(7, progress.timestamp, progress.key, None, progress.headers or []), WIRE
    )
    assert tail == Tail(source_offset=2, before=1_010)
    assert new_core(tail).progress() == progress
