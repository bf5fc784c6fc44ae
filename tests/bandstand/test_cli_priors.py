"""What a bandit knows before its first outcome, on a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bandstand.learners.policies import policy_from_snapshot
from bandstand.learners.statistics import Statistics
from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings, load_settings
from bandstand.streams import topics
from bandstand.streams.learner_records import PartitionSums, sums_records
from bandstand.streams.publish_core import PublishCore
from bandstand.streams.specs import specs_in_force
from tests.bandstand.calling import Call
from tests.learners.given import batch, outcome
from tests.streams.given import given_records

WIRE = Wire.single_object()
SPEC = """
bandit: {bandit}
actions: [red, green, {third}]
policy: {{name: beta_thompson}}
reward: {{name: click, aggregate: {aggregate}}}
floor: {floor}
"""


@pytest.fixture
def settings(kafka: Kafka) -> Settings:
    """Make the topics."""
    del kafka
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
) -> str:
    """Write a spec's file."""
    path = folder / f"{bandit}.yaml"
    path.write_text(SPEC.format(bandit=bandit, floor=floor, aggregate=aggregate, third=third))
    return str(path)


def scores(settings: Settings, bandit: str = "home") -> dict[str, float]:
    """Publish a bandit's first snapshot, and give what it expects of its actions."""
    core = PublishCore(WIRE, 3, {"default": 6})
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
        rows = batch([outcome("green", clicks), outcome("blue", [1.0])])
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
