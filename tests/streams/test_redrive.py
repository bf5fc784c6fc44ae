"""Redriving on a real broker: each record once, whatever is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from random import Random

import pytest

from bandstand.errors import BrokerError
from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams import redrive_marks, topics
from bandstand.streams.dead_letters import DeadLetters, Origin
from bandstand.streams.letter_types import Letter
from bandstand.streams.redrive import Redriven, redrive
from bandstand.streams.redrive_core import Verdict
from bandstand.streams.redrive_marks import ORIGIN_HEADER, OncePublisher
from bandstand.streams.transactions import FencedError
from tests.streams.given import everything_in, given_settings
from tests.waiting import PATIENCE_S

WIRE = Wire.single_object()
RUN = """
import sys
from bandstand.settings import Settings
from bandstand.streams import redrive_marks
from bandstand.streams.redrive import redrive
redrive_marks._BATCH, redrive_marks._PUBLISH_WITHIN_S = 10, 1.0
settings = Settings.model_validate_json(sys.argv[1])
redrive(settings, lambda letter: letter, lambda verdict: print("one more", flush=True))
"""


@pytest.fixture
def settings(bandstand_kafka: Kafka, bandstand_prefix: str) -> Settings:
    """Make the topics of one lane."""
    settings = given_settings(bandstand_kafka, bandstand_prefix)
    topics.create(settings)
    return settings


def decision(decision_id: str, ts: int) -> bytes:
    """Write a decision."""
    fields = {"bandit": "b", "decision_id": decision_id, "subject": "s", "ts": ts}
    return WIRE.dumps("decision", {**fields, "action": "a", "propensity": 0.5})


def given_letters(settings: Settings, count: int, *, ts: int | None = None) -> int:
    """Write letters of decisions that an older join couldn't read; give their time."""
    ts = int(time.time() * 1_000) if ts is None else ts
    log = TopicNames(settings.topics.prefix).decisions("fast")
    with DeadLetters(settings, "join", WIRE) as letters:
        for i in range(count):
            name = f"d{i}"
            origin = Origin(log, i % 2, i, ts, name.encode(), decision(name, ts))
            letters.send(origin, "schema", "no released version has the fingerprint")
            if i % 10 == 0:  # a new owner refuses again what it reads again
                letters.send(origin, "schema", "no released version has the fingerprint")
        letters.flush(PATIENCE_S)
    return ts


def everything(letter: Letter) -> Letter | None:
    """Want every letter."""
    return letter


def run(settings: Settings, *, dry_run: bool = False) -> tuple[Redriven, list[Verdict]]:
    """Redrive everything."""
    verdicts: list[Verdict] = []
    return redrive(settings, everything, verdicts.append, dry_run=dry_run), verdicts


def published(settings: Settings) -> Counter[str]:
    """Count the records of the decision log by the offset of their origin."""
    log = TopicNames(settings.topics.prefix).decisions("fast")
    messages = everything_in(settings, log)
    assert all(ORIGIN_HEADER in dict(message.headers() or ()) for message in messages)
    return Counter((message.key() or b"").decode() for message in messages)


def test_what_is_readable_now_is_published_once(settings: Settings) -> None:
    """The record comes back with its key, time and bytes; a second run finds nothing to do."""
    ts = given_letters(settings, 12)
    result, verdicts = run(settings, dry_run=True)
    assert (result.published, len(verdicts), published(settings)) == (12, 12, Counter())
    result, _ = run(settings)
    assert result == Redriven(published=12, before=0)
    log = TopicNames(settings.topics.prefix).decisions("fast")
    for message in everything_in(settings, log):
        name = (message.key() or b"").decode()
        assert (message.timestamp()[1], message.value()) == (ts, decision(name, ts))
    result, verdicts = run(settings)
    assert (result, verdicts) == (Redriven(published=0, before=12), [])
    assert published(settings) == {f"d{i}": 1 for i in range(12)}


@pytest.mark.parametrize("step", ["announced", "published", "marked"])
def test_a_batch_that_broke_off_is_finished_once(
    settings: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a run ends between announcing, publishing and marking, the next one finishes it."""
    monkeypatch.setattr(redrive_marks, "_PUBLISH_WITHIN_S", 1.0)
    monkeypatch.setattr(redrive_marks, "_BATCH", 5)
    given_letters(settings, 12)
    broken = {"announced": "_publish", "published": "_mark", "marked": "_ends"}[step]
    whole = getattr(OncePublisher, broken)
    calls = iter(range(100))

    def breaks(self: OncePublisher, *arguments: object) -> object:
        if next(calls) == 1:
            raise BrokerError("the process ends here")
        return whole(self, *arguments)

    with monkeypatch.context() as once:
        once.setattr(OncePublisher, broken, breaks)
        with pytest.raises(BrokerError, match="ends here"):
            run(settings)
    there = {"announced": 5, "published": 10, "marked": 5}[step]
    assert sum(published(settings).values()) == there
    result, _ = run(settings)
    assert result == Redriven(published=12 - there, before=there)
    assert published(settings) == {f"d{i}": 1 for i in range(12)}


def test_killed_at_any_moment_each_record_is_published_once(settings: Settings) -> None:
    """SIGKILL at random moments, and again: at the end each record is there once."""
    count, random = 400, Random(7)
    given_letters(settings, count)
    kills = 0
    for _ in range(2):
        command = [sys.executable, "-c", RUN, settings.model_dump_json()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout as said:
            for _ in range(random.randint(1, count // 3)):
                said.readline()
            time.sleep(random.uniform(0, 0.05))  # from one batch to another and more
            process.kill()
            kills += process.wait() == -signal.SIGKILL
    result, _ = run(settings)
    assert kills >= 1
    assert result.published + result.before == count
    assert published(settings) == {f"d{i}": 1 for i in range(count)}


def test_of_two_the_older_one_stops(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is at work another begins: the first stops, and nothing comes twice."""
    monkeypatch.setattr(redrive_marks, "_PUBLISH_WITHIN_S", 1.0)
    monkeypatch.setattr(redrive_marks, "_BATCH", 5)
    given_letters(settings, 12)
    second: list[Redriven] = []

    def tell(verdict: Verdict) -> None:
        if not second and verdict.letter.key == b"d7":
            second.append(run(settings)[0])

    with pytest.raises(FencedError):
        redrive(settings, everything, tell)
    assert second[0].published + second[0].before == 12
    assert published(settings) == {f"d{i}": 1 for i in range(12)}
