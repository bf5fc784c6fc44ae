from __future__ import annotations

import time

from bandstand.errors import BrokerError
from bandstand.schemas.codec import current
from bandstand.schemas.definitions import WriterSchema
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import artifact_key, pointer_key
from bandstand.schemas.wire import Wire
from bandstand.serving.encoding import Layouts
from bandstand.serving.subscriber import Subscriber
from bandstand.settings import Settings
from tests.serving.given import Publisher, snapshot

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
    settings: Settings, own_homepage: Spec
) -> None:
    """Pointer and artifact are read again until the registry has answered."""
    registry = FlakyRegistry()
    wire, record, bandit = Wire.confluent(registry), snapshot(own_homepage), own_homepage.bandit
    publisher = Publisher(settings)
    publisher.write(artifact_key(bandit, record["version"]), wire.dumps("snapshot", record))
    pointer = {"bandit": bandit, "version": record["version"]}
    publisher.write(pointer_key(bandit), wire.dumps("snapshot_pointer", pointer))
    subscriber = Subscriber(settings, wire, {}, Layouts(), time.time)
    assert subscriber.wait(bandit, 20)
    subscriber.close(5)
    assert registry.refused == set(IDS)
    assert subscriber.models[bandit].version == record["version"]
