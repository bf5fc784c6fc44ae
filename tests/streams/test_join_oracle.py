"""The join's core against the oracle: generated logs, generated schedules, equal bytes."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bandstand.streams.join_types import Log
from tests.streams.join_driver import (
    READ_AHEAD,
    Owner,
    Partition,
    Schedule,
    agrees,
    reading_ahead,
    run,
)
from tests.streams.join_generators import Writer, large_logs, small_logs
from tests.streams.join_logs import LOGS, Logs

EXAMPLES = int(os.environ.get("JOIN_EXAMPLES", "100"))
SEEDS = st.integers(0, 2**32)
POLLS = st.sampled_from(((1,), (1, 2, 3), (1, 2, 3, 100), (100,)))
AHEAD = st.sampled_from((READ_AHEAD, READ_AHEAD, 1, 3))


@st.composite
def small(draw: st.DrawFn) -> Logs:
    """Draw small logs."""
    return small_logs(lambda options: draw(st.sampled_from(options)))


@st.composite
def schedules(draw: st.DrawFn, restarts: float = 0.0) -> Schedule:
    """Draw how small logs are read."""
    return Schedule(
        seed=draw(SEEDS),
        heed=draw(st.sampled_from((True, True, False))),
        first=draw(st.sampled_from((0.5, 0.95, 0.05))),
        polls=draw(POLLS),
        live=draw(st.booleans()),
        restarts=restarts,
        ahead=draw(AHEAD),
    )


def ignore(partition: Partition, owner: Owner) -> None:
    """Look at nothing on the way."""


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(small(), schedules())
def test_outcomes_and_states_are_the_oracles_at_any_step(logs: Logs, schedule: Schedule) -> None:
    """One owner writes the oracle's bytes and counts its states, whatever it reads first."""
    partition = run(logs, schedule, agrees)
    assert partition.written() == logs.judged().outcomes


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(small(), schedules(restarts=0.1))
def test_owners_that_come_and_go_change_no_byte(logs: Logs, schedule: Schedule) -> None:
    """Owners that start from the outcome topic alone, beside others that go on, write the same."""
    partition = run(logs, schedule, ignore)
    assert partition.written() == logs.judged().outcomes


@pytest.mark.parametrize("seed", range(max(2, EXAMPLES // 100)))
def test_hours_at_settings_like_the_defaults_are_the_oracles(seed: int) -> None:
    """Thousands of records, a tick a second: one owner, and several that come and go."""
    logs = large_logs(random.Random(seed), minutes=(20, 50, 150)[seed % 3])
    polls = ((10, 100), (500,), (5_000,), (2_000,))[seed % 4]
    run(logs, Schedule(seed, polls=polls, looks=0.003), agrees)
    storm = run(logs, Schedule(seed, polls=polls, restarts=0.05), ignore)
    assert storm.written() == logs.judged().outcomes


class LivePartition(RuleBasedStateMachine):
    """Logs that are written while owners read them, deliver, die, and go on as zombies."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = Writer(lambda options: self.data.draw(st.sampled_from(options)))
        self.partition = Partition(self.writer.logs)
        self.owner = self.partition.take_over()
        self.zombie: Owner | None = None
        self.alone = True

    @initialize(ahead=AHEAD)
    def read_ahead(self, ahead: int) -> None:
        """Say how far the cores may read ahead."""
        self.partition.ahead = ahead
        self.limit = reading_ahead(ahead)
        self.limit.__enter__()

    @rule(data=st.data(), count=st.integers(1, 3))
    def decide(self, data: st.DataObject, count: int) -> None:
        """Write decisions."""
        self.data = data
        for _ in range(count):
            self.writer.decision()

    @rule(data=st.data(), count=st.integers(1, 4))
    def reward(self, data: st.DataObject, count: int) -> None:
        """Write rewards."""
        self.data = data
        for _ in range(count):
            self.writer.reward()

    @rule(data=st.data())
    def other(self, data: st.DataObject) -> None:
        """Write what nobody can use."""
        self.data = data
        self.writer.other()

    @rule(data=st.data(), logs=st.sampled_from((LOGS, LOGS, LOGS, LOGS[:1], LOGS[1:])))
    def tick(self, data: st.DataObject, logs: tuple[Log, ...]) -> None:
        """Let time go on."""
        self.data = data
        self.writer.step()
        self.writer.tick(*logs)

    @rule(log=st.sampled_from(LOGS), most=st.sampled_from((1, 2, 5, 100)), heed=st.booleans())
    def read(self, log: Log, most: int, heed: bool) -> None:
        """Read on as the owner."""
        self._read(self.owner, log, most, heed)

    @precondition(lambda self: self.zombie is not None)
    @rule(log=st.sampled_from(LOGS), most=st.sampled_from((1, 5, 100)), deliver=st.integers(0, 5))
    def read_as_zombie(self, log: Log, most: int, deliver: int) -> None:
        """Read on, and write, as an owner that lost its partition."""
        assert self.zombie is not None
        self._read(self.zombie, log, most, heed=True)
        self.partition.deliver(self.zombie, deliver)

    @rule(most=st.integers(1, 5))
    def deliver(self, most: int) -> None:
        """Let the owner's outcomes reach their topic."""
        self.partition.deliver(self.owner, most)

    @rule()
    def progress(self) -> None:
        """Say where the owner stands."""
        if not self.alone:
            self.partition.progress(self.owner)

    @rule(goodbye=st.booleans(), goes_on=st.booleans())
    def take_over(self, goodbye: bool, goes_on: bool) -> None:
        """Replace the owner: after a hand-over, a crash, or without its knowing."""
        if goodbye:
            self.partition.progress(self.owner)
            self.partition.deliver(self.owner)
        self.zombie = self.owner if goes_on else None
        self.owner, self.alone = self.partition.take_over(), False

    @precondition(lambda self: self.alone)
    @invariant()
    def the_only_owner_agrees_with_the_oracle(self) -> None:
        """Hold what is written and counted against what was read."""
        agrees(self.partition, self.owner)

    def teardown(self) -> None:
        """Read and deliver all; then the outcome topic is the oracle's."""
        while sum(self._read(self.owner, log, 10, heed=True) for log in LOGS):
            pass
        self.partition.deliver(self.owner)
        self.limit.__exit__(None, None, None)
        assert self.partition.written() == self.writer.logs.judged().outcomes

    def _read(self, owner: Owner, log: Log, most: int, heed: bool) -> bool:
        self.partition.appear(log)
        return (owner.wants(log) or not heed) and self.partition.read(owner, log, most)


def test_a_partition_that_lives_while_owners_come_and_go() -> None:
    """Whatever is written, read, delivered and lost in whatever order, the outcomes are right."""
    run_state_machine_as_test(
        LivePartition,
        settings=settings(
            max_examples=max(10, EXAMPLES // 2),
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
