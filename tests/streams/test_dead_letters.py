"""Dead letters on a real broker: whatever was refused has a letter."""

from __future__ import annotations

from bandstand.kafka import TopicReader
from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import KafkaSettings, Settings, TopicSettings
from bandstand.streams.dead_letters import DeadLetters, Origin
from bandstand.streams.topics import create
from tests.waiting import PATIENCE_S

WIRE = Wire.single_object()


def test_a_letter_is_cut_to_fit(bandstand_kafka: Kafka, bandstand_prefix: str) -> None:
    """A key, a value and a detail of a megabyte and more can't keep a letter from being written."""
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=bandstand_kafka.bootstrap_servers),
        topics=TopicSettings(prefix=bandstand_prefix),
    )
    create(settings)
    origin = Origin("a.decisions", 0, 7, 1_000, b"\\0" * 1_000_000, b"v" * 3_000_000)
    with DeadLetters(settings, "join", WIRE) as letters:
        letters.send(origin, "key", "d" * 4_000_000)
        letters.flush(PATIENCE_S)
        assert letters.waiting == 0
    reader = TopicReader(settings, TopicNames(bandstand_prefix).dead_letters)
    [message] = reader.read_to_end(PATIENCE_S)
    reader.close()
    letter = WIRE.loads("dead_letter", message.value())
    assert message.key() == b"a.decisions/0/7"
    assert (letter["reason"], letter["offset"]) == ("key", 7)
    assert "key cut from 2000000 bytes" in letter["detail"]
    assert "value cut from 3000000 bytes" in letter["detail"]
