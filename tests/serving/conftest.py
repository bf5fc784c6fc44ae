from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from bandstand.local import Kafka
from bandstand.schemas.spec import Spec
from bandstand.settings import Settings
from bandstand.streams.topics import create
from tests.serving.given import homepage, settings_for, shop


@pytest.fixture(scope="session")
def settings(bandstand_kafka: Kafka) -> Settings:
    """Give settings of a broker that has Bandstand's topics; tests keep apart by their bandits."""
    prefix = f"serving{uuid.uuid4().hex[:7]}."
    settings = settings_for(bandstand_kafka.bootstrap_servers, prefix)
    create(settings)
    return settings


@pytest.fixture
def own_homepage() -> Spec:
    """Give a bandit without context that no other test knows."""
    return homepage(f"homepage-{uuid.uuid4().hex[:7]}")


@pytest.fixture
def own_shop() -> Spec:
    """Give a contextual bandit that no other test knows."""
    return shop(f"shop-{uuid.uuid4().hex[:7]}")


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Start a broker that the tests of one module may stop."""
    # A broker that was killed may register again when its session is over: 9 s by default.
    short = {"broker.session.timeout.ms": "1000", "broker.heartbeat.interval.ms": "200"}
    with Kafka(tmp_path_factory.mktemp("own-kafka"), properties=short) as kafka:
        yield kafka
