"""What an audit found, as tables and as one document; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bandstand.streams.audit_core import FAULTS, NOTICES, Difference
from bandstand.streams.audit_partition import Account, AuditLogs, PartitionAudit

__all__ = ["DECISION_STATES", "REWARD_STATES", "PartitionReport", "summed"]

DECISION_STATES = ("joined", "defaulted", "oversize", "duplicate", "invalid")
REWARD_STATES = ("joined", "late", "out_of_window", "duplicate", "unmatched", "invalid")
_OUTCOMES = ("found", "expected", "equal", *FAULTS, *NOTICES, "unjudged", "progress")


@dataclass(frozen=True)
class PartitionReport:
    """What the audit of one partition found.

    Parameters
    ----------
    lane, partition
        Which one.
    topic
        Name of its outcome topic.
    judged_from, judged_until
        Source offsets of the first decision that was judged and of the first that wasn't any more;
        None: nothing was judged, no end was set.
    judged_from_ms
        The tick from which on was judged; None: from the start of the log.
    decisions, rewards
        Records by what became of them; ``unread``: offsets that nothing had to be read of.
    outcomes
        Outcomes by what became of them.
    differences
        The first ones of each kind.
    closes
        Whether all sums do.
    """

    lane: str
    partition: int
    topic: str
    judged_from: int | None
    judged_until: int | None
    judged_from_ms: int | None
    decisions: Mapping[str, int]
    rewards: Mapping[str, int]
    outcomes: Mapping[str, int]
    differences: Sequence[Difference]
    closes: bool

    @classmethod
    def of(
        cls, lane: str, partition: int, topic: str, audit: PartitionAudit, logs: AuditLogs
    ) -> PartitionReport:
        """Read off an audit, which may go on."""
        comparison = audit.comparison
        return cls(
            lane,
            partition,
            topic,
            comparison.judge_from,
            comparison.judge_until,
            audit.judged_from_ms,
            _row(audit.decisions, DECISION_STATES, logs.decisions.end),
            _row(audit.rewards, REWARD_STATES, logs.rewards.end),
            {kind: comparison.counts[kind] for kind in _OUTCOMES},
            tuple(comparison.differences),
            audit.closes,
        )

    @property
    def records(self) -> int:
        """Records that were read, of all three logs."""
        return self.decisions["records"] + self.rewards["records"] + self.outcomes["found"]

    @property
    def faults(self) -> int:
        """Differences that no honest writer can make."""
        return sum(self.outcomes[kind] for kind in FAULTS)

    def document(self) -> dict[str, Any]:
        """Give all of it for a program."""
        return {
            **self.__dict__,
            "differences": self.difference_rows(),
        }

    def difference_rows(self) -> list[dict[str, Any]]:
        """Give each difference with its place."""
        return [
            {
                "kind": difference.kind,
                "topic": self.topic,
                "partition": self.partition,
                "offset": difference.offset,
                "source_offset": difference.source_offset,
                "expected": difference.expected,
                "found": difference.found,
            }
            for difference in self.differences
        ]


def summed(rows: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Add up rows of equal columns.

    Examples
    --------
    >>> summed([{"joined": 1, "open": 0}, {"joined": 2, "open": 0}])
    {'joined': 3, 'open': 0}
    """
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row)
    return {name: total[name] for row in rows[:1] for name in row}


def _row(account: Account, states: Sequence[str], end: int) -> dict[str, int]:
    return {
        "records": account.records,
        "ticks": account.ticks,
        **{state: account.states[state] for state in states},
        "open": account.open,
        "unread": max(end - account.counted_to, 0),
    }
