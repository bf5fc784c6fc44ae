"""What a bandit knows before its first outcome, on a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer, TopicPartition

from bandstand.kafka import admin, producer_config
from bandstand.learners.policies import policy_from_snapshot
from bandstand.learners.statistics import Statistics
from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings, load_settings
from bandstand.streams import topics
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import PartitionSums, Position, sums_records
from bandstand.streams.publish_core import PublishCore
from bandstand.streams.records import record_of
from bandstand.streams.snapshots import load_snapshot
from bandstand.streams.specs import specs_in_force
from tests.bandstand.calling import Call
from tests.learners.given import batch
from tests.learners.given import outcome as taught
from tests.streams.given import everything_in, given_records
from tests.streams.outcomes import outcome
from tests.waiting import PATIENCE_S

WIRE = Wire.single_object()
SPEC = """
bandit: {bandit}
actions: [red, green, {third}]
policy: {{name: {policy}}}
reward: {{name: click, aggregate: {aggregate}}}
floor: {floor}
"""


@pytest.fixture
def settings(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Make the topics, with two partitions of outcomes."""
    del kafka
    monkeypatch.setenv("BANDSTAND_LANES__DEFAULT__PARTITIONS", "2")
    settings = load_settings()
    topics.create(settings)
    return settings


def spec(
    folder: Path,
    bandit: str = "home",
    *,
    floor: float = 0.0,
    aggregate: str = "first",
    third: str = "blue",
    policy: str = "beta_thompson",
) -> str:
    """Write a spec's file."""
    path = folder / f"{bandit}.yaml"
    fields = {"bandit": bandit, "floor": floor, "aggregate": aggregate, "third": third}
    path.write_text(SPEC.format(**fields, policy=policy))
    return str(path)


def scores(settings: Settings, bandit: str = "home") -> dict[str, float]:
    """Publish a bandit's first snapshot, and give what it expects of its actions."""
    core = PublishCore(WIRE, 3, {"default": 2})
    specs = specs_in_force(settings)
    core.follow(specs, specs)
    published = core.publish(bandit, 0)
    assert published is not None
    assert published.snapshot["outcomes"] == 0
    policy = policy_from_snapshot(published.snapshot)
    found = policy.decide({}, policy.spec.actions).scores
    return dict(zip(policy.spec.actions, found.tolist(), strict=True))


def test_a_bandit_starts_from_a_log(settings: Settings, call: Call, tmp_path: Path) -> None:
    """What a log says is in the topics, stays while sums go on, and is left out with a word."""
    log = tmp_path / "old.parquet"
    actions, clicks = ["red"] * 8 + ["green"] * 8, [1.0, None] * 4 + [1.0] * 8
    pq.write_table(pa.table({"action": actions, "click": clicks}), log)
    refused = call("warm-start", "home", str(log))
    assert (refused.code, refused.out) == (1, "")
    assert "bandit 'home' has no spec in force; known: none; run 'bandstand apply'" in refused.err
    assert call("apply", spec(tmp_path)).code == 0
    assert set(scores(settings).values()) == {0.5}
    done = call("warm-start", "home", str(log), "--strength", "4", "--json")
    assert done.code == 0, done.err
    assert [(row["action"], row["rows"], row["outcomes"]) for row in json.loads(done.out)] == [
        ("red", 8, 4.0),
        ("green", 8, 4.0),
        ("blue", 0, 0.0),
    ]
    expected = {"red": 0.5, "green": 5 / 6, "blue": 0.5}
    assert scores(settings) == pytest.approx(expected)
    assert call("apply", spec(tmp_path, floor=0.01, third="violet")).code == 0
    assert scores(settings) == pytest.approx({"red": 0.5, "green": 5 / 6, "violet": 0.5})
    other = call("apply", spec(tmp_path, aggregate="sum"))
    assert "what it knew from old.parquet doesn't fit the new spec" in other.err
    assert set(scores(settings).values()) == {0.5}


def test_a_bandit_starts_from_another_one(settings: Settings, call: Call, tmp_path: Path) -> None:
    """It begins with the means of the actions that both have, and says which version they are."""
    assert call("apply", spec(tmp_path, "old")).code == 0
    early = call("apply", spec(tmp_path), "--prior-from", "old")
    assert "bandit 'old' has learned nothing yet" in early.err
    in_force = specs_in_force(settings)["old"]
    state = TopicNames(settings.topics.prefix).learner_state
    for partition, clicks in enumerate(([1.0], [])):
        rows = batch([taught("green", clicks), taught("blue", [1.0])])
        known = Statistics.empty(in_force.spec).update(rows)
        sums = PartitionSums("default", partition, in_force.epoch, 2, known)
        given_records(settings, state, *sums_records(sums, WIRE))
    done = call("apply", spec(tmp_path, third="violet"), "--prior-from", "old", "--strength", "1")
    assert done.code == 0, done.err
    assert scores(settings) == pytest.approx({"red": 0.5, "green": 0.5, "violet": 0.5})
    assert call("apply", spec(tmp_path), "--prior-from", "old").code == 0
    assert scores(settings) == pytest.approx({"red": 0.5, "green": 0.5, "blue": 0.75})
    evidence = specs_in_force(settings)["home"].evidence
    assert evidence is not None
    assert evidence.origin.startswith(f"bandit old, version {in_force.epoch}-4-")


