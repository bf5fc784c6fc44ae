"""The audit of one partition on logs in memory: clean, trimmed, cut to a span, or broken."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bandstand.errors import StateError
from bandstand.schemas.topics import TICK_KEY
from bandstand.streams import audit_partition
from bandstand.streams.audit_partition import AuditLogs, PartitionAudit, Span
from bandstand.streams.join_types import Emission, Record, Records
from tests.streams.join_oracle import Entry, judge
from tests.streams.test_join_core import (
    BACKWARD,
    LATENESS,
    SKEW,
    WIRE,
    Driver,
    filtered,
    logs,
    records,
    rules,
    tick,
)

EXAMPLES = int(os.environ.get("JOIN_EXAMPLES", "100")) // 4


class ListLog:
    """A log in memory, from an offset on, given in pieces of any size."""

    def __init__(self, rows: Sequence[Record], seed: int, start: int = 0) -> None:
        self.rows = [row for row in rows if row.offset >= start]
        self.start = start
        self.end = rows[-1].offset + 1 if rows else start
        self._random = random.Random(seed)

    def at(self, timestamp: int) -> int:
        """Do what Kafka's timestamp index does."""
        return next((row.offset for row in self.rows if row.timestamp >= timestamp), self.start)

    def read(self, offset: int) -> Records:
        """Give some of the next records."""
        rows = [row for row in self.rows if offset <= row.offset < self.end]
        return Records.of(rows[: self._random.choice((1, 2, 3, 100))], offset)


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
    decisions: Sequence[Record],
    rewards: Sequence[Record],
    outcomes: Sequence[Record],
    seed: int = 0,
    *,
    starts: tuple[int, int, int] = (0, 0, 0),
    span: Span | None = None,
) -> PartitionAudit:
    """Audit three logs."""
    rows = (decisions, rewards, outcomes)
    given_logs = AuditLogs(
        *(ListLog(log, seed, start) for log, start in zip(rows, starts, strict=True))
    )
    audit = PartitionAudit(given_logs, rules(), WIRE, max_outcome_bytes=10_000, span=span)
    for _ in audit.read_on(given_logs, last=True):
        pass
    assert audit.closes, (audit.decisions, audit.rewards, audit.comparison.counts)
    return audit


def joined(both: tuple[list[Entry], list[Entry]], seed: int, *, restarts: bool) -> Driver:
    """Run the join over two logs."""
    driver = Driver(records(both[0], reward=False), records(both[1], reward=True), seed)
    driver.run(restarts=restarts)
    return driver


@settings(max_examples=EXAMPLES, deadline=None)
@given(logs(), st.integers(0, 2**32))
def test_what_the_join_wrote_is_equal_and_every_event_has_a_state(
    both: tuple[list[Entry], list[Entry]], seed: int
) -> None:
    """Restarts and zombies leave nothing to find; the counts are the oracle's."""
    driver = joined(both, seed, restarts=True)
    audit = audited(driver.decisions, driver.rewards, topic(driver.topic), seed)
    counts = audit.comparison.counts
    assert (audit.comparison.faults, counts["unjudged"]) == (0, 0), audit.comparison.differences
    assert counts["equal"] == len(filtered(driver.topic))
    verdicts = judge(*both, LATENESS, BACKWARD, SKEW)
    assert counts["expected"] == len(verdicts.outcomes)
    assert audit.decisions.states == Counter(verdicts.decisions.values())
    assert audit.decisions.records == len(both[0])
    assert audit.decisions.ticks == sum(entry.is_tick for entry in both[0])


@settings(max_examples=EXAMPLES, deadline=None)
@given(logs(), st.integers(0, 2**32), st.integers(900, 2_500), st.integers(0, 1_000))
def test_a_span_judges_the_decisions_in_it_and_no_others(
    both: tuple[list[Entry], list[Entry]], seed: int, since: int, length: int
) -> None:
    """The core begins early enough for the state to be right where judging begins."""
    driver = joined(both, seed, restarts=True)
    span = Span(since, since + length)
    audit = audited(driver.decisions, driver.rewards, topic(driver.topic), seed, span=span)
    assert audit.comparison.faults == 0, audit.comparison.differences
    within = [
        outcome
        for outcome in judge(*both, LATENESS, BACKWARD, SKEW).outcomes
        if outcome.before is not None and since <= outcome.before < since + length
    ]
    assert audit.comparison.counts["expected"] == len(within)


def trimmable(log: list[Entry]) -> list[int]:
    """Give the offsets at which a log may begin: no tick before is later than the first one left.

    A broker whose clock was set back just there could mislead an audit, by so much.
    """
    found = []
    for start in range(len(log)):
        gone = [entry.time for entry in log[:start] if entry.is_tick]
        left = [entry.time for entry in log[start:] if entry.is_tick]
        if not gone or not left or max(gone) <= left[0]:
            found.append(start)
    return found


