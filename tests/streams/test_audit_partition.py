"""The audit of one partition on logs in memory: clean, trimmed, cut to a span, or broken."""

from __future__ import annotations

import os
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.errors import StateError
from bandstand.streams import audit_partition, join_core
from bandstand.streams.audit_partition import AuditLogs, PartitionAudit, Span
from bandstand.streams.join_types import Emission, Log, Record, Records
from tests.streams.join_driver import Owner, Partition, Schedule, rules_of, run
from tests.streams.join_generators import SMALL, large_logs, small_logs
from tests.streams.join_logs import START, WIRE, Logs
from tests.streams.join_oracle import Entry

EXAMPLES = int(os.environ.get("JOIN_EXAMPLES", "150")) // 3
SEEDS = st.integers(0, 2**32)
RULES = rules_of(SMALL)


class ListLog:
    """A log in memory, from an offset on, given in pieces of any size."""

    def __init__(
        self,
        rows: Sequence[Record],
        seed: int,
        start: int = 0,
        polls: Sequence[int] = (1, 2, 3, 100),
    ) -> None:
        self.rows = [row for row in rows if row.offset >= start]
        self.start = start
        self.end = rows[-1].offset + 1 if rows else start
        self._random = random.Random(seed)
        self._polls = polls

    def at(self, timestamp: int) -> int:
        """Do what Kafka's timestamp index does."""
        return next((row.offset for row in self.rows if row.timestamp >= timestamp), self.start)

    def read(self, offset: int) -> Records:
        """Give some of the next records."""
        first = bisect_left(self.rows, offset, key=lambda row: row.offset)
        return Records.of(self.rows[first : first + self._random.choice(self._polls)], offset)


def in_memory(rows: Sequence[Record]) -> ListLog:
    """Give a log from its start."""
    return ListLog(rows, 1)


def topic(emissions: Sequence[Emission]) -> list[Record]:
    """Give emissions as the records of an outcome topic."""
    return [
        Record(offset, emission.timestamp, emission.key, emission.value, emission.headers or ())
        for offset, emission in enumerate(emissions)
    ]


def audited(
    logs: Logs,
    outcomes: Sequence[Record],
    seed: int = 0,
    *,
    starts: tuple[int, int, int] = (0, 0, 0),
    span: Span | None = None,
) -> PartitionAudit:
    """Audit the outcomes of two logs."""
    polls = (1, 2, 3, 100) if logs.lane is SMALL else (5_000,)
    rows = (*logs.records.values(), outcomes)
    three = AuditLogs(
        *(ListLog(log, seed, start, polls) for log, start in zip(rows, starts, strict=True))
    )
    rules, most = rules_of(logs.lane), logs.lane.max_outcome_bytes
    audit = PartitionAudit(three, rules, WIRE, max_outcome_bytes=most, span=span)
    for _ in audit.read_on(three, last=True):
        pass
    assert audit.closes, (audit.decisions, audit.rewards, audit.comparison.counts)
    return audit


def small(seed: int) -> Logs:
    """Write small logs."""
    draw = random.Random(seed)
    return small_logs(lambda options: draw.choice(options))


def joined(logs: Logs, seed: int, restarts: float = 0.1) -> list[Record]:
    """Let the join read two logs, in as many hands as restarts make, and give its topic."""
    polls = (1, 2, 3, 100) if logs.lane is SMALL else (500, 5_000)
    schedule = Schedule(seed, polls=polls, restarts=restarts, looks=0.0)
    return topic(run(logs, schedule, ignore).outcomes)


def ignore(partition: Partition, owner: Owner) -> None:
    """Look at nothing on the way."""


def befores(logs: Logs) -> list[int | None]:
    """Give the tick before each decision that has an outcome, as the oracle has it."""
    return [WIRE.loads("outcome", outcome.value)["before"] for outcome in logs.judged().outcomes]


@settings(max_examples=EXAMPLES, deadline=None)
@given(SEEDS)
def test_what_the_join_wrote_is_equal_and_every_event_has_a_state(seed: int) -> None:
    """Restarts and zombies leave nothing to find; the counts are the oracle's."""
    logs = small(seed)
    found = joined(logs, seed)
    audit = audited(logs, found, seed)
    counts = audit.comparison.counts
    assert (audit.comparison.faults, counts["unjudged"]) == (0, 0), audit.comparison.differences
    read: dict[Log, int] = {
        "decisions": audit.core.next_decision,
        "rewards": audit.core.next_reward,
    }
    verdicts = logs.judged(read)
    assert counts["expected"] == counts["equal"] == len(verdicts.outcomes)
    for account, states, entries in (
        (audit.decisions, verdicts.decisions, logs.entries["decisions"]),
        (audit.rewards, verdicts.rewards, logs.entries["rewards"]),
    ):
        of_log = [entry for entry in entries if entry.offset < account.counted_to]
        assert account.records == len(of_log)
        assert account.ticks == sum(entry.settings is not None for entry in of_log)
        still_open = Counter(open=account.open)
        assert +(account.states + still_open) == Counter(states.values())


