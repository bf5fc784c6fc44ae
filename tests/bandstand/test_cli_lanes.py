"""The commands about lanes, on a real broker."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from bandstand.kafka import producer_config
from bandstand.local import Kafka
from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.serving.ids import TimeOrderedIds
from bandstand.settings import Settings, load_settings
from bandstand.streams import topics
from bandstand.streams.join_types import PROGRESS_HEADER, PROGRESS_KEY
from tests.bandstand.calling import Call
from tests.waiting import PATIENCE_S

WIRE = Wire.single_object()
MINUTE, HOUR = 60_000, 3_600_000
Row = tuple[bytes, bytes | None, int, dict[str, bytes]]


@pytest.fixture
def settings(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Make the topics of two lanes of one partition; the second one stays empty."""
    del kafka
    monkeypatch.setenv("BANDSTAND_LANES__EMPTY__PARTITIONS", "1")
    monkeypatch.setenv("BANDSTAND_LANES__DEFAULT__WINDOW", "10m")
    monkeypatch.setenv("BANDSTAND_LANES__DEFAULT__BACKWARD", "1s")
    settings = load_settings()
    topics.create(settings)
    return settings


def write(settings: Settings, log: str, rows: Iterable[Row]) -> None:
    """Write records into a log of the lane ``default``."""
    producer = Producer(producer_config(settings))
    topic = f"{settings.topics.prefix}default.{log}"
    for key, value, ts, headers in rows:
        producer.produce(topic, value, key, 0, timestamp=ts, headers=list(headers.items()))
    assert producer.flush(PATIENCE_S) == 0


def tick(ts: int) -> Row:
    """Give a tick."""
    return TICK_KEY, None, ts, {}


def decision(decision_id: str, ts: int) -> dict[str, Any]:
    """Give a decision."""
    fields = {"bandit": "b", "decision_id": decision_id, "subject": "s", "ts": ts}
    return {**fields, "action": "a", "propensity": 0.5}


def outcome(source_offset: int, ts: int, before: int, name: str = "d", *delays: int) -> Row:
    """Give an outcome with one reward a delay."""
    rewards = [
        {"reward_id": f"r{i}", "name": "click", "value": 1.0, "ts": ts + delay, "offset": i}
        for i, delay in enumerate(delays)
    ]
    fields = {"source_offset": source_offset, "before": before, "window_ms": 10 * MINUTE}
    fields |= {"backward_ms": 0, "grace_ms": 0}
    state = "joined" if delays else "defaulted"
    value = {**fields, "state": state, "rewards": rewards, "decision": decision(name, ts)}
    return name.encode(), WIRE.dumps("outcome", value), ts, {}


def reward(decision_id: str, ts: int, *, stamp: int | None = None, name: str = "click") -> Row:
    """Give a reward."""
    fields = {"bandit": "b", "decision_id": decision_id, "reward_id": "r", "name": name}
    value = WIRE.dumps("reward", {**fields, "value": 1.0, "ts": ts})
    return decision_id.encode(), value, ts if stamp is None else stamp, {}


def progress(source_offset: int, before: int, rewards: int) -> Row:
    """Give a progress record."""
    said = {"source_offset": source_offset, "before": before, "rewards": rewards}
    return PROGRESS_KEY, None, before, {PROGRESS_HEADER: json.dumps(said).encode()}


def event(ts: int) -> Row:
    """Give a decision as its log has it."""
    return b"d", WIRE.dumps("decision", decision("d", ts)), ts, {}


def lanes(call: Call, *arguments: str) -> list[dict[str, Any]]:
    """Run `lanes --json`."""
    code, out, _ = call("lanes", *arguments, "--json")
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_every_figure_of_a_lane_is_that_of_its_topics(settings: Settings, call: Call) -> None:
    """Watermarks, lag, the oldest open decision and the index are read from logs written here."""
    now = int(time.time() * 1_000)
    begin = now - 100_000
    log = [tick(begin), event(begin + 1_000), event(begin + 2_000), tick(begin + 10_000)]
    log += [tick(begin + 20_000), event(begin + 15_000), event(begin + 9_000), tick(begin + 40_000)]
    write(settings, "decisions", log)
    write(settings, "rewards", [tick(begin), tick(begin + 30_000), reward("d", begin)])
    write(settings, "outcomes", [progress(0, begin, 17), outcome(1, begin + 1_000, begin)])
    [row] = lanes(call, "--lane", "default")
    ages = {name: row[name] for name in row if name.endswith("age_s")}
    took = ages["index_age_s"] - 100  # how long the command took
    assert took >= 0
    assert {name: round(age - took) for name, age in ages.items()} == {
        "decisions_watermark_age_s": 60,
        "rewards_watermark_age_s": 70,
        "oldest_open_age_s": 98,
        "index_age_s": 100,
    }
    assert (row["lag_records"], row["lag_s"], row["index_rewards"]) == (6, 40.0, 17)
    write(settings, "outcomes", [progress(3, begin + 10_000, 3)])
    [row] = lanes(call, "--lane", "default")
    assert (row["lag_records"], row["lag_s"], row["index_rewards"]) == (4, 30.0, 3)
    assert round(row["oldest_open_age_s"] - row["index_age_s"]) == -5
    write(settings, "outcomes", [progress(7, begin + 40_000, 0)])
    [row] = lanes(call, "--lane", "default")
    assert (row["lag_records"], row["lag_s"], row["oldest_open_age_s"]) == (0, 0.0, None)


