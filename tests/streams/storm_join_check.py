"""Holds a lane's topics, record by record, against the join's pure core and the senders.

One core a partition reads the logs from their start and goes on from round to round; so a check
costs what has come since the last one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

from bandstand.errors import EventError
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.settings import Settings
from bandstand.streams.audit_core import FAULTS, Comparison
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import (
    Log,
    Record,
    Records,
    Refusal,
    Rules,
)
from tests.streams.bench import WIRE
from tests.streams.storm_follower import Arrival, DifferenceError
from tests.streams.storm_join_load import Content, Ledger
from tests.streams.storm_letters import Letters

__all__ = ["Checks", "PartitionCheck"]

_STILL_UNDER_WAY_S = 0.2
"""An outcome that comes so soon after a kill was sent by the dead."""


class PartitionCheck:
    """One partition of a lane: what the core makes of the logs beside what is there.

    Parameters
    ----------
    partition
        Its number.
    rules, max_outcome_bytes
        The lane's.
    """

    def __init__(self, partition: int, rules: Rules, max_outcome_bytes: int) -> None:
        self._partition = partition
        self.core = JoinCore(
            rules,
            WIRE,
            max_outcome_bytes=max_outcome_bytes,
            tail=None,
            decision_start=0,
            reward_start=0,
        )
        self.comparison = Comparison(WIRE)
        self.comparison.judge_from = 0
        self.events: Counter[Log] = Counter()
        """Records that aren't ticks."""
        self.states: dict[Log, Counter[str]] = {"decisions": Counter(), "rewards": Counter()}
        self.expected = 0
        """Outcomes that the core has given."""
        self.digest = sha256()
        """Of their bytes."""

    def read(self, log: Log, records: list[Record]) -> list[Refusal]:
        """Read on in one of the two logs; give what the core refuses."""
        self.events[log] += sum(not _is_tick(record) for record in records)
        pushed, core = Records.of(records), self.core
        output = core.push_decisions(pushed) if log == "decisions" else core.push_rewards(pushed)
        self.states["decisions"] += output.decisions
        self.states["rewards"] += output.rewards
        self.expected += len(output.emissions)
        for value in output.emissions.values:
            self.digest.update(value)
        self.comparison.expect(output.emissions, core.position().source_offset)
        return output.refusals

    @property
    def unfinished(self) -> str:
        """What is still to come; empty where nothing is."""
        parts = {
            "decisions wait": self.core.waiting,
            "outcomes are missing": self.comparison.waiting,
            "outcomes come from nowhere": self.comparison.blocked,
        }
        return ", ".join(f"{count} {what}" for what, count in parts.items() if count)

    def account(self) -> None:
        """Check that every event is in exactly one state, or open.

        Raises
        ------
        DifferenceError
            If a sum doesn't close.
        """
        still = {"decisions": self.core.waiting, "rewards": self.core.open_rewards}
        for log, count in self.events.items():
            states = self.states[log]
            if count != states.total() + still[log]:
                raise DifferenceError(
                    f"the accounts of {log}/{self._partition} don't close: {count} records, "
                    f"{dict(states)}, {still[log]} open"
                )
        if not self.comparison.closes:
            raise DifferenceError(f"not every outcome was judged: {self.comparison.counts}")


