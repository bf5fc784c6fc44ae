"""One partition's topics as a broker would hold them, and the owners that work on it."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from unittest.mock import patch

from bandstand.schemas.wire import Wire
from bandstand.streams import join_core
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import (
    Emission,
    Log,
    Output,
    Record,
    Records,
    Rules,
    Tail,
    parse_tail,
    resume_times,
)
from tests.streams.join_logs import LOGS, WIRE, Logs
from tests.streams.join_oracle import Lane, Outcome, Verdicts

__all__ = [
    "READ_AHEAD",
    "Owner",
    "Partition",
    "Schedule",
    "agrees",
    "core_of",
    "emissions_of",
    "reading_ahead",
    "run",
]

READ_AHEAD = join_core._MAX_WAITING
_MOST_RESTARTS = 12


def reading_ahead(decisions: int) -> AbstractContextManager[object]:
    """Let cores read fewer decisions ahead, so that short logs hold more than that."""
    return patch.object(join_core, "_MAX_WAITING", decisions)


def emissions_of(output: Output) -> list[Emission]:
    """Give what a push wants written to the outcome topic."""
    return list(output.emissions)


def core_of(
    lane: Lane,
    tail: Tail | None = None,
    starts: tuple[int, int] = (0, 0),
    wire: Wire = WIRE,
) -> JoinCore:
    """Give a core; its own window and grace are never those of the ticks."""
    return JoinCore(
        rules_of(lane),
        wire,
        max_outcome_bytes=lane.max_outcome_bytes,
        tail=tail,
        decision_start=starts[0],
        reward_start=starts[1],
    )


def rules_of(lane: Lane) -> Rules:
    """Give a lane's settings with a window and a grace that no tick has."""
    return Rules(7, 3, lane.lateness, lane.backward, lane.skew)


@dataclass
class Owner:
    """A core at work, what it has counted, and what its producer hasn't delivered yet."""

    core: JoinCore
    unsent: deque[Emission] = field(default_factory=deque)
    decisions: Counter[str] = field(default_factory=Counter)
    rewards: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    furthest: int = 0
    """Up to where the decision log was read at least once."""

    def wants(self, log: Log) -> bool:
        """Tell whether the core would read on."""
        return self.core.wants_decisions if log == "decisions" else self.core.wants_rewards

    def next(self, log: Log) -> int:
        """Give the offset that the core expects."""
        return self.core.next_decision if log == "decisions" else self.core.next_reward

    def push(self, log: Log, records: Records) -> None:
        """Feed the core, and keep what comes out."""
        core = self.core
        push = core.push_decisions if log == "decisions" else core.push_rewards
        output = push(records)
        self.unsent += emissions_of(output)
        self.decisions += output.decisions
        self.rewards += output.rewards
        self.refused += [(r.log, r.record.offset, r.reason) for r in output.refusals]
        if log == "decisions":
            self.furthest = max(self.furthest, records.offsets[-1] + 1)


class Partition:
    """The two logs, so far as they are written, and the outcome topic.

    Parameters
    ----------
    logs
        What is or will be written.
    ahead
        How many decisions the cores may read ahead of the next tick; see `reading_ahead`.
    """

    def __init__(self, logs: Logs, ahead: int = READ_AHEAD) -> None:
        self.logs = logs
        self.ahead = ahead
        self.end: dict[Log, int] = dict.fromkeys(LOGS, 0)
        """How many records of each log are there already."""
        self.outcomes: list[Emission] = []

    def appear(self, log: Log, most: int | None = None) -> None:
        """Let the next records of a log be there, or all."""
        there = len(self.logs.records[log])
        self.end[log] = there if most is None else min(there, self.end[log] + most)

    @property
    def complete(self) -> bool:
        """Whether all records are there."""
        return all(self.end[log] == len(self.logs.records[log]) for log in LOGS)

    def fetch(self, log: Log, offset: int, most: int) -> list[Record]:
        """Give the next records from an offset on."""
        records = self.logs.records[log]
        first = bisect_left(records, offset, key=lambda record: record.offset)
        return records[first : min(first + most, self.end[log])]

    def read(self, owner: Owner, log: Log, most: int, again: int = 0) -> bool:
        """Feed an owner up to `most` records, `again` of them for a second time; tell if any."""
        start = max(owner.next(log) - again, 0)
        records = self.fetch(log, start, most + again)
        if not records or records[-1].offset < owner.next(log):
            return False
        owner.push(log, Records.of(records, start))
        return True

    def deliver(self, owner: Owner, most: int | None = None) -> None:
        """Let the oldest of an owner's records reach the outcome topic, or all."""
        for _ in range(len(owner.unsent) if most is None else min(most, len(owner.unsent))):
            self.outcomes.append(owner.unsent.popleft())

    def progress(self, owner: Owner) -> None:
        """Let an owner send where it stands."""
        record = owner.core.progress()
        if record is not None:
            owner.unsent.append(record)

    def take_over(self) -> Owner:
        """Start an owner from the outcome topic alone."""
        lane = self.logs.lane
        if not self.outcomes:
            return Owner(core_of(lane))
        last = self.outcomes[-1]
        record = Record(
            len(self.outcomes) - 1, last.timestamp, last.key, last.value, last.headers or ()
        )
        tail = parse_tail(record, WIRE)
        times = resume_times(tail, rules_of(lane))
        if times is None:
            return Owner(core_of(lane, tail))
        decisions, rewards = (self._first(log, at) for log, at in zip(LOGS, times, strict=True))
        return Owner(core_of(lane, tail, (min(decisions, tail.source_offset + 1), rewards)))

    def written(self) -> list[Outcome]:
        """Read the outcomes as every reader does: drop what doesn't increase the source offset."""
        largest, kept = -1, []
        for emission in self.outcomes:
            if emission.value is None:
                continue
            source_offset = WIRE.loads("outcome", emission.value)["source_offset"]
            if source_offset > largest:
                largest = source_offset
                kept.append(Outcome(emission.key, emission.timestamp, emission.value))
        return kept

    def _first(self, log: Log, time: int) -> int:
        """Do what Kafka's timestamp index does; where it gives no answer, take the log's start."""
        there = self.logs.records[log][: self.end[log]]
        return next((record.offset for record in there if record.timestamp >= time), 0)


