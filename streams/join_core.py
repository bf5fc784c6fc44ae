"""The join of one partition: two logs in, outcomes out, nothing else in the world.

Two cursors read. The reward cursor fills an index; the decision cursor trails: a decision waits
until the tick after it is known, and then until the reward log's watermark has reached its due
time. Outcomes leave in the order of the decision log and are a function of the two logs: how
records are cut into batches, which log is read first and where a restart happens changes no byte.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from itertools import repeat
from typing import cast

import numpy as np
import numpy.typing as npt

from bandstand.errors import EventError, LogGapError
from bandstand.schemas.wire import Wire
from bandstand.streams import splice
from bandstand.streams.decision_table import DecisionTable, Prints
from bandstand.streams.due_queue import Decisions, DueQueue, Line
from bandstand.streams.emitter import Emitter
from bandstand.streams.event_checks import wrong_clock
from bandstand.streams.join_types import (
    Emission,
    Emissions,
    Log,
    Output,
    Record,
    Records,
    Refusal,
    Rules,
    Tail,
    progress_record,
)
from bandstand.streams.reward_index import Reward, RewardIndex
from bandstand.streams.sift import Bad, Sifted, Sifter, Tick

__all__ = ["JoinCore"]

_MAX_WAITING = 20_000
_MAX_WAITING_BYTES = 16 * 2**20
"""Decisions that may be read ahead, and their bytes."""

Flags = npt.NDArray[np.bool_]


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
        self._lateness_ms = rules.lateness_ms
        self._awaited_ms = rules.lateness_ms + rules.backward_ms
        self._sifter = Sifter(rules, wire)
        self._skip = len(wire.header("reward"))
        self._done_before = -1 if tail is None else tail.source_offset
        self._before_done = None if tail is None else tail.before
        self.next_decision = decision_start
        """The next offset of the decision log; steps back after a stretch without ticks."""
        self.next_reward = reward_start
        self.last_tick: dict[Log, tuple[int, int] | None] = {"decisions": None, "rewards": None}
        self.watermark: int | None = None
        self.reward_watermark: int | None = None
        self._candidates = Decisions()
        self._scanning_from: tuple[int, int] | None = None
        self._ahead: Tick | None = None
        self._checked_up_to = decision_start
        self._due = DueQueue()
        self._arrived: list[tuple[Reward, bytes | None]] = []
        self._table = DecisionTable(rules.lateness_ms)
        self._index = RewardIndex(
            rules.lateness_ms, rules.backward_ms, self._table, self._before_done
        )
        self._emitter = Emitter(wire, max_outcome_bytes, self._index)
        self._output = _empty_output()

    @property
    def waiting(self) -> int:
        """Decisions that were read and have no outcome yet."""
        return len(self._due) + len(self._candidates)

    @property
    def scanning(self) -> bool:
        """Whether decisions were let go of, to be read again when the tick behind them is found."""
        return self._scanning_from is not None

    @property
    def index_size(self) -> int:
        """Rewards that a decision could still meet."""
        return len(self._index)

    @property
    def open_rewards(self) -> int:
        """Rewards that were read and aren't counted in a state yet."""
        return len(self._arrived) + self._index.uncounted

    @property
    def oldest_waiting(self) -> int | None:
        """Event time of the first decision in line, milliseconds; None where none waits."""
        scanning, line = self._scanning_from, self._due.head
        try:
            if line is not None:
                return int(line.decisions.times[line.at])
            return int(self._candidates.times[0]) if scanning is None else scanning[1]
        except IndexError:  # none there, or taken out meanwhile: others' threads ask
            return None

    @property
    def wants_decisions(self) -> bool:
        """Whether the decision log should be read on."""
        if not self._due:
            return True
        waiting_bytes = self._due.nbytes + self._candidates.nbytes
        return self.waiting < _MAX_WAITING and waiting_bytes < _MAX_WAITING_BYTES

    @property
    def wants_rewards(self) -> bool:
        """Whether the reward log should be read on: no further than the decision cursor needs."""
        line = self._due.head
        target = self.watermark if line is None else int(line.due[line.at])
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
        fresh = _fresh(records, self.next_decision, "decisions")
        if len(fresh):
            self.next_decision = fresh.offsets[-1] + 1
            if self._scanning_from is None:
                self._read_decisions(fresh)
            else:
                self._scan(fresh)
            self._emit()
        return self._flush()

    def push_rewards(self, records: Records) -> Output:
        """Read on in the reward log; see `push_decisions`."""
        fresh = _fresh(records, self.next_reward, "rewards")
        if len(fresh):
            self.next_reward = fresh.offsets[-1] + 1
            self._read_rewards(fresh)
            self._emit()
        return self._flush()

    def position(self) -> Tail:
        """Give where the decision cursor stands: everything up to there is done with."""
        line = self._due.head
        if line is not None:
            return self._at_least_tail(int(line.decisions.offsets[line.at]), line.before)
        if self._candidates:
            return self._at_least_tail(int(self._candidates.offsets[0]), self.watermark)
        if self._scanning_from is not None:
            return self._at_least_tail(self._scanning_from[0], self.watermark)
        return self._at_least_tail(self.next_decision, self.watermark)

    def progress(self) -> Emission | None:
        """Give the progress record of the decision cursor; None before the first tick."""
        return progress_record(self.position(), self.index_size)

    def _at_least_tail(self, first_open: int, before: int | None) -> Tail:
        if first_open - 1 <= self._done_before:
            return Tail(self._done_before, self._before_done)
        return Tail(first_open - 1, before)

    def _read_decisions(self, records: Records) -> None:
        sifted = self._sifter.sift("decision", records)
        decisions = _decisions(sifted)
        bad, start = deque(sifted.bad), 0
        for tick in sifted.ticks:
            end = decisions.since(tick.offset)
            self._refuse_before(tick.offset, "decisions", bad)
            self._candidates += decisions.cut(start, end)
            self._place(tick)
            self._pass_tick(tick)
            start = end
        self._refuse_before(self.next_decision, "decisions", bad)
        self._candidates += decisions.cut(start, len(decisions))
        if self._ahead is not None:
            self._place(self._ahead)
        elif len(self._candidates) > _MAX_WAITING or self._candidates.nbytes > _MAX_WAITING_BYTES:
            self._begin_scan()

    def _begin_scan(self) -> None:
        """Let go of decisions that wait for a tick that doesn't come; look for it alone."""
        first = self._candidates
        self._scanning_from = int(first.offsets[0]), int(first.times[0])
        self._checked_up_to = self.next_decision
        self._candidates = Decisions()

    def _scan(self, records: Records) -> None:
        """Look for the next tick; where it is, step back and read what lies before it."""
        self._ahead = self._sifter.first_tick(records)
        if self._ahead is not None:
            assert self._scanning_from is not None
            self.next_decision, _ = self._scanning_from
            self._scanning_from = None

    def _pass_tick(self, tick: Tick) -> None:
        self._ahead = None
        self.last_tick["decisions"] = tick.time, tick.offset
        self.watermark = tick.time if self.watermark is None else max(tick.time, self.watermark)
        self._table.forget(self.watermark, self.reward_watermark)

    def _place(self, tick: Tick) -> None:
        """Say of all candidates when they are due, now that the tick behind them is known."""
        decisions, self._candidates = self._candidates, Decisions()
        before, rules = self.watermark, tick.rules
        earliest = None if before is None else before - rules.lateness_ms
        latest = (tick.time if before is None else max(tick.time, before)) + rules.skew_ms
        decisions = self._within(decisions, earliest, latest)
        if not decisions:
            return
        times = decisions.times
        segment = self._table.open(
            before=before, window_ms=rules.window_ms, grace_ms=rules.grace_ms
        )
        first, known = self._table.add(Prints.of(decisions.keys), times)
        numbers = np.arange(first, first + len(decisions))
        if known.any():
            fresh = ~self._repeats(decisions, known, first, earliest)
            rows = fresh.nonzero()[0]
            decisions, times, numbers = decisions.pick(rows), times[rows], numbers[rows]
        if decisions:
            part = splice.rules_part(before, rules.window_ms, rules.backward_ms, rules.grace_ms)
            line = Line(decisions, segment.due(times), numbers, before, rules.window_ms, part)
            self._due.append(line)

    def _within(self, decisions: Decisions, earliest: int | None, latest: int) -> Decisions:
        """Refuse the decisions whose time the ticks around them don't allow."""
        times = decisions.times
        least = -math.inf if earliest is None else earliest
        if not decisions or (least <= times.min() and times.max() <= latest):
            return decisions
        good = (least <= times) & (times <= latest)
        for row in np.flatnonzero(~good).tolist():
            record = decisions.record(row)
            if not self._settled_before(record.offset, record.timestamp):
                error = wrong_clock(record.timestamp, earliest, latest)
                self._refuse("decisions", record, error)
        return decisions.pick(np.flatnonzero(good))

    def _settled_before(self, offset: int, ts: int) -> bool:
        """Tell whether an owner before knows better what became of a decision.

        Where the clock stepped back, ticks before our start may have allowed what ours don't. So
        old a decision means nothing to those that we give outcomes.
        """
        done = self._before_done
        return offset <= self._done_before and done is not None and ts < done - self._lateness_ms

    def _repeats(
        self, decisions: Decisions, known: Flags, first: int, earliest: int | None
    ) -> Flags:
        """Tell which decisions repeat an earlier one that isn't too old."""
        repeats = np.zeros(len(decisions), np.bool_)
        for key in {decisions.keys[row] for row in known.nonzero()[0].tolist()}:
            newest: int | None = None
            for entry in self._table.find(key):
                repeat = newest is not None and (earliest is None or newest >= earliest)
                if entry.number >= first and repeat:
                    self._table.mark_repeat(entry.number)
                    repeats[entry.number - first] = True
                newest = entry.ts if newest is None else max(newest, entry.ts)
        fresh = decisions.offsets[repeats] > self._done_before
        self._output.decisions["duplicate"] += int(fresh.sum())
        return repeats

    def _read_rewards(self, records: Records) -> None:
        sifted = self._sifter.sift("reward", records)
        offsets = sifted.good.offsets
        rewards = list(zip(_rewards(sifted, self._skip), sifted.good.values, strict=True))
        bad, start = deque(sifted.bad), 0
        for tick in sifted.ticks:
            end = bisect_left(offsets, tick.offset, start)
            self._refuse_before(tick.offset, "rewards", bad)
            self._arrived += rewards[start:end]
            self._reward_tick(tick)
            start = end
        self._refuse_before(self.next_reward, "rewards", bad)
        self._arrived += rewards[start:]

    def _reward_tick(self, tick: Tick) -> None:
        position = self.reward_watermark
        after = tick.time if position is None else max(tick.time, position)
        latest = after + tick.rules.skew_ms
        admitted = [reward for reward, _ in self._arrived if reward.ts <= latest]
        if len(admitted) < len(self._arrived):
            for reward, value in self._arrived:
                if reward.ts > latest and not self._was_settled(reward.ts):
                    record = Record(reward.offset, reward.ts, reward.decision_id, value, ())
                    self._refuse("rewards", record, wrong_clock(reward.ts, None, latest))
        self._arrived.clear()
        if admitted:
            self._index.admit(admitted, position)
        self.last_tick["rewards"] = tick.time, tick.offset
        self.reward_watermark = after

    def _was_settled(self, ts: int) -> bool:
        """Tell the same of a reward; see `_settled_before`."""
        done = self._before_done
        return self._counted_before and done is not None and ts < done - self._awaited_ms

    def _emit(self) -> None:
        for line, start, end in self._due.leaving(self.reward_watermark):
            silent = min(max(line.decisions.since(self._done_before + 1), start), end)
            self._emitter.pass_by(line, start, silent)
            self._emitter.emit(line, silent, end, self._output)
            self._index.passed = int(line.numbers[end - 1]) + 1
        head = self._due.head
        stands = self.watermark if head is None else head.before
        if stands is not None:
            self._index.forget(stands, self._output.rewards)

    def _refuse_before(self, offset: int, log: Log, bad: deque[Bad]) -> None:
        while bad and bad[0].record.offset < offset:
            record, error = bad.popleft()
            if log == "rewards" or record.offset >= self._checked_up_to:
                self._refuse(log, record, error)

    def _refuse(self, log: Log, record: Record, error: EventError) -> None:
        decision = log == "decisions"
        again = record.offset <= self._done_before if decision else self._counted_before
        self._output.refusals.append(Refusal(log, record, error.reason, error.detail, again))
        counts = self._output.decisions if decision else self._output.rewards
        counts["invalid"] += not again

    @property
    def _counted_before(self) -> bool:
        """Whether a reward at the reward cursor is in the accounts of an owner before."""
        done, reached = self._before_done, self.reward_watermark
        return done is not None and (reached is None or reached <= done)

    def _flush(self) -> Output:
        output, self._output = self._output, _empty_output()
        return output


