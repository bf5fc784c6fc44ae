from __future__ import annotations

import inspect
import threading
import time

import pytest

from bandstand.errors import BrokerError
from bandstand.kafka import TopicReader
from bandstand.local import Kafka
from bandstand.schemas.codec import current
from bandstand.schemas.definitions import WriterSchema
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import artifact_key, pointer_key
from bandstand.schemas.wire import Wire
from bandstand.serving.encoding import Layouts
from bandstand.serving.subscriber import Subscriber
from bandstand.settings import Settings
from bandstand.streams.topics import create
from tests.serving.given import WIRE, Publisher, settings_for, snapshot
from tests.waiting import PATIENCE_S, until

IDS = {"snapshot": 7, "snapshot_pointer": 8}


class FlakyRegistry:
    """A schema registry that can't be asked the first time about each record."""

    def __init__(self) -> None:
        self.refused: set[str] = set()

    def schema_id(self, name: str) -> int:
        """Give an id."""
        return IDS[name]

    def writer(self, name: str, schema_id: int) -> WriterSchema:
        """Give the schema, from the second time on."""
        if name not in self.refused:
            self.refused.add(name)
            raise BrokerError("the registry is away")
        assert schema_id == IDS[name]
        return current(name)


def test_a_registry_that_is_away_delays_a_snapshot_and_loses_none(
    bandstand_kafka: Kafka, bandstand_prefix: str, own_homepage: Spec
) -> None:
    """Pointer and artifact are read again until the registry has answered."""
    settings = settings_for(bandstand_kafka.bootstrap_servers, bandstand_prefix)
    create(settings)  # topics of its own: who has no registry can't read what this writes
    registry = FlakyRegistry()
    wire, record, bandit = Wire.confluent(registry), snapshot(own_homepage), own_homepage.bandit
    publisher = Publisher(settings)
    publisher.write(artifact_key(bandit, record["version"]), wire.dumps("snapshot", record))
    pointer = {"bandit": bandit, "version": record["version"]}
    publisher.write(pointer_key(bandit), wire.dumps("snapshot_pointer", pointer))
    subscriber = Subscriber(settings, wire, {}, Layouts(), time.time)
    assert subscriber.wait(bandit, PATIENCE_S)
    subscriber.close(5)
    assert registry.refused == set(IDS)
    assert subscriber.models[bandit].version == record["version"]


def test_a_snapshot_is_not_live_before_all_ends_are_seen(
    settings: Settings, own_homepage: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that is slow to be read holds up who waits, though the snapshot is there."""
    bandit, seen = own_homepage.bandit, threading.Event()
    caught_up = inspect.getattr_static(TopicReader, "caught_up")
    slow = property(lambda reader: seen.is_set() and caught_up.fget(reader))
    monkeypatch.setattr(TopicReader, "caught_up", slow)
    Publisher(settings).publish(snapshot(own_homepage))
    subscriber = Subscriber(settings, WIRE, {}, Layouts(), time.time)
    until(lambda: bandit in subscriber.models)
    assert not subscriber.wait(bandit, 0.5)
    seen.set()
    assert subscriber.wait(bandit, PATIENCE_S)
    assert subscriber.live_until > time.monotonic()
    subscriber.close(5)