@dataclass(frozen=True)
class Schedule:
    """How owners read, beyond what the seed decides.

    Parameters
    ----------
    seed
        Of all that happens at random.
    heed
        Whether the core's wishes which log to read on are followed.
    first
        The share of reads that go to the decision log where both can be read.
    polls
        Numbers of records that one read may give.
    live
        Whether the logs are written while they are read.
    restarts
        The share of steps after which another owner takes over, up to `_MOST_RESTARTS` times.
    looks
        The share of steps after which somebody looks on.
    ahead
        How many decisions may be read ahead.
    """

    seed: int
    heed: bool = True
    first: float = 0.5
    polls: tuple[int, ...] = (1, 2, 3, 100)
    live: bool = True
    restarts: float = 0.0
    looks: float = 0.1
    ahead: int = READ_AHEAD


def run(logs: Logs, schedule: Schedule, look: Callable[[Partition, Owner], None]) -> Partition:
    """Read two logs to the end, whoever has to take over from whom.

    Parameters
    ----------
    logs
        What is written.
    schedule
        How it is read.
    look
        Called now and then with the owner, and once at the end.
    """
    with reading_ahead(schedule.ahead):
        return _run(Partition(logs, schedule.ahead), schedule, look)


def _run(
    partition: Partition, schedule: Schedule, look: Callable[[Partition, Owner], None]
) -> Partition:
    draw = random.Random(schedule.seed)
    owner, zombies = partition.take_over(), list[Owner]()
    restarts = 0
    idle = False
    while not (idle and partition.complete):
        if schedule.live and draw.random() < 0.5:
            partition.appear(draw.choice(LOGS), draw.choice(schedule.polls))
        if idle or not schedule.live:
            for log in LOGS:
                partition.appear(log, draw.choice(schedule.polls) if schedule.live else None)
        idle = not _step(partition, owner, schedule, draw)
        if draw.random() < 0.5:
            partition.deliver(owner, draw.choice(schedule.polls))
        for zombie in zombies:
            if draw.random() < 0.3:
                _step(partition, zombie, schedule, draw)
                partition.deliver(zombie, draw.choice(schedule.polls))
        if restarts < _MOST_RESTARTS and draw.random() < schedule.restarts:
            restarts += 1
            if draw.random() < 0.3:
                partition.progress(owner)
                partition.deliver(owner)
            zombies = [*zombies, owner][-draw.choice((1, 2)) :] if draw.random() < 0.5 else zombies
            owner, idle = partition.take_over(), False
        if draw.random() < schedule.looks:
            look(partition, owner)
    partition.deliver(owner)
    look(partition, owner)
    return partition


def _step(partition: Partition, owner: Owner, schedule: Schedule, draw: random.Random) -> bool:
    """Read once from the log that it is the turn of, else from the other; tell whether it went."""
    turn = LOGS if draw.random() < schedule.first else LOGS[::-1]
    again = draw.choice((0, 0, 0, 1, 5))
    return any(
        partition.read(owner, log, draw.choice(schedule.polls), again)
        for log in turn
        if owner.wants(log) or not schedule.heed
    )


def _unseen(partition: Partition, owner: Owner, expected: Verdicts) -> set[tuple[str, int, str]]:
    """Give the refusals that are still to come, from a stretch that was only scanned for a tick."""
    if partition.ahead == READ_AHEAD:
        return set()
    entries = partition.logs.entries["decisions"]
    ticks = [e.offset for e in entries if e.settings and e.offset < owner.next("decisions")]
    return {
        refusal
        for refusal in expected.refused.difference(owner.refused)
        if refusal[0] == "decisions" and refusal[1] > max(ticks, default=-1)
    }


def agrees(partition: Partition, owner: Owner) -> None:
    """Compare what an owner without a predecessor has said of what it has read."""
    if owner.next("decisions") < owner.furthest:
        return  # a stretch without ticks is read again, and known beyond what was read
    logs = partition.logs
    expected = logs.judged({log: owner.next(log) for log in LOGS})
    written = [*partition.outcomes, *owner.unsent]
    assert [(e.key, e.timestamp, e.value) for e in written] == expected.outcomes
    for refusal in _unseen(partition, owner, expected):
        expected.refused.discard(refusal)
        expected.decisions[refusal[1]] = "open"
    assert sorted(owner.refused) == sorted(expected.refused)
    for states, counted in (
        (expected.decisions, owner.decisions),
        (expected.rewards, owner.rewards),
    ):
        still_open = Counter(open=len(states) - counted.total())
        assert counted + still_open == Counter(states.values())
    assert owner.core.open_rewards == Counter(expected.rewards.values())["open"]
    assert owner.core.waiting <= Counter(expected.decisions.values())["open"]