def _empty_output() -> Output:
    return Output(Emissions([], [], []), [], Counter(), Counter(), [])


def _fresh(records: Records, expected: int, log: Log) -> Records:
    if len(records) and records.start > expected:
        raise LogGapError(
            f"the {log} log jumps: expected records from offset {expected}, got them from "
            f"{records.start}; nothing is skipped silently"
        )
    return records if records.start == expected else records.since(expected)


def _decisions(sifted: Sifted) -> Decisions:
    good = sifted.good
    keys, values = cast("list[bytes]", good.keys), cast("list[bytes]", good.values)
    offsets = _numbers(good.offsets)
    return Decisions(offsets, sifted.times, keys, values, sifted.frames, sifted.sizes)


def _numbers(offsets: Sequence[int]) -> npt.NDArray[np.int64]:
    if offsets and offsets[-1] - offsets[0] + 1 == len(offsets):
        return np.arange(offsets[0], offsets[-1] + 1)
    return np.array(offsets, np.int64)


def _rewards(sifted: Sifted, start: int) -> list[Reward]:
    """Give a batch of the reward log as what waits; `start` is the length of the bytes' header."""
    good = sifted.good
    parts = map(splice.reward_part, sifted.frames, repeat(start), good.offsets)
    return list(map(Reward, cast("list[bytes]", good.keys), good.timestamps, good.offsets, parts))
