"""The commands about dead letters, on a real broker."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings, load_settings
from bandstand.streams import topics
from bandstand.streams.dead_letters import DeadLetters, Origin
from tests.bandstand.calling import Call
from tests.streams.given import everything_in
from tests.waiting import PATIENCE_S

WIRE = Wire.single_object()
NOW = int(time.time() * 1_000)


def decision(decision_id: str, bandit: str = "home", ts: int = NOW) -> dict[str, Any]:
    """Give a decision."""
    fields = {"bandit": bandit, "decision_id": decision_id, "subject": "s", "ts": ts}
    return {**fields, "action": "a", "propensity": 0.5}


@pytest.fixture
def settings(kafka: Kafka) -> Settings:
    """Write letters of several reasons, roles and bandits; give the settings."""
    del kafka
    settings = load_settings()
    topics.create(settings)
    log = TopicNames(settings.topics.prefix).decisions("default")
    with DeadLetters(settings, "join", WIRE) as letters:
        for i, (reason, bandit) in enumerate(
            [("schema", "home"), ("schema", "other"), ("clock", "home"), ("clock", "home")]
        ):
            value = WIRE.dumps("decision", decision(f"d{i}", bandit))
            letters.send(Origin(log, 0, i, NOW, f"d{i}".encode(), value), reason, "old")
        cut = WIRE.dumps("decision", decision("d4"))[:-3]
        for _ in range(2):
            letters.send(Origin(log, 0, 4, NOW, b"d4", cut), "truncated", "ends early")
        letters.flush(PATIENCE_S)
    outcomes = TopicNames(settings.topics.prefix).outcomes("default")
    with DeadLetters(settings, "learn", WIRE) as letters:
        letters.send(Origin(outcomes, 0, 9, NOW, b"k", b"\xff"), "magic", "no frame")
        letters.flush(PATIENCE_S)
    return settings


def rows(call: Call, *arguments: str) -> list[dict[str, Any]]:
    """Run a command that prints JSON rows and nothing else."""
    code, out, _ = call("dead-letters", *arguments, "--json")
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)
    return found


def counted(found: list[dict[str, Any]], *by: str) -> dict[tuple[str, ...], int]:
    """Give the number of letters by columns."""
    return {tuple(row[name] for name in by): row["letters"] for row in found}


def test_letters_are_counted_by_reason_topic_and_bandit(
    settings: Settings, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record counts once; filters and bandits apply where the bytes tell the bandit."""
    monkeypatch.setenv("COLUMNS", "200")
    found = rows(call, "list")
    assert counted(found, "reason", "role") == {
        ("schema", "join"): 2,
        ("clock", "join"): 2,
        ("truncated", "join"): 1,
        ("magic", "learn"): 1,
    }
    [truncated] = [row for row in found if row["reason"] == "truncated"]
    assert truncated["repeats"] == 1
    assert truncated["first"] <= truncated["last"]
    assert counted(rows(call, "list", "--reason", "clock"), "reason") == {("clock",): 2}
    by_bandit = rows(call, "list", "--by-bandit")
    assert counted(by_bandit, "reason", "bandit") == {
        ("schema", "home"): 1,
        ("schema", "other"): 1,
        ("clock", "home"): 2,
        ("truncated", None): 1,
        ("magic", None): 1,
    }
    assert counted(rows(call, "list", "--bandit", "other"), "reason") == {("schema",): 1}
    outcomes = TopicNames(settings.topics.prefix).outcomes("default")
    assert counted(rows(call, "list", "--topic", outcomes), "reason") == {("magic",): 1}
    assert "truncated" in call("dead-letters", "list").out


def test_one_letter_is_shown(settings: Settings, call: Call) -> None:
    """A value is decoded where it can be, else shown in hex; what isn't there is one line."""
    log = TopicNames(settings.topics.prefix).decisions("default")
    shown: dict[str, Any] = json.loads(call("dead-letters", "show", f"{log}/0/0", "--json").out)
    assert (shown["reason"], shown["key"], shown["value"]["bandit"]) == ("schema", "d0", "home")
    assert (shown["repeats"], shown["redriven_to"], shown["value_hex"]) == (0, None, None)
    shown = json.loads(call("dead-letters", "show", f"{log}/0/4", "--json").out)
    assert shown["value"] is None
    assert bytes.fromhex(shown["value_hex"]) == WIRE.dumps("decision", decision("d4"))[:-3]
    assert "ends early" in call("dead-letters", "show", f"{log}/0/4").out
    missing = call("dead-letters", "show", f"{log}/0/99")
    assert (missing.code, missing.out) == (1, "")
    assert f"no dead letter of {log}/0/99" in missing.err
    assert "is no origin; allowed: topic/partition/offset" in call("dead-letters", "show", "x").err


def test_redrive_says_what_it_does_and_why_not(settings: Settings, call: Call) -> None:
    """A dry run tells what a run then does; what stays has its reason; list knows it after."""
    log = TopicNames(settings.topics.prefix).decisions("default")
    dry = rows(call, "redrive", "--dry-run")
    assert counted(dry, "verdict", "reason") == {
        ("readable", "schema"): 2,
        ("clock", "clock"): 2,
        ("unreadable", "truncated"): 1,
        ("not_an_event", "magic"): 1,
    }
    assert everything_in(settings, log) == []
    [clock] = [row for row in dry if row["verdict"] == "clock"]
    assert "replay it into a lane of its own" in clock["why"]
    assert counted(rows(call, "redrive", "--bandit", "other"), "verdict") == {("redriven",): 1}
    done = call("dead-letters", "redrive", "--reason", "schema")
    assert "published: 1; published before: 1" in done.err
    assert [m.key() for m in everything_in(settings, log)] == [b"d1", b"d0"]
    [schema] = rows(call, "list", "--reason", "schema")
    assert (schema["letters"], schema["redriven"]) == (2, 2)
    [other] = rows(call, "list", "--bandit", "other")
    assert (other["letters"], other["redriven"]) == (1, 1)
    shown = json.loads(call("dead-letters", "show", f"{log}/0/0", "--json").out)
    assert shown["redriven_to"] == f"{log}/0/1"


def test_one_record_is_repaired(
    settings: Settings, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repaired record, as JSON or as bytes, goes where it belongs under its own key and time."""
    log = TopicNames(settings.topics.prefix).decisions("default")
    (tmp_path / "d4.json").write_text(json.dumps(decision("d4", ts=NOW - 5)))
    repaired = call("dead-letters", "redrive", f"{log}/0/4", "--repair", "d4.json")
    assert repaired.code == 0
    later = WIRE.dumps("decision", decision("d2", ts=NOW - 7))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(later)))
    assert call("dead-letters", "redrive", f"{log}/0/2", "--repair", "-").code == 0
    messages = everything_in(settings, log)
    assert [(m.key(), m.timestamp()[1]) for m in messages] == [(b"d4", NOW - 5), (b"d2", NOW - 7)]
    assert messages[1].value() == later
    assert call("dead-letters", "redrive", "--repair", "d4.json").code == 2
    (tmp_path / "wrong.json").write_text('{"bandit": "home"}')
    wrong = call("dead-letters", "redrive", f"{log}/0/3", "--repair", "wrong.json")
    assert (wrong.code, wrong.out) == (1, "")
    assert "this can't be a decision" in wrong.err
    gone = call("dead-letters", "redrive", f"{log}/0/99")
    assert (gone.code, gone.out) == (1, "")
    assert "no dead letter of" in gone.err