@pytest.mark.parametrize("source", ["home", "home@1-2-ab"])
def test_a_bandit_is_not_its_own_prior(
    settings: Settings, call: Call, tmp_path: Path, source: str
) -> None:
    """Its outcomes would count twice; nor is one of several that are applied at once."""
    assert call("apply", spec(tmp_path)).code == 0
    before = specs_in_force(settings)
    refused = call("apply", spec(tmp_path), spec(tmp_path, "other"), "--prior-from", source)
    assert (refused.code, refused.out) == (1, "")
    told = f"bandit 'home' can't start from '{source}': each of its outcomes would count twice"
    assert told in refused.err
    assert specs_in_force(settings) == before


def test_a_bandit_starts_from_a_snapshot_of_another_one(
    settings: Settings, call: Call, tmp_path: Path
) -> None:
    """It knows what went into that version, none that came later; what isn't retained is missed."""
    assert call("apply", spec(tmp_path, "old")).code == 0
    names = TopicNames(settings.topics.prefix)
    rows = [
        outcome(number, bandit=bandit, action=action, clicks=clicks)
        for number, (bandit, action, clicks) in enumerate(
            [("old", "green", 1), ("other", "green", 1), ("old", "green", 0), ("old", "blue", 1)]
        )
    ]
    written(settings, (0, rows[0]), (0, rows[1]), (1, rows[2]), (0, rows[3]))
    version = published(settings, "old")
    late = outcome(9, bandit="old", action="red", clicks=1)
    written(settings, (0, late), (1, late))
    done = call("apply", spec(tmp_path, third="violet"), "--prior-from", f"old@{version}")
    assert done.code == 0, done.err
    assert scores(settings) == pytest.approx({"red": 0.5, "green": 0.5, "violet": 0.5})
    assert call("apply", spec(tmp_path), "--prior-from", f"old@{version}").code == 0
    assert scores(settings) == pytest.approx({"red": 0.5, "green": 0.5, "blue": 2 / 3})
    evidence = specs_in_force(settings)["home"].evidence
    assert evidence is not None
    assert evidence.outcomes == {"red": 0.0, "green": 2.0, "blue": 1.0}
    assert evidence.origin == f"bandit old, version {version}"

    unknown = call("apply", spec(tmp_path), "--prior-from", "old@1-2-ab")
    assert f"bandit 'old' has no snapshot 1-2-ab; kept: {version}" in unknown.err
    client, first = admin(settings), [TopicPartition(names.outcomes("default"), 0, 1)]
    for answer in client.delete_records(first).values():
        answer.result(PATIENCE_S)
    gone = call("apply", spec(tmp_path), "--prior-from", f"old@{version}")
    assert gone.code == 1
    assert "made from 3 outcomes; those that are retained of them, 2, come to" in gone.err


def test_a_chain_starts_from_a_snapshot_and_from_a_log(
    settings: Settings, call: Call, tmp_path: Path
) -> None:
    """What both know is what the snapshot has: of two partitions, or learned from rows as they."""
    policy = "logistic_thompson"
    old, home = (spec(tmp_path, bandit, policy=policy) for bandit in ("old", "home"))
    assert call("apply", old).code == 0
    actions, clicks = ["green", "blue", "green", "green"], [1, 0, 0, 1]
    rows = [
        (number % 2, outcome(number, bandit="old", action=action, clicks=clicked))
        for number, (action, clicked) in enumerate(zip(actions, clicks, strict=True))
    ]
    written(settings, *rows)
    version = published(settings, "old")
    theirs = policy_from_snapshot(load_snapshot(settings, "old", version))
    expected = theirs.decide({}, theirs.spec.actions).scores
    assert call("apply", home, "--prior-from", f"old@{version}").code == 0
    assert list(scores(settings).values()) == pytest.approx(expected, rel=1e-9)

    log = tmp_path / "old.parquet"
    pq.write_table(pa.table({"action": actions, "click": [float(c) for c in clicks]}), log)
    done = call("warm-start", "home", str(log), "--strength", "2", "--json")
    assert [(row["rows"], row["outcomes"]) for row in json.loads(done.out)] == [
        (0, 0.0),
        (3, 2.0),
        (1, 1.0),
    ]
    known = scores(settings)
    assert known["red"] == 0.5
    assert known["blue"] == pytest.approx(expected[2], rel=1e-9)
    assert 0.5 < known["green"] < expected[1]


def written(settings: Settings, *outcomes: tuple[int, dict[str, object]]) -> None:
    """Write outcomes, each into its partition."""
    producer = Producer(producer_config(settings))
    topic = TopicNames(settings.topics.prefix).outcomes("default")
    for partition, fields in outcomes:
        producer.produce(topic, WIRE.dumps("outcome", fields), partition=partition)
    assert producer.flush(PATIENCE_S) == 0


def published(settings: Settings, bandit: str) -> str:
    """Learn all outcomes that are there, and publish the bandit's snapshot; give its version."""
    names = TopicNames(settings.topics.prefix)
    in_force = specs_in_force(settings)
    core = PublishCore(WIRE, 3, {"default": 2})
    core.follow(in_force, in_force)
    messages = everything_in(settings, names.outcomes("default"))
    for partition in range(2):
        learner = LearnCore("default", partition, WIRE, Position(0))
        learner.follow(in_force)
        learner.open()
        learner.learn([record_of(m) for m in messages if m.partition() == partition])
        for write in learner.writes():
            core.take_state(0, write.key, write.value)
    snapshot = core.publish(bandit, 0)
    assert snapshot is not None
    given_records(settings, names.snapshots, *snapshot.records)
    return snapshot.version