def test_a_fresh_lane_has_no_figures_yet(settings: Settings, call: Call) -> None:
    """Without ticks and outcomes nothing is made up; an unknown lane is one line."""
    rows = lanes(call)
    assert [row["lane"] for row in rows] == ["default", "empty"]
    assert rows[1] == {
        "lane": "empty",
        "partition": 0,
        "decisions_watermark_age_s": None,
        "rewards_watermark_age_s": None,
        "lag_records": 0,
        "lag_s": None,
        "oldest_open_age_s": None,
        "index_rewards": None,
        "index_age_s": None,
    }
    unknown = call("lanes", "--lane", "nowhere")
    assert (unknown.code, unknown.out) == (1, "")
    assert "lane 'nowhere' is not set up" in unknown.err
    assert call("lanes", "--watch", "--json").code == 2
    assert call("lanes", "--json", "delays").code == 2


def test_watch_draws_again_until_it_is_interrupted(settings: Settings, tmp_path: Path) -> None:
    """In a terminal the table follows the topics; Ctrl-C ends it with exit code 0."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bandstand", "lanes", "--lane", "default", "--watch"]
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment
    ) as process:
        os.close(theirs)
        try:
            _read_until(ours, "decisions")
            log = [tick(1_000), *(event(1_000) for _ in range(4_321)), tick(2_000)]
            write(settings, "decisions", log)
            _read_until(ours, "4323")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            os.close(ours)


def _read_until(terminal: int, text: str) -> None:
    seen, deadline = b"", time.monotonic() + PATIENCE_S
    while text.encode() not in seen:
        assert time.monotonic() < deadline, seen[-3_000:]
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65_536)


def test_delays_of_a_lane_without_a_joined_pair(settings: Settings, call: Call) -> None:
    """Where no outcome has a reward, all that is known is how many rewards tell nothing."""
    now = int(time.time() * 1_000)
    write(settings, "rewards", [reward("order-1", now)])
    write(settings, "outcomes", [outcome(3, now, now, "order-2"), progress(4, now, 1)])
    code, out, _ = call("lanes", "delays", "--lane", "default", "--json")
    [found] = json.loads(out)
    assert (code, found["rewards"], found["notes"]) == (0, {"ids": 0, "pairs": 0}, [])
    assert found["unused"] == {"in no outcome, and the decision's id has no time": 1}
    assert {row["caught_by_pairs"] for row in found["shares"]} == {None}


def test_delays_tell_what_a_window_would_have_caught(
    settings: Settings, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delays by ids and by pairs, to the millisecond at each window; what can't be used is told."""
    decided = int(time.time() * 1_000) - 8 * 24 * HOUR
    [known] = [TimeOrderedIds().make(decided)]
    delays = [-1_001, -1_000, 0, MINUTE - 1, MINUTE, HOUR - 1, HOUR, 7 * 24 * HOUR]
    rewards = [tick(decided), *(reward(known, decided + delay) for delay in delays)]
    rewards += [reward(f"order-{i}", decided) for i in range(4)]
    rewards += [reward("x", decided, stamp=decided + 1), (b"y", b"{}", decided, {})]
    write(settings, "rewards", rewards)
    pairs = [
        outcome(3, decided, decided, "order-0", 0, MINUTE - 1),
        outcome(4, decided, decided, "order-1"),
        outcome(3, decided, decided, "order-0", 0, MINUTE - 1),  # a zombie's
        outcome(9, decided, decided, "order-2", MINUTE),
        outcome(11, decided, decided, known, 5),  # known by its id already
        progress(12, decided, 0),
    ]
    write(settings, "outcomes", pairs)
    code, out, _ = call("lanes", "delays", "--lane", "default", "--json")
    [found] = json.loads(out)
    assert code == 0
    assert found["rewards"] == {"ids": 8, "pairs": 3}
    shares = {
        row["window"]: (row["caught_by_ids"], row["caught_by_pairs"]) for row in found["shares"]
    }
    assert shares == {
        "1m": (3 / 8, round(2 / 3, 6)),
        "10m": (4 / 8, 1.0),
        "1h": (5 / 8, None),
        "1d": (6 / 8, None),
        "7d": (6 / 8, None),
    }
    assert found["unused"] == {
        "timestamp": 1,
        "magic": 1,
        "in no outcome, and the decision's id has no time": 1,
    }
    assert sum(bar["ids"] for bar in found["histogram"]) == 8
    assert found["quantiles_s"]["ids"]["p50"] == pytest.approx(60, rel=0.06)
    assert "no window cuts these delays" in found["notes"][0]
    assert "no delay beyond 10m can show" in found["notes"][1]
    monkeypatch.setenv("COLUMNS", "120")
    shown = call("lanes", "delays")
    for text in ("37.50 %", "unknown", "█", "have come within"):
        assert text in shown.out
    assert "no delay beyond 10m can show" in " ".join(shown.err.split())
    assert "rewards of lane empty that tell no delay: nothing" in shown.err
