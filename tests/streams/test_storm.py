"""Ten rounds of the join's storm, and that its checks see what they are for."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bandstand.settings import LaneSettings, Settings
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import Log, Record, Records, Rules
from tests.streams.bench import WIRE
from tests.streams.join_logs import Logs
from tests.streams.join_oracle import Lane
from tests.streams.storm import run
from tests.streams.storm_follower import Arrival, DifferenceError
from tests.streams.storm_join import JOIN
from tests.streams.storm_join_check import Checks
from tests.streams.storm_join_load import Content, Ledger
from tests.streams.storm_plan import kinds

SEED, ROUNDS = 7, 10
AT = 1_700_000_000_000
RULES = Rules(50, 10, 40, 15, 10_000)
MS = "{}ms".format


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def test_ten_rounds(tmp_path: Path) -> None:
    """Whatever is killed, frozen, added and removed: the outcomes are those of the pure core."""
    result = run(JOIN, tmp_path / "storm", rounds=ROUNDS, seed=SEED, say=_say)
    assert set(result["faults"]) == {str(kind) for kind in kinds(JOIN.groups)}
    for log, states in (("decisions", 5), ("rewards", 7)):
        assert len(result[log]) == states, result[log]
    assert result["outcomes"] > 100 * ROUNDS
    assert result["seconds_to_next_outcome"]


class Topics:
    """What a lane of one partition holds when all went well, to be spoilt."""

    def __init__(self) -> None:
        lane = LaneSettings.model_validate(
            {
                "window": MS(RULES.window_ms),
                "grace": MS(RULES.grace_ms),
                "lateness": MS(RULES.lateness_ms),
                "backward": MS(RULES.backward_ms),
                "skew": MS(RULES.skew_ms),
                "partitions": 1,
            }
        )
        settings = Settings.model_validate({"lanes": {"default": lane}, "topics": {"prefix": "t."}})
        self.ledger = Ledger(patience=1.0)
        self.checks = Checks(settings, self.ledger)
        logs = Logs(
            Lane(RULES.lateness_ms, RULES.backward_ms, RULES.skew_ms, lane.max_outcome_bytes)
        )
        for number in range(4):
            logs.decision(f"d{number}", AT + number)
            logs.reward(f"d{number}", "r", AT + number)
        logs.unusable("decisions", "magic", "x", AT)
        for log in ("decisions", "rewards"):
            for after in (10, 1_000):
                logs.tick(log, AT + after, RULES.window_ms, RULES.grace_ms)
        self.decisions, self.rewards = logs.records["decisions"], logs.records["rewards"]
        for log, records in logs.records.items():
            for record in records[:-2]:
                self.deliver(log, record)
        core = JoinCore(
            RULES,
            WIRE,
            max_outcome_bytes=lane.max_outcome_bytes,
            tail=None,
            decision_start=0,
            reward_start=0,
        )
        outputs = [
            core.push_decisions(Records.of(self.decisions)),
            core.push_rewards(Records.of(self.rewards)),
        ]
        self.outcomes = [e for output in outputs for e in output.emissions]
        bad = self.decisions[4]
        letter = {
            "reason": "magic",
            "detail": "",
            "role": "join",
            "topic": "t.default.decisions",
            "partition": 0,
            "offset": bad.offset,
            "ts": bad.timestamp,
            "key": bad.key,
            "value": bad.value,
        }
        self.letter = b"t.default.decisions/0/4", letter
        self.letters = 1

    def deliver(self, log: Log, record: Record) -> None:
        """Let a sender learn that the broker took its record."""
        content = Content.of(log, record.key, record.timestamp, record.value)
        self.ledger.on_delivery(content, None, None)

    def check(self) -> str:
        """Give what the checks find unfinished."""
        records: dict[str, list[Record]] = {
            "default.decisions": self.decisions,
            "default.rewards": self.rewards,
            "default.outcomes": [
                Record(at, e.timestamp, e.key, e.value, e.headers or ())
                for at, e in enumerate(self.outcomes)
            ],
            "dead-letters": [
                Record(at, AT, self.letter[0], WIRE.dumps("dead_letter", self.letter[1]), ())
                for at in range(self.letters)
            ],
        }
        for topic, rows in records.items():
            self.checks.take(Arrival(f"t.{topic}", 0, time.monotonic(), row) for row in rows)
        unfinished = self.checks.unfinished
        if not unfinished:
            self.checks.close_round()
        return unfinished


@pytest.fixture
def topics() -> Topics:
    """Give topics in which nothing is wrong."""
    return Topics()


def test_nothing_wrong_is_found_where_nothing_is(topics: Topics) -> None:
    """Repeats of a worker that lost its partition, and of letters, are no difference."""
    topics.outcomes += topics.outcomes[2:]
    topics.letters = 2
    for number in range(4):
        topics.ledger.promise(f"d{number}")
        topics.ledger.promise_reward(f"d{number}", "r", time.time())
    assert topics.check() == ""
    [partition] = topics.checks.partitions
    assert partition.comparison.counts["repeated"] == 2
    assert topics.checks.letters.repeats == 1


def test_a_lost_outcome_is_found(topics: Topics) -> None:
    """One that is missing in between is named; one at the end is waited for."""
    last = topics.outcomes.pop()
    assert "1 outcomes are missing" in topics.check()
    topics = Topics()
    topics.outcomes[1:] = [*topics.outcomes[2:], last]
    with pytest.raises(DifferenceError, match=r"t\.default\.outcomes/0.*kind='missing', offset=1"):
        topics.check()


@pytest.mark.parametrize("field", ["value", "key", "timestamp"])
def test_an_outcome_with_other_bytes_is_found(topics: Topics, field: str) -> None:
    """A byte, the key or the timestamp: each is a difference."""
    outcome = topics.outcomes[1]
    assert outcome.value is not None
    other: dict[str, Any] = {
        "value": outcome.value[:-1] + bytes([outcome.value[-1] ^ 1]),
        "key": b"e",
        "timestamp": AT,
    }
    topics.outcomes[1] = outcome._replace(**{field: other[field]})
    with pytest.raises(DifferenceError, match="kind='altered', offset=1"):
        topics.check()


def test_an_outcome_for_nothing_is_found(topics: Topics) -> None:
    """An outcome that the core doesn't give: it waits for a decision that never comes."""
    topics.decisions.pop(3)
    topics.decisions[3:] = [row._replace(offset=row.offset - 1) for row in topics.decisions[3:]]
    topics.rewards.pop(3)
    topics.rewards[3:] = [row._replace(offset=row.offset - 1) for row in topics.rewards[3:]]
    with pytest.raises(DifferenceError, match="kind='foreign', offset=3"):
        topics.check()


