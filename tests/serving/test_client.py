from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import Message

from bandstand.errors import DecisionError
from bandstand.learners.policies import draw, policy_from_snapshot
from bandstand.role import Role, persist
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames, artifact_key
from bandstand.serving import Decision
from bandstand.settings import PublishSettings, Settings
from bandstand.streams.publish import Publisher as RealPublisher
from bandstand.streams.specs import apply_spec
from tests.serving.given import (
    AGE_41,
    WIRE,
    Publisher,
    client,
    read_all,
    snapshot,
)
from tests.waiting import PATIENCE_S, until


def logged(settings: Settings, decision: Decision) -> Message:
    """Give the record of a decision."""
    key = decision.decision_id.encode()
    topic = TopicNames(settings.topics.prefix).decisions("default")
    [message] = [message for message in read_all(settings, topic) if message.key() == key]
    return message


def test_a_decision_comes_from_the_live_snapshot_and_is_logged_as_returned(
    settings: Settings, own_shop: Spec
) -> None:
    """The record in Kafka says what the service got, why, and how to draw it again."""
    version = Publisher(settings).publish(snapshot(own_shop))
    with client(settings) as it:
        it.wait_ready(own_shop.bandit, PATIENCE_S)
        decision = it.decide(own_shop.bandit, "user-17", AGE_41, ["high", "low"])
        assert it.flush(PATIENCE_S) == 0
    message = logged(settings, decision)
    record = WIRE.loads("decision", message.value())
    assert record["decision_id"] == decision.decision_id
    assert message.timestamp()[1] == record["ts"]
    assert (decision.version, decision.fallback, decision.logged) == (version, "live", True)
    assert decision.age is not None
    assert 0 <= decision.age.total_seconds() < 60
    listed = {one["action"]: one["probability"] for one in record["actions"]}
    assert listed == decision.probabilities
    assert list(listed) == ["high", "low"]
    assert record["propensity"] == decision.propensity == listed[record["action"]]
    assert record["action"] == decision.action
    drawn = draw([one["probability"] for one in record["actions"]], record["seed"])
    assert record["actions"][drawn]["action"] == decision.action
    assert record["features"] == pytest.approx([1.0, -0.18, 0.0, 1.0], abs=2**-12)
    assert record["features_hash"] == own_shop.features_hash
    assert record["subject"] == "user-17"
    assert record["subject_numeric"] == {"age": 41.0, "member": 1.0}
    assert record["subject_categorical"] == {"country": "no"}
    assert (record["snapshot_version"], record["policy"]) == (version, "linear_thompson")
    assert (record["fallback"], record["bandit"]) == ("live", own_shop.bandit)
    assert record["optimality_gap"] >= 0
    assert 0 <= record["score"] <= 500


def test_the_same_seed_decides_the_same(settings: Settings, own_homepage: Spec) -> None:
    """A draw is a function of its seed."""
    Publisher(settings).publish(snapshot(own_homepage, 3))
    seeds = iter([11, 12, 13, 11, 12, 13])
    with client(settings, seeds=lambda: next(seeds)) as it:
        it.wait_ready(own_homepage.bandit, PATIENCE_S)
        actions = [it.decide(own_homepage.bandit, "user").action for _ in range(6)]
    assert actions[:3] == actions[3:]


def test_the_clock_gives_the_event_time(settings: Settings) -> None:
    """Identity, record and Kafka's timestamp share the time that the service's clock gave."""
    with client(settings, clock=lambda: 1_764_000_000.123) as it:
        decision = it.decide("new", "user", actions=["a", "b"])
        assert it.flush(PATIENCE_S) == 0
    message = logged(settings, decision)
    assert message.timestamp()[1] == 1_764_000_000_123
    assert int(decision.decision_id.replace("-", "")[:12], 16) == 1_764_000_000_123


def test_snapshots_swap_whole_under_concurrent_decisions(
    settings: Settings, own_homepage: Spec
) -> None:
    """Every answer fits one version, and no thread ever sees an older one after a newer one."""
    publisher = Publisher(settings)
    records = [snapshot(own_homepage, outcomes) for outcomes in range(30)]
    expected = {
        record["version"]: policy_from_snapshot(record)
        .decide({}, own_homepage.actions)
        .probabilities
        for record in records
    }
    publisher.publish(records[0])
    seen: list[list[Decision]] = [[], [], []]
    done = threading.Event()

    def decide(mine: list[Decision]) -> None:
        while not done.is_set():
            mine.append(it.decide(own_homepage.bandit, "user"))

    with client(settings) as it:
        it.wait_ready(own_homepage.bandit, PATIENCE_S)
        threads = [threading.Thread(target=decide, args=(mine,)) for mine in seen]
        for thread in threads:
            thread.start()
        for record in records[1:]:
            publisher.publish(record)
        last = records[-1]["version"]
        until(lambda: all(mine and mine[-1].version == last for mine in seen))
        done.set()
        for thread in threads:
            thread.join()
    order = {version: place for place, version in enumerate(expected)}
    for mine in seen:
        assert all(order[a.version] <= order[b.version] for a, b in pairwise(mine))
        for decision in mine:
            assert list(decision.probabilities.values()) == expected[decision.version].tolist()
    assert len({decision.version for mine in seen for decision in mine}) > 2