@settings(max_examples=EXAMPLES, deadline=None)
@given(SEEDS, st.integers(-20, 300), st.integers(0, 300))
def test_a_span_judges_the_decisions_in_it_and_no_others(
    seed: int, after: int, length: int
) -> None:
    """The core begins early enough for the state to be right where judging begins."""
    logs, since = small(seed), START + after
    audit = audited(logs, joined(logs, seed), seed, span=Span(since, since + length))
    assert audit.comparison.faults == 0, audit.comparison.differences
    within = [b for b in befores(logs) if b is not None and since <= b < since + length]
    assert audit.comparison.counts["expected"] == len(within)


def trimmable(entries: list[Entry]) -> list[int]:
    """Give the offsets at which a log may begin: no tick before is later than the first one left.

    A broker whose clock was set back just there would mislead an audit, by so much.
    """
    found, largest = [0], None
    for at, entry in enumerate(entries):
        left = (other.time for other in entries[at:] if other.settings is not None)
        if largest is None or largest <= next(left, largest):
            found.append(entry.offset)
        if entry.settings is not None:
            largest = entry.time if largest is None else max(largest, entry.time)
    return found


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(SEEDS)
def test_trimmed_inputs_are_judged_from_where_nothing_gone_matters(seed: int) -> None:
    """Retention deleted the beginning of a log: nothing is called wrong for that."""
    logs, draw = small(seed), random.Random(seed)
    decisions, rewards = (draw.choice(trimmable(entries)) for entries in logs.entries.values())
    audit = audited(logs, joined(logs, seed), seed, starts=(decisions, rewards, 0))
    assert audit.comparison.faults == 0, audit.comparison.differences
    kept = [entry for entry in logs.entries["decisions"] if entry.offset >= decisions]
    assert audit.decisions.records == len(kept)


@settings(max_examples=EXAMPLES, deadline=None)
@given(SEEDS)
def test_trimmed_outcomes_are_truncated_not_missing(seed: int) -> None:
    """Retention deleted the beginning of the outcomes: nobody says that they were never there."""
    logs = small(seed)
    found = joined(logs, seed, restarts=0)
    start = seed % max(len(found), 1)
    counts = audited(logs, found, seed, starts=(0, 0, start)).comparison.counts
    assert (counts["truncated"], counts["equal"]) == (start, len(found) - start)


