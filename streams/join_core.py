"""The join of one partition: two logs in, outcomes out, nothing else in the world.

Two cursors read. The reward cursor fills an index; the decision cursor trails: a decision waits
until the tick after it is known, and then until the reward log's watermark has reached its due
time. Outcomes leave in the order of the decision log and are a function of the two logs: how
records are cut into batches, which log is read first and where a restart happens changes no byte.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from bandstand.errors import EventError, LogGapError, StateError
from bandstand.schemas.columns import columns
from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.streams import splice
from bandstand.streams.ageing import AgeingDict
from bandstand.streams.event_checks import mismatches, wrong_clock
from bandstand.streams.join_types import (
    TICK_HEADER,
    Emission,
    Log,
    Output,
    Record,
    Records,
    Refusal,
    Rules,
    Tail,
    progress_record,
)
from bandstand.streams.reward_index import Passed, Reward, RewardIndex

__all__ = ["JoinCore"]

_MAX_WAITING = 20_000
"""Decisions that may be read ahead; more are read only where the next tick is still to come."""


class _Candidate(NamedTuple):
    """A decision whose next tick hasn't been read yet."""

    record: Record
    key: bytes
    body: bytes


class _Due(NamedTuple):
    """A decision that only waits for the reward log."""

    due: int
    offset: int
    ts: int
    key: bytes
    body: bytes
    before: int | None
    window_ms: int
    rules: bytes


