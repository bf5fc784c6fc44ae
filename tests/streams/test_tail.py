"""Looks at the ends of logs, on a real broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from bandstand.clients import Consumer
from bandstand.errors import BrokerError
from bandstand.kafka import producer_config
from bandstand.local.ports import HOST, free_ports
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.tail import LogEnds
from tests.streams.given import given_settings
from tests.waiting import PATIENCE_S, until

NOW = int(time.time()) * 1_000 - 3_600_000


@pytest.fixture
def settings(bandstand_kafka: Any, bandstand_prefix: str) -> Settings:
    """Make the topics of one lane."""
    settings = given_settings(bandstand_kafka, bandstand_prefix)
    topics.create(settings)
    return settings


@pytest.fixture
def ends(settings: Settings) -> Iterator[LogEnds]:
    """Look at the logs' ends."""
    ends = LogEnds(settings)
    yield ends
    ends.close()


def test_the_ends_of_a_log(settings: Settings, ends: LogEnds) -> None:
    """An empty log has none; the tail is the last record, also behind markers of transactions."""
    log = TopicNames(settings.topics.prefix).outcomes("fast")
    assert ends.tail(log, 0) is None
    assert ends.offset_at(log, 0, NOW) is None
    producer = Producer(producer_config(settings, transactional_id=f"{log}.test"))
    producer.init_transactions(PATIENCE_S)
    for i in range(3):
        producer.begin_transaction()
        producer.produce(log, f"{i}".encode(), b"key", 0, timestamp=NOW + i)
        producer.commit_transaction(PATIENCE_S)
    until(lambda: ends.bounds(log, 0) == (0, 6), "three records, three markers")
    tail = ends.tail(log, 0)
    assert tail is not None
    assert (tail.offset, tail.value, tail.timestamp) == (4, b"2", NOW + 2)
    assert ends.offset_at(log, 0, NOW + 1) == 1, "the marker, which carries the broker's time"


def test_the_last_tick(settings: Settings, ends: LogEnds) -> None:
    """A recent tick is found among any records, an old one only near the end."""
    log = TopicNames(settings.topics.prefix).decisions("fast")
    assert ends.last_tick(log, 0, since=NOW) is None
    producer = Producer(producer_config(settings))
    producer.produce(log, None, TICK_KEY, 0, timestamp=NOW)
    for i in range(300):
        producer.produce(log, b"x", b"key", 0, timestamp=NOW + i)
    producer.flush(PATIENCE_S)
    assert ends.last_tick(log, 0, since=NOW) == NOW
    assert ends.last_tick(log, 0, since=NOW + 1_000) is None
    producer.produce(log, None, TICK_KEY, 0, timestamp=NOW + 5)
    producer.flush(PATIENCE_S)
    assert ends.last_tick(log, 0, since=NOW + 1_000) == NOW + 5


def test_a_client_that_lost_its_brokers_is_replaced(
    settings: Settings, ends: LogEnds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wait is in vain, as with librdkafka's #5301; whoever asks again is answered."""
    log = TopicNames(settings.topics.prefix).outcomes("fast")
    ends._consumer.close()
    ends._consumer = Consumer({"bootstrap.servers": f"{HOST}:{free_ports(1)[0]}", "group.id": "g"})
    with monkeypatch.context() as once:
        once.setattr("bandstand.streams.tail._PATIENCE_S", 1.0)
        with pytest.raises(BrokerError, match="no answer within 1 s"):
            ends.bounds(log, 0)
    assert ends.bounds(log, 0) == (0, 0)