@settings(max_examples=EXAMPLES, deadline=None)
@given(logs(), st.integers(0, 2**32), st.data())
def test_trimmed_inputs_are_judged_from_where_nothing_gone_matters(
    both: tuple[list[Entry], list[Entry]], seed: int, data: st.DataObject
) -> None:
    """Retention deleted the beginning of a log: nothing is called wrong for that."""
    assume(all(both))
    decision_start, reward_start = (data.draw(st.sampled_from(trimmable(log))) for log in both)
    driver = joined(both, seed, restarts=True)
    audit = audited(
        driver.decisions,
        driver.rewards,
        topic(driver.topic),
        seed,
        starts=(decision_start, reward_start, 0),
    )
    assert audit.comparison.faults == 0, audit.comparison.differences
    assert audit.decisions.records == len(both[0]) - decision_start


@settings(max_examples=EXAMPLES, deadline=None)
@given(logs(), st.integers(0, 2**32), st.integers(0))
def test_trimmed_outcomes_are_truncated_not_missing(
    both: tuple[list[Entry], list[Entry]], seed: int, start: int
) -> None:
    """Retention deleted the beginning of the outcomes: nobody says that they were never there."""
    driver = joined(both, seed, restarts=False)
    found = topic(driver.topic)
    start = start % max(len(found), 1)
    audit = audited(driver.decisions, driver.rewards, found, seed, starts=(0, 0, start))
    counts = audit.comparison.counts
    assert audit.comparison.faults == 0
    assert (counts["truncated"], counts["equal"]) == (start, len(found) - start)


def simple(count: int) -> tuple[list[Record], list[Record], list[Record]]:
    """Give logs of a lane with a decision between any two ticks, and its outcomes."""
    both: tuple[list[Entry], list[Entry]] = ([], [])
    for number in range(count):
        time = 1_000 + 10 * number
        for log in both:
            log.append(Entry(time, None, "", 50, 10))
        both[0].append(Entry(time + 1, f"d{number}"))
        both[1].append(Entry(time + 2, f"d{number}", "r"))
    driver = joined(both, 0, restarts=False)
    return driver.decisions, driver.rewards, topic(driver.topic)


def test_where_judging_begins_in_a_trimmed_log() -> None:
    """From `lateness + backward + skew` after the first tick that is left, to the millisecond."""
    decisions, rewards, outcomes = simple(30)
    audit = audited(decisions, rewards, outcomes, starts=(2, 0, 0))
    assert LATENESS + BACKWARD + SKEW == 75
    assert audit.judged_from_ms == 1_010 + 80
    first = next(row for row in decisions if row.timestamp == 1_091)
    assert audit.comparison.judge_from == first.offset
    counts = audit.comparison.counts
    assert counts["unjudged"] == 9
    assert counts["unjudged"] + counts["equal"] == len(outcomes)


def test_a_log_that_is_too_short_is_not_judged() -> None:
    """Less is left than is needed to know anything: no outcome is judged, and none is wrong."""
    decisions, rewards, outcomes = simple(30)
    audit = audited(decisions, rewards, outcomes, starts=(2, 59, 0))
    assert audit.comparison.judge_from is None
    assert audit.comparison.counts["unjudged"] == len(outcomes)


def test_every_round_goes_on_where_the_one_before_ended() -> None:
    """Followed while it grows, a topic is judged as it is judged at once."""
    decisions, rewards, outcomes = simple(60)
    empty = AuditLogs(*(ListLog([], 1) for _ in range(3)))
    audit = PartitionAudit(empty, rules(), WIRE, max_outcome_bytes=10_000)
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
    decisions, rewards, outcomes = simple(200)
    given_logs = AuditLogs(*map(in_memory, (decisions, rewards, outcomes[:1])))
    audit = PartitionAudit(given_logs, rules(), WIRE, max_outcome_bytes=10_000)
    for _ in audit.read_on(given_logs, last=False):
        pass
    assert 4 < audit.comparison.waiting < 110
    assert audit.rewards.records < len(rewards)


def test_a_tick_that_the_core_refuses_is_invalid_not_a_tick() -> None:
    """The sum closes over broken ticks, too."""
    broken = Record(2, 1_002, TICK_KEY, None, [("tick", b"{}")])
    audit = audited([tick(0, 1_000), tick(1, 1_001), broken], [tick(0, 1_000)], [])
    assert (audit.decisions.ticks, audit.decisions.states) == (2, {"invalid": 1})


def test_a_lane_of_other_settings_is_an_error() -> None:
    """Another lateness than the ticks' would judge by other rules."""
    other = Record(0, 1_000, TICK_KEY, None, [("tick", rules()._replace(skew_ms=1).to_header())])
    with pytest.raises(StateError, match="for good"):
        audited([other], [], [])
