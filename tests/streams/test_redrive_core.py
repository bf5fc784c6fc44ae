"""Verdicts on dead letters: those of the join itself, asked before anything is published."""

from __future__ import annotations

import pytest

from bandstand.errors import BandstandError
from bandstand.schemas.wire import Wire
from bandstand.settings import KafkaSettings, Settings
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import TICK_HEADER, Output, Record, Records, Rules
from bandstand.streams.letter_types import Letter, decode_value, event_names, parse_origin, repair
from bandstand.streams.redrive_core import LogNow, judge, refuse

WIRE = Wire.single_object()
RULES = Rules(window_ms=600, grace_ms=50, lateness_ms=1_000, backward_ms=100, skew_ms=300)
NOW = 1_700_000_000_000
NAMES = event_names(Settings(kafka=KafkaSettings()))


def decision(ts: int, decision_id: str = "d") -> bytes:
    """Write a decision."""
    fields = {"bandit": "b", "decision_id": decision_id, "subject": "s", "ts": ts}
    return WIRE.dumps("decision", {**fields, "action": "a", "propensity": 0.5})


def reward(ts: int, value: float = 1.0) -> bytes:
    """Write a reward."""
    fields = {"bandit": "b", "decision_id": "d", "reward_id": "r", "name": "click", "ts": ts}
    return WIRE.dumps("reward", {**fields, "value": value})


def letter(
    value: bytes | None, ts: int, *, log: str = "decisions", reason: str = "schema"
) -> Letter:
    """Give a letter of the join."""
    topic = f"bandstand.default.{log}"
    return Letter(NOW, reason, "", "join", topic, 0, 7, ts, b"d", value)


def now(log: str, watermark: int | None = NOW) -> LogNow:
    """Give a log whose newest tick is of now."""
    return LogNow("decisions" if log == "decisions" else "rewards", RULES, [watermark], NOW)


def tick(offset: int, ts: int) -> Record:
    """Give a tick of the lane."""
    return Record(offset, ts, b"bandstand.tick", None, [(TICK_HEADER, RULES.to_header())])


def joined(decisions: list[Record], rewards: list[Record]) -> list[Output]:
    """Let the join read two logs."""
    core = JoinCore(
        RULES, WIRE, max_outcome_bytes=10_000, tail=None, decision_start=0, reward_start=0
    )
    return [core.push_decisions(Records.of(decisions)), core.push_rewards(Records.of(rewards))]


@pytest.mark.parametrize("off", [-1_001, -1_000, 0, 299, 300, 301])
def test_a_decision_is_taken_if_the_join_takes_it(off: int) -> None:
    """At both ends of the time allowed the verdict is what the join does with the same record."""
    ts = NOW + off
    [verdict] = judge([letter(decision(ts), ts)], now("decisions"), WIRE)
    record = Record(1, ts, b"d", decision(ts), ())
    output, _ = joined([tick(0, NOW), record, tick(2, NOW)], [])
    assert (verdict.word == "readable") == (not output.refusals)
    if output.refusals:
        assert verdict.word == "clock"
        assert output.refusals[0].detail in verdict.why
        assert "replay it into a lane of its own" in verdict.why


@pytest.mark.parametrize("behind", [1_149, 1_150, 1_151])
def test_a_reward_is_late_if_no_decision_can_count_it(behind: int) -> None:
    """A reward stays where even the last decision that it could count for is closed."""
    ts = NOW - behind
    [verdict] = judge([letter(reward(ts), ts, log="rewards")], now("rewards"), WIRE)
    # The last decision for it: as late as may be, and decided as long after it as may be.
    latest = ts + RULES.backward_ms
    log = [
        tick(0, latest + RULES.lateness_ms),
        Record(1, latest, b"d", decision(latest), ()),
        tick(2, latest + RULES.lateness_ms + 1),
    ]
    far = tick(2, NOW + 100_000)
    _, output = joined(log, [tick(0, NOW), Record(1, ts, b"d", reward(ts), ()), far])
    assert output.decisions == {"joined" if verdict.word == "readable" else "defaulted": 1}
    assert verdict.word in ("readable", "late")


def test_the_joins_checks_are_asked_again() -> None:
    """Bytes, key, timestamp and value: what the join refuses is unreadable, with its words."""
    bad = [
        letter(decision(NOW)[:-3], NOW),
        letter(decision(NOW), NOW + 1),
        letter(decision(NOW, "other"), NOW),
        letter(None, NOW),
    ]
    good = letter(decision(NOW), NOW)
    verdicts = list(judge([*bad, good], now("decisions"), WIRE))
    assert [v.word for v in verdicts] == ["unreadable"] * 4 + ["readable"]
    reasons = [v.why.split(":")[0] for v in verdicts[:4]]
    assert reasons == ["truncated", "timestamp", "key", "empty"]
    endless = letter(reward(NOW, float("inf")), NOW, log="rewards")
    [verdict] = judge([endless], now("rewards"), WIRE)
    assert (verdict.word, verdict.why.split(":")[0]) == ("unreadable", "value")


def test_without_ticks_any_past_time_is_taken() -> None:
    """A log in which the join never wrote has no lower bound, as in the join."""
    old = letter(decision(5), 5)
    [verdict] = judge([old], now("decisions", None), WIRE)
    assert verdict.word == "readable"


def test_a_wrong_time_stays_wrong_until_it_is_repaired() -> None:
    """A record refused for its time isn't taken once that time has come; a repaired one is."""
    wrong = letter(decision(NOW - 10), NOW - 10, reason="clock")
    [verdict] = judge([wrong], now("decisions"), WIRE)
    assert verdict.word == "clock"
    repaired = repair(wrong, decision(NOW - 20), NAMES, WIRE)
    assert (repaired.key, repaired.ts, repaired.reason) == (b"d", NOW - 20, "clock")
    [verdict] = judge([repaired], now("decisions"), WIRE)
    assert verdict.word == "readable"


def test_what_no_service_sent_stays() -> None:
    """Letters of other roles and of unknown lanes are told why they stay."""
    refused = letter(b"x", NOW)._replace(role="learn", topic="bandstand.default.outcomes")
    other_lane = letter(b"x", NOW)._replace(topic="bandstand.gone.decisions")
    whys = [verdict.why for verdict in refuse([refused, other_lane])]
    assert whys[0].startswith("learn refused what Bandstand itself had written")
    assert whys[1].startswith("its topic is no lane of these settings")


def test_values_are_decoded_by_their_topic() -> None:
    """A decision is shown as one, what can't be read isn't."""
    good = decode_value(letter(decision(NOW), NOW), NAMES, WIRE)
    assert good is not None
    assert good["bandit"] == "b"
    assert decode_value(letter(b"{}", NOW), NAMES, WIRE) is None


def test_an_origin_is_topic_partition_and_offset() -> None:
    """What is none is named, with what is allowed."""
    assert parse_origin("a/b.rewards/1/2") == ("a/b.rewards", 1, 2)
    for wrong in ("7", "a.rewards/7", "a.rewards/1/-2", "/1/2"):
        with pytest.raises(BandstandError, match="is no origin; allowed: topic/partition/offset"):
            parse_origin(wrong)
