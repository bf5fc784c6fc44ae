"""The join's core against an oracle, under any schedule, without a server."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.errors import LogGapError, StateError
from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import (
    Emission,
    Output,
    Record,
    Records,
    Rules,
    Tail,
    parse_tail,
    resume_times,
)
from tests.streams.join_oracle import Entry, judge

WIRE = Wire.single_object()
LATENESS, BACKWARD, SKEW = 40, 15, 20
EXAMPLES = int(os.environ.get("JOIN_EXAMPLES", "100"))


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


def records(log: list[Entry], *, reward: bool) -> list[Record]:
    """Turn an oracle's log into Kafka records."""
    out = []
    for offset, entry in enumerate(log):
        if entry.id is None:
            header = rules(entry.window, entry.grace).to_header()
            out.append(Record(offset, entry.time, TICK_KEY, None, [("tick", header)]))
        else:
            value = (
                reward_bytes(entry.id, entry.reward_id, entry.time)
                if reward
                else decision_bytes(entry.id, entry.time)
            )
            out.append(Record(offset, entry.time, entry.id.encode(), value, []))
    return out


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


def first_at(log: list[Record], time: int) -> int:
    """Do what Kafka's timestamp index does: the first offset with at least this timestamp."""
    return next((record.offset for record in log if record.timestamp >= time), 0)


def resumed(decisions: list[Record], rewards: list[Record], outcomes: list[Emission]) -> JoinCore:
    """Give the core that a new owner starts from the outcome topic alone."""
    if not outcomes:
        return new_core()
    last = outcomes[-1]
    tail = parse_tail(Record(0, last.timestamp, last.key, last.value, last.headers or []), WIRE)
    times = resume_times(tail, rules())
    if times is None:
        return new_core(tail)
    start = min(first_at(decisions, times[0]), tail.source_offset + 1)
    return new_core(tail, (start, first_at(rewards, times[1])))


def filtered(emissions: list[Emission]) -> list[dict[str, Any]]:
    """Read outcomes as every reader does: what doesn't increase the source offset is dropped."""
    largest, out = -1, []
    for emission in emissions:
        if emission.value is not None:
            outcome = WIRE.loads("outcome", emission.value)
            if outcome["source_offset"] > largest:
                largest = outcome["source_offset"]
                out.append(outcome)
    return out


class Driver:
    """Reads two logs through cores, by a schedule, as an owner of the partition would."""

    def __init__(self, decisions: list[Record], rewards: list[Record], seed: int) -> None:
        self.decisions, self.rewards = decisions, rewards
        self.random = random.Random(seed)
        self.topic: list[Emission] = []
        self.counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self.refused: list[int] = []

    def _step(self, core: JoinCore, heed: bool) -> bool:
        choices: list[tuple[Callable[[Records], Output], list[Record], int]] = []
        if core.wants_decisions or not heed:
            choices.append((core.push_decisions, self.decisions, core.next_decision))
        if core.wants_rewards or not heed:
            choices.append((core.push_rewards, self.rewards, core.next_reward))
        choices = [choice for choice in choices if choice[2] < len(choice[1])]
        if not choices:
            return False
        push, log, start = self.random.choice(choices)
        output = push(Records.of(log[start : start + self.random.choice((1, 2, 3, 100))]))
        self.topic += output.emissions
        self.counts[0].update(output.decisions)
        self.counts[1].update(output.rewards)
        self.refused += [refusal.record.offset for refusal in output.refusals]
        return True

    def run(self, *, restarts: bool, heed: bool = True) -> None:
        """Read to the end, restarting at random steps from the outcome topic alone."""
        core = new_core()
        zombie: JoinCore | None = None
        while self._step(core, heed):
            if restarts and self.random.random() < 0.15:
                progress = core.progress()
                if progress is not None and self.random.random() < 0.5:
                    self.topic.append(progress)
                zombie = core
                core = resumed(self.decisions, self.rewards, self.topic)
            if zombie is not None and self.random.random() < 0.3:
                self._step(zombie, heed)


IDS = st.sampled_from("abcdefgh")


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Entry], list[Entry]]:
    """Draw two logs whose ticks share a clock, with gaps, jumps back and wrong times."""
    both: tuple[list[Entry], list[Entry]] = ([], [])
    now = 1_000
    for _ in range(draw(st.integers(3, 18))):
        for log in both:
            for _ in range(draw(st.integers(0, 3))):
                off = draw(
                    st.sampled_from((0, 0, 1, 9, 10, 14, 15, 16, 20, 21, 39, 40, 41, 49, 50, 51))
                )
                time = now + draw(st.sampled_from((-1, -1, -1, 1))) * off
                log.append(Entry(time, draw(IDS), draw(st.sampled_from(("r", "s")))))
        now += draw(st.sampled_from((0, 1, 10, 10, 10, 25, 60, 300, -15)))
        window, grace = draw(st.sampled_from(((50, 10), (50, 10), (50, 0), (20, 10), (90, 5))))
        for log in both:
            if draw(st.integers(0, 9)):
                log.append(Entry(now, None, "", window, grace))
    return both


@settings(max_examples=EXAMPLES, deadline=None)
@given(logs(), st.integers(0, 2**32), st.booleans())
def test_outcomes_are_the_oracles_whatever_the_schedule(
    both: tuple[list[Entry], list[Entry]], seed: int, heed: bool
) -> None:
    """Batch sizes and reading order change neither outcomes nor accounts."""
    decisions, rewards = records(both[0], reward=False), records(both[1], reward=True)
    driver = Driver(decisions, rewards, seed)
    driver.run(restarts=False, heed=heed)
    expected = judge(*both, LATENESS, BACKWARD, SKEW)
    got = filtered(driver.topic)
    assert [o["source_offset"] for o in got] == [o.offset for o in expected.outcomes]
    for outcome, oracle in zip(got, expected.outcomes, strict=True):
        assert outcome["before"] == oracle.before
        assert [reward["offset"] for reward in outcome["rewards"]] == oracle.rewards
    decided = Counter(expected.decisions.values())
    assert driver.counts[0] == decided
    final = driver.counts[1]
    all_states = Counter(expected.rewards.values())
    assert final["joined"] == all_states["joined"]
    assert all(final[state] <= all_states[state] for state in final)


@settings(max_examples=EXAMPLES, deadline=None)
@given(logs(), st.integers(0, 2**32))
def test_restarts_and_zombies_change_no_byte(
    both: tuple[list[Entry], list[Entry]], seed: int
) -> None:
    """Owners that start from the outcome topic alone, and ones that go on, write the same bytes."""
    decisions, rewards = records(both[0], reward=False), records(both[1], reward=True)
    alone = Driver(decisions, rewards, seed)
    alone.run(restarts=False)
    storm = Driver(decisions, rewards, seed)
    storm.run(restarts=True)
    assert filtered(storm.topic) == filtered(alone.topic)


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
    outcome = WIRE.loads("outcome", output.emissions[0].value)
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
    outcome = WIRE.loads("outcome", output.emissions[0].value)
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
    assert output.emissions[0].value == WIRE.dumps("outcome", outcome)
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