class Checks:
    """All partitions of a lane, its dead letters, and the promises of its senders.

    Parameters
    ----------
    settings
        The lane's; it is called ``default``.
    ledger
        What was sent.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        lane, names = settings.lanes["default"], TopicNames(settings.topics.prefix)
        decisions, rewards, self._outcomes = names.lane("default")
        self._logs: dict[str, Log] = {decisions: "decisions", rewards: "rewards"}
        self._letter_topic = names.dead_letters
        self._ledger = ledger
        self.partitions = [
            PartitionCheck(partition, Rules.from_settings(lane), lane.max_outcome_bytes)
            for partition in range(lane.partitions)
        ]
        self.letters = Letters()
        self.recoveries: list[tuple[str, float]] = []
        """Kinds of kills, and the seconds until a moved partition's next outcome."""
        self._next: dict[tuple[str, int], int] = {}
        self._reached: dict[int, int] = {}
        self._kills: dict[int, list[tuple[str, float]]] = {}

    @property
    def topics(self) -> list[str]:
        """What must be followed."""
        return [*self._logs, self._outcomes, self._letter_topic]

    def struck(self, kind: str, at: float, partitions: Iterable[int]) -> None:
        """Measure the time until the next outcome of these partitions."""
        for partition in partitions:
            self._kills.setdefault(partition, []).append((kind, at))

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """Check what came.

        Raises
        ------
        DifferenceError
            At the first thing that isn't as it must be.
        """
        batches: dict[tuple[str, int], list[Record]] = {}
        for arrival in arrivals:
            self._follow(arrival)
            if arrival.topic == self._letter_topic:
                self.letters.take(arrival.record)
            elif arrival.topic == self._outcomes:
                self._outcome(arrival)
            batches.setdefault(arrival[:2], []).append(arrival.record)
        for (topic, partition), records in batches.items():
            if topic == self._letter_topic:
                continue
            check = self.partitions[partition]
            if topic == self._outcomes:
                check.comparison.take(records)
            else:
                log = self._logs[topic]
                for record in records:
                    if not _is_tick(record):
                        content = Content.of(log, record.key, record.timestamp, record.value)
                        self._ledger.read(content)
                for refusal in check.read(log, records):
                    self._refuse(f"{topic}/{partition}", refusal)
            self._raise_faults(check, partition)

    @property
    def unfinished(self) -> str:
        """What is still to come; empty where nothing is."""
        parts = [
            f"partition {number}: {check.unfinished}"
            for number, check in enumerate(self.partitions)
            if check.unfinished
        ]
        for what, which in (
            ("records that were delivered aren't there", self._ledger.unread),
            ("decisions sent honestly have no outcome", self._ledger.open),
        ):
            if which:
                parts.append(f"{len(which)} {what}, e.g. {next(iter(which))!r}")
        return "; ".join(parts + self.letters.unfinished)

    def close_round(self) -> None:
        """Check that all accounts close; see `PartitionCheck.account`, `Ledger.close_round`."""
        self._ledger.close_round()
        for check in self.partitions:
            check.account()
        self._kills.clear()

    def _follow(self, arrival: Arrival) -> None:
        place, offset = arrival[:2], arrival.record.offset
        if offset != self._next.get(place, 0):
            raise DifferenceError(f"{place}: offset {offset} comes after {self._next.get(place)}")
        self._next[place] = offset + 1

    def _raise_faults(self, check: PartitionCheck, partition: int) -> None:
        comparison = check.comparison
        if comparison.faults:
            first = min(
                (one for one in comparison.differences if one.kind in FAULTS),
                key=lambda one: -1 if one.offset is None else one.offset,
            )
            raise DifferenceError(
                f"{self._outcomes}/{partition}, {comparison.faults} differences, the first: {first}"
            )

    def _outcome(self, arrival: Arrival) -> None:
        """Filter as a reader does, and compare with what the senders know."""
        partition, record = arrival.partition, arrival.record
        if record.value is None:
            return
        try:
            outcome = WIRE.loads("outcome", record.value)
        except EventError:
            return  # the comparison says so
        if outcome["source_offset"] <= self._reached.get(partition, -1):
            return
        self._reached[partition] = outcome["source_offset"]
        wrong = self._ledger.settle(outcome, (record.key or b"").decode())
        if wrong is not None:
            raise DifferenceError(
                f"{self._outcomes}/{partition}, offset {record.offset}: {wrong}; "
                f"the outcome is {outcome}"
            )
        waiting = []
        for kind, at in self._kills.pop(arrival.partition, ()):
            if arrival.at - at > _STILL_UNDER_WAY_S:
                self.recoveries.append((kind, arrival.at - at))
            else:
                waiting.append((kind, at))
        if waiting:
            self._kills[arrival.partition] = waiting

    def _refuse(self, log: str, refusal: Refusal) -> None:
        record, reason = refusal.record, refusal.reason
        if reason == "clock" and self._ledger.is_open((record.key or b"").decode()):
            raise DifferenceError(f"{log}: an honest record was refused for its time: {record}")
        self.letters.refuse(log, record, reason)


def _is_tick(record: Record) -> bool:
    return record.key == TICK_KEY and record.value is None and bool(record.headers)