def test_a_repeat_with_other_bytes_is_found(topics: Topics) -> None:
    """What readers drop must be what they kept."""
    changed = topics.outcomes[1]
    assert changed.value is not None
    topics.outcomes.append(changed._replace(value=changed.value[:-1] + b"\x7f"))
    with pytest.raises(DifferenceError, match="kind='repeat_altered', offset=4"):
        topics.check()


def test_a_promise_that_is_broken_is_found(topics: Topics) -> None:
    """Whatever the logs say: what was sent in time must be in an outcome."""
    topics.ledger.promise("d1")
    topics.ledger.promise_reward("d1", "another", time.time())
    with pytest.raises(DifferenceError, match=r"offset 1: decision 'd1' lacks .*'another'"):
        topics.check()


def test_a_promised_decision_without_outcome_is_found(topics: Topics) -> None:
    """It is waited for, and named."""
    topics.ledger.promise("gone")
    assert topics.check() == "1 decisions sent honestly have no outcome, e.g. 'gone'"


def test_a_slow_reward_is_excused_but_not_for_an_outage() -> None:
    """On a busy machine a reward may come too late; while the broker is away the clock waits."""
    now, outcome = time.time(), {"state": "defaulted", "rewards": []}
    for excused, away in ((1, False), (0, True)):
        ledger = Ledger(patience=5.0)
        ledger.promise("d")
        ledger.promise_reward("d", "r", now - 60)
        if away:
            ledger._outages.append((now - 58, now - 1))
        ledger.on_delivery(Content("rewards", b"d", 0, 0), ("d", "r"), None)
        assert (ledger.settle(outcome, "d") is None) == bool(excused)
        assert ledger.excused == excused


def test_a_second_outcome_is_found() -> None:
    """One for the same decision under another source offset, say."""
    ledger, outcome = Ledger(patience=1.0), {"state": "defaulted", "rewards": []}
    ledger.promise("d")
    assert ledger.settle(outcome, "d") is None
    assert ledger.settle(outcome, "d") == "decision 'd' has a second outcome"


def test_a_record_that_was_delivered_and_isnt_there_is_found(topics: Topics) -> None:
    """What the broker took and lost again isn't forgotten."""
    topics.deliver("rewards", topics.rewards[0]._replace(timestamp=AT + 9))
    assert "1 records that were delivered aren't there" in topics.check()


def test_a_record_that_nobody_sent_is_found(topics: Topics) -> None:
    """What producers wrote twice is counted; anything else that is too much is an error."""
    topics.ledger.read(Content("rewards", b"d1", AT, 1))
    with pytest.raises(AssertionError, match="nobody sent"):
        topics.check()
    twice = Topics()
    record = twice.rewards[0]
    twice.ledger.read(Content.of("rewards", record.key, record.timestamp, record.value))
    assert twice.check() == ""
    assert twice.ledger.client_repeats == 1


def test_letters_are_found_to_be_missing_foreign_and_wrong(topics: Topics) -> None:
    """Each refused record has its letter, with its reason and bytes, and no other one has."""
    topics.letters = 0
    assert "1 letters are missing" in topics.check()
    foreign = Topics()
    foreign.letter = b"t.default.decisions/0/0", foreign.letter[1]
    assert "1 letters are about nothing refused" in foreign.check()
    wrong = Topics()
    wrong.letter[1]["reason"] = "schema"
    with pytest.raises(DifferenceError, match=r"the letter about t\.default\.decisions/0/4"):
        wrong.check()


def test_an_account_that_doesnt_close_is_found(topics: Topics) -> None:
    """A decision that is in no state stops the storm."""
    topics.check()
    topics.checks.partitions[0].states["decisions"]["joined"] -= 1
    with pytest.raises(DifferenceError, match="the accounts of decisions/0 don't close: 5 records"):
        topics.checks.close_round()