def test_hours_at_settings_like_the_defaults() -> None:
    """Whole, from the middle on and trimmed: nothing is found where nothing is wrong."""
    logs = large_logs(random.Random(2), 100)
    found = joined(logs, 2, restarts=0)
    whole = audited(logs, found).comparison
    assert (whole.faults, whole.counts["pending"], whole.counts["unjudged"]) == (0, 0, 0)
    assert whole.counts["equal"] > 500
    since = WIRE.loads("outcome", found[len(found) * 3 // 4].value)["before"]
    cut = audited(logs, found, span=Span(since, since + 300_000)).comparison
    assert (cut.faults, cut.counts["pending"]) == (0, 0)
    assert 20 < cut.counts["equal"] < whole.counts["equal"] // 4
    middle = logs.records["decisions"][300].offset
    trimmed = audited(logs, found, starts=(middle, 0, 0)).comparison
    assert trimmed.faults == 0
    assert 0 < trimmed.counts["unjudged"] < trimmed.counts["found"] - 100


def simple(count: int) -> tuple[Logs, list[Record]]:
    """Give logs of a lane with a decision between any two ticks, and its outcomes."""
    logs = Logs(SMALL)
    for number in range(count):
        time = START + 10 * number
        for log in logs.records:
            logs.tick(log, time, 50, 10)
        logs.decision(f"d{number}", time + 1)
        logs.reward(f"d{number}", "r", time + 2)
    return logs, joined(logs, 0, restarts=0)


def test_where_judging_begins_in_a_trimmed_log() -> None:
    """From `lateness + backward + skew` after the first tick that is left, to the millisecond."""
    logs, outcomes = simple(30)
    audit = audited(logs, outcomes, starts=(2, 0, 0))
    assert SMALL.lateness + SMALL.backward + SMALL.skew == 75
    assert audit.judged_from_ms == START + 10 + 80
    assert audit.comparison.judge_from == 2 * 9 + 1
    counts = audit.comparison.counts
    assert counts["unjudged"] == 9
    assert counts["unjudged"] + counts["equal"] == len(outcomes)


def test_a_span_that_has_ended_is_not_read_beyond() -> None:
    """Once the last decision before the end of the span has its outcome, nothing more is read."""
    logs, outcomes = simple(300)
    audit = audited(logs, outcomes, seed=3, span=Span(START + 1_000, START + 1_200))
    counts = audit.comparison.counts
    assert (counts["expected"], counts["equal"], audit.comparison.faults) == (20, 20, 0)
    assert audit.rewards.records < 300
    assert counts["found"] < 150


def test_a_log_that_is_too_short_is_not_judged() -> None:
    """Less is left than is needed to know anything: no outcome is judged, and none is wrong."""
    logs, outcomes = simple(30)
    audit = audited(logs, outcomes, starts=(2, 59, 0))
    assert audit.comparison.judge_from is None
    assert audit.comparison.counts["unjudged"] == len(outcomes)


def test_every_round_goes_on_where_the_one_before_ended() -> None:
    """Followed while it grows, a topic is judged as it is judged at once."""
    logs, outcomes = simple(60)
    decisions, rewards = logs.records.values()
    empty = AuditLogs(*(ListLog([], 1) for _ in range(3)))
    audit = PartitionAudit(empty, RULES, WIRE, max_outcome_bytes=1_000)
    for found, read in ((0, 30), (5, 60), (20, 60), (len(outcomes), len(decisions))):
        now = AuditLogs(*map(in_memory, (decisions[:read], rewards[:read], outcomes[:found])))
        for _ in audit.read_on(now, last=False):
            pass
        assert audit.closes
        assert audit.comparison.counts["equal"] == found
    assert audit.comparison.faults == audit.comparison.counts["pending"] == 0


def test_a_join_that_is_far_behind_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed, the audit keeps few outcomes that the join hasn't written yet."""
    monkeypatch.setattr(audit_partition, "_AHEAD", 4)
    logs, outcomes = simple(200)
    decisions, rewards = logs.records.values()
    given_logs = AuditLogs(*map(in_memory, (decisions, rewards, outcomes[:1])))
    audit = PartitionAudit(given_logs, RULES, WIRE, max_outcome_bytes=1_000)
    for _ in audit.read_on(given_logs, last=False):
        pass
    assert 4 < audit.comparison.waiting < 110
    assert audit.rewards.records < len(rewards)


@pytest.mark.parametrize("ends", [True, False])
def test_decisions_that_are_read_twice_count_once(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stretch without ticks is read again when its end is found; the sum closes in it, too."""
    monkeypatch.setattr(join_core, "_MAX_WAITING", 5)
    logs, outcomes = simple(30)
    for number in range(40):
        logs.decision(f"e{number}", START + 291)
    if ends:
        logs.tick("decisions", START + 300, 50, 10)
        logs.tick("rewards", START + 900, 50, 10)
    audit = audited(logs, outcomes)
    assert (audit.decisions.records, audit.decisions.ticks) == (100 + ends, 30 + ends)
    assert audit.core.scanning is not ends
    still_open = 30 - len(outcomes) + 40
    assert audit.decisions.open == (0 if ends else still_open)
    assert (audit.comparison.faults, audit.comparison.counts["pending"]) == (0, still_open * ends)


def test_a_tick_that_the_core_refuses_is_invalid_not_a_tick() -> None:
    """The sum closes over broken ticks, too."""
    logs = Logs(SMALL)
    logs.tick("decisions", START, 50, 10)
    logs.unusable("decisions", "tick", "x", START + 1)
    account = audited(logs, []).decisions
    assert (account.records, account.ticks, account.states) == (2, 1, {"invalid": 1})


def test_a_lane_of_other_settings_is_an_error() -> None:
    """Another skew than the ticks' would judge by other rules."""
    logs = Logs(SMALL._replace(skew=1))
    logs.tick("decisions", START, 50, 10)
    three = AuditLogs(*map(in_memory, (logs.records["decisions"], [], [])))
    audit = PartitionAudit(three, RULES, WIRE, max_outcome_bytes=1_000)
    with pytest.raises(StateError, match="for good"):
        list(audit.read_on(three, last=True))