class JoinCore:
    """The join of one partition of one lane.

    Parameters
    ----------
    rules
        The lane's settings; `window_ms` and `grace_ms` come from the ticks instead.
    wire
        How events are framed.
    max_outcome_bytes
        Outcomes above this become stubs, at least 1,000.
    tail
        Where the outcome topic ends; None where it is empty. Decisions up to there give no outcome.
    decision_start, reward_start
        The offsets at which reading begins.
    """

    def __init__(
        self,
        rules: Rules,
        wire: Wire,
        *,
        max_outcome_bytes: int,
        tail: Tail | None,
        decision_start: int,
        reward_start: int,
    ) -> None:
        self._rules = rules
        self._wire = wire
        self._outcome_header = wire.header("outcome")
        self._max_outcome_bytes = max_outcome_bytes
        self._done_before = -1 if tail is None else tail.source_offset
        self._before_done = None if tail is None else tail.before
        self.next_decision = decision_start
        self.next_reward = reward_start
        self.last_tick: dict[Log, tuple[int, int] | None] = {"decisions": None, "rewards": None}
        self.watermark: int | None = None
        self.reward_watermark: int | None = None
        self._candidates: list[_Candidate] = []
        self._due: deque[_Due] = deque()
        self._arrived: list[tuple[Record, Reward]] = []
        self._seen = AgeingDict[bytes, int](span=rules.lateness_ms + rules.skew_ms)
        self._index = RewardIndex(rules.lateness_ms, rules.backward_ms)
        self._output = _empty_output()

    @property
    def waiting(self) -> int:
        """Decisions that were read and have no outcome yet."""
        return len(self._due) + len(self._candidates)

    @property
    def index_size(self) -> int:
        """Rewards that a decision could still meet."""
        return len(self._index)

    @property
    def oldest_waiting(self) -> int | None:
        """Event time of the first decision in line, milliseconds; None where none waits."""
        try:
            return self._due[0].ts
        except IndexError:  # also where it was taken out meanwhile: others' threads ask
            first = self._candidates[:1]
            return first[0].record.timestamp if first else None

    @property
    def wants_decisions(self) -> bool:
        """Whether the decision log should be read on."""
        return not self._due or self.waiting < _MAX_WAITING

    @property
    def wants_rewards(self) -> bool:
        """Whether the reward log should be read on: no further than the decision cursor needs."""
        target = self._due[0].due if self._due else self.watermark
        if target is None:
            return False
        return self.reward_watermark is None or self.reward_watermark < target

    def push_decisions(self, records: Records) -> Output:
        """Read on in the decision log.

        Parameters
        ----------
        records
            The next records, in log order; those read before are passed over.

        Raises
        ------
        LogGapError
            If they begin behind the next offset.
        """
        fresh = self._fresh(records, self.next_decision, "decisions")
        if fresh:
            self._read("decisions", fresh, self._take_decisions, self._decision_tick)
            self.next_decision = fresh[-1].offset + 1
            self._emit()
        return self._flush()

    def push_rewards(self, records: Records) -> Output:
        """Read on in the reward log; see `push_decisions`."""
        fresh = self._fresh(records, self.next_reward, "rewards")
        if fresh:
            self._read("rewards", fresh, self._take_rewards, self._reward_tick)
            self.next_reward = fresh[-1].offset + 1
            self._emit()
        return self._flush()

    def position(self) -> Tail:
        """Give where the decision cursor stands: everything up to there is done with."""
        if self._due:
            first = self._due[0]
            return self._at_least_tail(first.offset - 1, first.before)
        if self._candidates:
            return self._at_least_tail(self._candidates[0].record.offset - 1, self.watermark)
        return self._at_least_tail(self.next_decision - 1, self.watermark)

    def progress(self) -> Emission | None:
        """Give the progress record of the decision cursor; None before the first tick."""
        return progress_record(self.position(), self.index_size)

    def _at_least_tail(self, offset: int, before: int | None) -> Tail:
        if offset <= self._done_before:
            return Tail(self._done_before, self._before_done)
        return Tail(offset, before)

    @staticmethod
    def _fresh(records: Records, expected: int, log: Log) -> Sequence[Record]:
        if len(records) and records.start > expected:
            raise LogGapError(
                f"the {log} log jumps: expected records from offset {expected}, got them from "
                f"{records.start}; nothing is skipped silently"
            )
        fresh = records.since(expected)
        return [fresh.row(at) for at in range(len(fresh))]

    def _read(
        self,
        log: Log,
        records: Sequence[Record],
        take: Callable[[Sequence[Record]], None],
        tick: Callable[[int, Rules], None],
    ) -> None:
        for run in _runs(records):
            if run[0].key == TICK_KEY and run[0].value is None:
                self._tick(log, run[0], tick)
            else:
                take(run)

    def _tick(self, log: Log, record: Record, tick: Callable[[int, Rules], None]) -> None:
        try:
            rules = self._rules_of(record)
        except EventError as error:
            self._refuse(log, record, error)
            return
        self.last_tick[log] = (record.timestamp, record.offset)
        tick(record.timestamp, rules)

    def _rules_of(self, record: Record) -> Rules:
        header = next((value for name, value in record.headers if name == TICK_HEADER), b"")
        rules = Rules.from_header(header)
        if rules[2:] != self._rules[2:]:
            raise StateError(
                f"the tick at offset {record.offset} says {rules}, the settings say "
                f"{self._rules}; lateness, backward and skew are a lane's for good: set them back, "
                "or open a new lane"
            )
        return rules

    def _take_decisions(self, records: Sequence[Record]) -> None:
        batch = columns("decision", [record.value for record in records], self._wire)
        for bad in batch.bad:
            self._refuse("decisions", records[bad.index], bad.error)
        rows = [records[row] for row in batch.rows]
        problems = _mismatches(rows, batch.table)
        for row, record, body in zip(range(len(rows)), rows, batch.bodies, strict=True):
            if row in problems:
                self._refuse("decisions", record, problems[row])
            else:
                assert record.key is not None
                self._candidates.append(_Candidate(record, record.key, body))

    def _decision_tick(self, time: int, rules: Rules) -> None:
        before = self.watermark
        after = time if before is None else max(time, before)
        part = splice.rules_part(before, rules.window_ms, rules.backward_ms, rules.grace_ms)
        fresh: dict[bytes, int] = {}
        for candidate in self._candidates:
            self._place(candidate, before, after, rules, part, fresh)
        self._candidates.clear()
        self._seen.advance(after)
        self._seen.update(fresh)
        self.watermark = after

    def _place(
        self,
        candidate: _Candidate,
        before: int | None,
        after: int,
        rules: Rules,
        part: bytes,
        fresh: dict[bytes, int],
    ) -> None:
        record, key, body = candidate
        ts = record.timestamp
        earliest = None if before is None else before - rules.lateness_ms
        if (earliest is not None and ts < earliest) or ts > after + rules.skew_ms:
            self._refuse("decisions", record, wrong_clock(ts, earliest, after + rules.skew_ms))
            return
        earlier = fresh[key] if key in fresh else self._seen.get(key)
        fresh[key] = ts if earlier is None else max(ts, earlier)
        silent = record.offset <= self._done_before
        if earlier is not None and (earliest is None or earlier >= earliest):
            if not silent:
                self._output.decisions["duplicate"] += 1
            return
        closes = ts + rules.window_ms
        due = (closes if before is None else max(closes, before)) + rules.grace_ms
        if silent:
            self._index.remember(key, Passed(ts, due, rules.window_ms, silent=True))
        else:
            self._due.append(_Due(due, record.offset, ts, key, body, before, rules.window_ms, part))

    def _take_rewards(self, records: Sequence[Record]) -> None:
        batch = columns("reward", [record.value for record in records], self._wire)
        for bad in batch.bad:
            self._refuse("rewards", records[bad.index], bad.error)
        rows = [records[row] for row in batch.rows]
        problems = _mismatches(rows, batch.table)
        for row, (record, fields) in enumerate(zip(rows, _reward_fields(batch.table), strict=True)):
            if row in problems:
                self._refuse("rewards", record, problems[row])
                continue
            assert record.key is not None
            reward_id, name, value, metadata = fields
            reward = Reward(
                record.key, reward_id, name, value, record.timestamp, record.offset, dict(metadata)
            )
            self._arrived.append((record, reward))

    def _reward_tick(self, time: int, rules: Rules) -> None:
        position = self.reward_watermark
        after = time if position is None else max(time, position)
        for record, reward in self._arrived:
            if reward.ts > after + rules.skew_ms:
                self._refuse("rewards", record, wrong_clock(reward.ts, None, after + rules.skew_ms))
            else:
                self._index.admit(reward, position)
        self._arrived.clear()
        self.reward_watermark = after
        self._index.advance(after)

    def _emit(self) -> None:
        reached = self.reward_watermark
        while reached is not None and self._due and self._due[0].due <= reached:
            self._emit_one(self._due.popleft())
        stands = self._due[0].before if self._due else self.watermark
        if stands is not None:
            self._index.forget(stands, self._output.rewards)

    def _emit_one(self, item: _Due) -> None:
        passed = Passed(item.ts, item.due, item.window_ms, silent=False)
        rewards = self._index.take(item.key, passed, item.before, self._output.rewards)
        if rewards:
            self._output.delays.extend([reward.ts - item.ts for reward in rewards])
            state, body = "joined", splice.joined(item.offset, item.rules, rewards, item.body)
        else:
            state, body = "defaulted", splice.defaulted(item.offset, item.rules, item.body)
        value = self._outcome_header + body
        if len(value) + len(item.key) > self._max_outcome_bytes:
            state, value = (
                "oversize",
                self._outcome_header + splice.oversize(item.offset, item.rules),
            )
        self._output.decisions[state] += 1
        self._output.emissions.append(Emission(item.key, item.ts, value, None))
        self._index.remember(item.key, passed)

    def _refuse(self, log: Log, record: Record, error: EventError) -> None:
        self._output.refusals.append(Refusal(log, record, error.reason, error.detail))
        if log == "rewards":
            self._output.rewards["invalid"] += 1
        elif record.offset > self._done_before:
            self._output.decisions["invalid"] += 1

    def _flush(self) -> Output:
        output, self._output = self._output, _empty_output()
        return output


def _empty_output() -> Output:
    return Output([], [], Counter(), Counter(), [])


def _runs(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut records at ticks: each tick alone, everything between two of them together."""
    start = 0
    for i, record in enumerate(records):
        if record.value is None and record.key == TICK_KEY:
            if start < i:
                yield records[start:i]
            yield records[i : i + 1]
            start = i + 1
    if start < len(records):
        yield records[start:]


def _mismatches(records: Sequence[Record], table: pa.RecordBatch) -> dict[int, EventError]:
    keys, stamps = [record.key for record in records], [record.timestamp for record in records]
    return mismatches(keys, stamps, table)


def _reward_fields(
    table: pa.RecordBatch,
) -> Iterator[tuple[str, str, float, list[tuple[str, str]]]]:
    names = ("reward_id", "name", "value", "metadata")
    return zip(*(table[name].to_pylist() for name in names), strict=True)