def test_a_client_that_starts_late_begins_with_the_current_snapshot(
    settings: Settings, own_homepage: Spec
) -> None:
    """What was current before isn't served on the way, and roll-backs are honoured."""
    publisher = Publisher(settings)
    versions = [publisher.publish(snapshot(own_homepage, outcomes)) for outcomes in range(5)]
    publisher.point(own_homepage.bandit, versions[2], reason="4 sells nothing")
    with client(settings) as it:
        it.wait_ready(own_homepage.bandit, PATIENCE_S)
        assert it.decide(own_homepage.bandit, "user").version == versions[2]
        newest = publisher.publish(snapshot(own_homepage, 9))
        until(lambda: it.decide(own_homepage.bandit, "user").version == newest)


def test_a_broken_snapshot_leaves_the_last_good_one(settings: Settings, own_homepage: Spec) -> None:
    """A snapshot that can't be read isn't used, each answer says so, and the next one heals it."""
    publisher = Publisher(settings)
    good, broken = snapshot(own_homepage, 1), snapshot(own_homepage, 2)
    with client(settings) as it:
        publisher.publish(good)
        it.wait_ready(own_homepage.bandit, PATIENCE_S)
        broken["arrays"][0]["data"] = b"\x00" * 5
        publisher.publish(broken)
        until(lambda: it.decide(own_homepage.bandit, "user").fallback == "last_good")
        assert it.decide(own_homepage.bandit, "user").version == good["version"]
        publisher.write(artifact_key(own_homepage.bandit, "0-3-ab"), b"not Avro")
        publisher.point(own_homepage.bandit, "0-3-ab")
        publisher.point(own_homepage.bandit, "0-4-cd")
        newest = publisher.publish(snapshot(own_homepage, 5))
        until(lambda: it.decide(own_homepage.bandit, "user").version == newest)
        assert it.decide(own_homepage.bandit, "user").fallback == "live"


def test_the_ladder_from_a_file_to_live(
    settings: Settings, tmp_path: Path, own_shop: Spec, own_homepage: Spec
) -> None:
    """A saved snapshot answers where Kafka has none yet, until it has one."""
    publisher = Publisher(settings)
    version = publisher.publish(snapshot(own_homepage, 7))
    file = tmp_path / "homepage.snapshot"
    with client(settings) as it:
        with pytest.raises(DecisionError, match="call wait_ready first"):
            it.save_snapshot(own_shop.bandit, file)
        it.wait_ready(own_homepage.bandit, PATIENCE_S)
        it.save_snapshot(own_homepage.bandit, file)
    empty = settings.model_copy(
        update={"topics": settings.topics.model_copy(update={"prefix": "none."})}
    )
    with client(empty, bootstrap=tmp_path) as it:
        decision = it.decide(own_homepage.bandit, "user")
        assert (decision.fallback, decision.version) == ("bootstrap", version)
        assert decision.age is not None
        assert 0 <= decision.age.total_seconds() < 60
        with pytest.raises(
            DecisionError, match=r"came within 0 s; .*(hasn't been read|topics create)"
        ):
            it.wait_ready(own_homepage.bandit, timeout=0)
    with client(settings, bootstrap=file) as it:
        it.wait_ready(own_homepage.bandit, PATIENCE_S)
        assert it.decide(own_homepage.bandit, "user").fallback == "live"


def test_waiting_in_vain_says_what_is_missing(
    settings: Settings, own_shop: Spec, own_homepage: Spec
) -> None:
    """The error names the bandit, the known ones and what to do."""
    Publisher(settings).publish(snapshot(own_shop))
    with client(settings) as it:
        it.wait_ready(own_shop.bandit, PATIENCE_S)
        with pytest.raises(
            DecisionError,
            match=rf"came within 0.1 s; .*{own_shop.bandit}.*topic has none of it.*publish",
        ):
            it.wait_ready(own_homepage.bandit, timeout=0.1)
        with pytest.raises(DecisionError, match=rf"is at hand.*known: .*{own_shop.bandit}.*;"):
            it.decide(own_homepage.bandit, "user")


def test_a_spec_that_is_applied_becomes_a_live_decision(settings: Settings, own_shop: Spec) -> None:
    """What the real publisher writes is what a client serves: at first the prior."""
    unique = {"group": f"publish.{own_shop.bandit}"}
    settings = settings.model_copy(update={"publish": PublishSettings.model_validate(unique)})
    role = Role("publish", settings)
    role.health.started()
    publisher = threading.Thread(target=persist, args=(role, lambda: RealPublisher(role).run()))
    publisher.start()
    try:
        with client(settings) as it:
            epoch = apply_spec(settings, own_shop)
            it.wait_ready(own_shop.bandit, PATIENCE_S)
            decision = it.decide(own_shop.bandit, "user", AGE_41)
    finally:
        role.stop.set()
        publisher.join()
    assert decision.version.startswith(f"{epoch}-0-")
    assert decision.fallback == "live"
    assert list(decision.probabilities.values()) == pytest.approx([1 / 3] * 3, abs=1e-6)
