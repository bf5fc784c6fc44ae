"""What a service does while its broker is away, on a broker of its own."""

from __future__ import annotations

import time
from statistics import median

import pytest

from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames
from bandstand.serving import Client, Decision
from bandstand.settings import Settings
from bandstand.streams.topics import create
from tests.serving.given import (
    HOMEPAGE,
    Publisher,
    client,
    read_all,
    settings_for,
    snapshot,
)
from tests.waiting import PATIENCE_S, until


@pytest.fixture
def own_settings(own_kafka: Kafka, bandstand_prefix: str) -> Settings:
    """Give settings of a broker that may be stopped, and soon counts as silent."""
    settings = settings_for(
        own_kafka.bootstrap_servers, bandstand_prefix, serve={"stale_after": "500ms"}
    )
    create(settings)
    return settings


def decide_until(it: Client, fallback: str) -> list[Decision]:
    """Decide until a step of the ladder answers; give all decisions."""
    decisions = [it.decide("homepage", "user")]

    def answers() -> bool:
        decisions.append(it.decide("homepage", "user"))
        return decisions[-1].fallback == fallback

    until(answers)
    return decisions


def test_a_broker_that_is_killed_and_comes_back_costs_no_decision(
    own_kafka: Kafka, own_settings: Settings
) -> None:
    """Decisions go on from the last good snapshot, and reach Kafka when it is there again."""
    version = Publisher(own_settings).publish(snapshot(HOMEPAGE, 4))
    with client(own_settings) as it:
        it.wait_ready("homepage", PATIENCE_S)
        decisions = decide_until(it, "live")
        own_kafka.kill()
        decisions += decide_until(it, "last_good")
        took = []
        for _ in range(200):
            began = time.perf_counter()
            decisions.append(it.decide("homepage", "user"))
            took.append(time.perf_counter() - began)
        assert median(took) < 0.005
        own_kafka.restart()
        decisions += decide_until(it, "live")
        newest = Publisher(own_settings).publish(snapshot(HOMEPAGE, 5))
        until(lambda: it.decide("homepage", "user").version == newest)
        assert it.flush(PATIENCE_S) == 0
        assert all(decision.logged for decision in decisions)
    assert {decision.version for decision in decisions} == {version}
    topic = TopicNames(own_settings.topics.prefix).decisions("default")
    logged = [(message.key() or b"").decode() for message in read_all(own_settings, topic)]
    assert {decision.decision_id for decision in decisions} <= set(logged)
    assert len(logged) == len(set(logged))


def test_a_broker_that_hangs_is_noticed(own_kafka: Kafka, own_settings: Settings) -> None:
    """Silence alone makes the snapshot the last good one, and an answer makes it live again."""
    Publisher(own_settings).publish(snapshot(HOMEPAGE, 4))
    with client(own_settings) as it:
        it.wait_ready("homepage", PATIENCE_S)
        decide_until(it, "live")
        own_kafka.pause()
        decide_until(it, "last_good")
        own_kafka.resume()
        decide_until(it, "live")
