"""The audit of one partition: the core run once more over its logs, its outcomes compared; pure.

The core is fed as a worker feeds it, so that memory stays as small, and the outcome topic is read
in step with what it gives. Where logs come from, and when they end, is the caller's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, Protocol

from bandstand.errors import EventError
from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.streams.audit_core import Comparison
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import (
    TICK_HEADER,
    Output,
    Records,
    Rules,
    Tail,
    resume_times,
)

__all__ = ["Account", "AuditLog", "AuditLogs", "PartitionAudit", "Span"]

_AHEAD = 20_000
"""Expected outcomes that may wait for the join before the audit waits, too."""


class AuditLog(Protocol):
    """One log, from its first record that is kept to an end that is fixed."""

    @property
    def start(self) -> int:
        """First offset that is kept."""

    @property
    def end(self) -> int:
        """Offset at which reading ends; what came behind it since is left out."""

    def at(self, timestamp: int) -> int:
        """Give an offset before which no record that is kept has this timestamp or a later one."""

    def read(self, offset: int) -> Records:
        """Give some of the next records from an offset on; none where the end is reached."""


class AuditLogs(NamedTuple):
    """The logs of one partition; the end of the outcomes was fixed before those of the inputs."""

    decisions: AuditLog
    rewards: AuditLog
    outcomes: AuditLog


class Span(NamedTuple):
    """Decisions are judged whose `before` lies in here: milliseconds, half open; None: no bound."""

    since: int | None = None
    until: int | None = None


@dataclass
class Account:
    """What was read of one input log, and what became of it."""

    records: int = 0
    ticks: int = 0
    states: Counter[str] = field(default_factory=Counter)
    counted_to: int = 0
    """Offset up to which records are counted: the core may ask for some of them again."""

    @property
    def open(self) -> int:
        """Events that have no state yet."""
        return self.records - self.ticks - self.states.total()


class PartitionAudit:
    """The audit of one partition.

    Parameters
    ----------
    logs
        Where they begin.
    rules
        The lane's settings.
    wire
        How events are framed.
    max_outcome_bytes
        The lane's.
    span
        What is to be judged; all by default.
    complete
        Whether the inputs hold every decision of which an outcome can be found.
    """

    def __init__(
        self,
        logs: AuditLogs,
        rules: Rules,
        wire: Wire,
        *,
        max_outcome_bytes: int,
        span: Span | None = None,
        complete: bool = True,
    ) -> None:
        self._span = span or Span()
        self._rules = rules
        decisions, rewards, self.next_outcome = self._starts(logs)
        self._floor = self._judge_from(logs, decisions, rewards)
        self.core = JoinCore(
            rules,
            wire,
            max_outcome_bytes=max_outcome_bytes,
            tail=None,
            decision_start=decisions,
            reward_start=rewards,
        )
        self.comparison = Comparison(
            wire, complete=complete, deleted=self.next_outcome == logs.outcomes.start > 0
        )
        if self._floor is None:
            self.comparison.judge_from = decisions
        self.decisions = Account(counted_to=decisions)
        self.rewards = Account(counted_to=rewards)
        self.judged_from_ms: int | None = None
        """Tick from which on is judged; None: from the log's start, or nothing."""
        self._watermark: int | None = None

    @property
    def closes(self) -> bool:
        """Whether all that was read became exactly one thing, as far as the core knows, too."""
        return (
            (self.decisions.open == self.core.waiting or self.core.scanning)
            and self.rewards.open == self.core.open_rewards
            and self.comparison.closes
        )

    def read_on(self, logs: AuditLogs, *, last: bool) -> Iterator[int]:
        """Read the logs up to their ends and compare; give the input records read, piece by piece.

        Parameters
        ----------
        logs
            The same logs as before, with the same ends or later ones.
        last
            Whether nothing will be read after this: what was not found is ``pending`` then.
            Otherwise reading stops where the join runs far behind.
        """
        comparison = self.comparison
        comparison.limit = logs.decisions.end
        while not self._is_over:
            more = self._find_expected(logs.outcomes)
            if last and not more:
                comparison.end()
            if not last and not more and comparison.waiting > _AHEAD:
                break
            read = self._read_inputs(logs)
            if not read:
                break
            yield read
        if not self._is_over:
            while self._find(logs.outcomes):
                pass
            comparison.judge_rest()
        if last:
            comparison.end()

    @property
    def _is_over(self) -> bool:
        """Whether all that lies in the span has been judged."""
        until = self.comparison.judge_until
        if until is None or self.core.position().source_offset < until - 1:
            return False
        return not self.comparison.waiting and not self.comparison.blocked

    def _find_expected(self, outcomes: AuditLog) -> bool:
        """Read outcomes while some are expected; False where there are no more."""
        while self.comparison.waiting and not self.comparison.blocked:
            if not self._find(outcomes):
                return False
        return True

    def _find(self, outcomes: AuditLog) -> bool:
        records = outcomes.read(self.next_outcome)
        self.comparison.take([records.row(at) for at in range(len(records))])
        if len(records):
            self.next_outcome = records.offsets[-1] + 1
        return len(records) > 0

    def _read_inputs(self, logs: AuditLogs) -> int:
        core = self.core
        if core.wants_decisions:
            records = logs.decisions.read(core.next_decision)
            if len(records):
                self._count(self.decisions, records)
                self._take(core.push_decisions(records))
                return len(records)
        if core.wants_rewards:
            records = logs.rewards.read(core.next_reward)
            if len(records):
                self._count(self.rewards, records)
                self._take(core.push_rewards(records))
                return len(records)
        return 0

    def _take(self, output: Output) -> None:
        self.decisions.states.update(output.decisions)
        self.rewards.states.update(output.rewards)
        self.comparison.expect(output.emissions, self.core.position().source_offset)

    def _count(self, account: Account, records: Records) -> None:
        fresh = records.since(account.counted_to)
        if not len(fresh):
            return
        account.records += len(fresh)
        account.counted_to = fresh.offsets[-1] + 1
        for offset, time in _ticks(fresh):
            account.ticks += 1
            if account is self.decisions:
                self._pass_tick(offset, time)

    def _pass_tick(self, offset: int, time: int) -> None:
        """Follow the decision log's watermark: where it reaches a bound, judging begins or ends."""
        comparison = self.comparison
        self._watermark = time if self._watermark is None else max(time, self._watermark)
        floor = self._floor
        if comparison.judge_from is None and floor is not None and self._watermark >= floor:
            comparison.judge_from = offset + 1
            self.judged_from_ms = self._watermark
        until = self._span.until
        if comparison.judge_until is None and until is not None and self._watermark >= until:
            comparison.judge_until = offset + 1

    def _starts(self, logs: AuditLogs) -> tuple[int, int, int]:
        """Give the offsets at which the three logs must be read for the span."""
        since = self._span.since
        times = None if since is None else resume_times(Tail(-1, since), self._rules)
        if since is None or times is None:
            return logs.decisions.start, logs.rewards.start, logs.outcomes.start
        # No outcome is older than its `before` less `lateness`: earlier ones aren't judged.
        earliest = since - self._rules.lateness_ms
        return logs.decisions.at(times[0]), logs.rewards.at(times[1]), logs.outcomes.at(earliest)

    def _judge_from(self, logs: AuditLogs, decisions: int, rewards: int) -> float | None:
        """Give the tick from which on outcomes are judged; None: all are.

        Where the beginning of a log is gone, what is gone may have been a first copy of a decision,
        or a reward, with a time of up to the first tick that is left plus ``skew``.
        """
        rules = self._rules
        gone = rules.lateness_ms + rules.backward_ms + rules.skew_ms
        floors: list[float] = [] if self._span.since is None else [self._span.since]
        for log, start in ((logs.decisions, decisions), (logs.rewards, rewards)):
            if start == log.start > 0:
                floors.append(_first_tick(log) + gone + 1)
        return max(floors, default=None)


def _first_tick(log: AuditLog) -> float:
    """Give the time of the first tick that is kept; infinity where there is none."""
    at = log.start
    while len(records := log.read(at)):
        for _, time in _ticks(records):
            return time
        at = records.offsets[-1] + 1
    return inf


def _ticks(records: Records) -> Iterator[tuple[int, int]]:
    """Give offset and time of the ticks, those left out that the core refuses."""
    for at, value in enumerate(records.values):
        if value is None and records.keys[at] == TICK_KEY:
            record = records.row(at)
            try:
                Rules.from_header(next((v for k, v in record.headers if k == TICK_HEADER), b""))
            except EventError:
                continue
            yield record.offset, record.timestamp
