"""Kafka clients, on the real broker."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import NewTopic

from bandstand.errors import BrokerError, TopicError
from bandstand.kafka import (
    TopicReader,
    admin,
    broker_errors,
    consumer_config,
    end_offsets,
    is_passing,
    partition_count,
    producer_config,
)
from bandstand.local import Kafka
from bandstand.partitioner import murmur2, partition_for
from bandstand.settings import KafkaSettings, Settings
from tests.waiting import PATIENCE_S, until

PARTITIONS = 7
FENCED_AFTER_S = 3.5
"""More than the local broker's session with its controller."""


@pytest.fixture
def settings(bandstand_kafka: Kafka) -> Settings:
    """Give settings that lead to the real broker."""
    return Settings(kafka=KafkaSettings(bootstrap_servers=bandstand_kafka.bootstrap_servers))


@pytest.fixture
def topic(settings: Settings, bandstand_prefix: str) -> str:
    """Make a topic of seven partitions."""
    return _make(settings, f"{bandstand_prefix}things", PARTITIONS)


def _make(settings: Settings, name: str, partitions: int) -> str:
    client = admin(settings)
    for answer in client.create_topics([NewTopic(name, partitions, 1)]).values():
        answer.result()
    until(
        lambda: not client.list_topics(name, timeout=10).topics[name].error,
        "a topic that its broker knows",
    )
    return name


@pytest.fixture
def reader(settings: Settings, topic: str) -> Iterator[TopicReader]:
    """Read the topic from its start."""
    reader = TopicReader(settings, topic)
    yield reader
    reader.close()


def _produce(settings: Settings, topic: str, keys: list[bytes]) -> None:
    producer = Producer(producer_config(settings))
    for key in keys:
        producer.produce(topic, key=key, value=b"value of " + key)
    assert producer.flush(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        # Kafka's own UtilsTest.testMurmur2.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(key: bytes, signed: int) -> None:
    """The hash agrees with the values in Kafka's own tests."""
    assert murmur2(key) == signed % 2**32


def test_partitions_are_librdkafkas(settings: Settings, topic: str, reader: TopicReader) -> None:
    """Each key goes where `partition_for` says, for keys of any length, empty ones too."""
    draw = random.Random(7)
    keys = [draw.randbytes(length % 40) for length in range(400)]
    _produce(settings, topic, keys)
    found = list(reader.read_to_end(PATIENCE_S))
    assert sorted(m.key() or b"" for m in found) == sorted(keys)
    keyed = [(m.key(), m.partition()) for m in found if m.key()]
    wrong = [key for key, partition in keyed if partition != partition_for(key or b"", PARTITIONS)]
    assert wrong == []


def test_a_reader_reads_from_the_start_and_follows(
    settings: Settings, topic: str, reader: TopicReader
) -> None:
    """What was there comes first, then what is new; a second reader sees it all again."""
    _produce(settings, topic, [b"a", b"b", b"c"])
    assert {m.key() for m in reader.read_to_end(PATIENCE_S)} == {b"a", b"b", b"c"}
    assert list(reader.read_to_end(PATIENCE_S)) == []
    _produce(settings, topic, [b"d"])
    assert [m.key() for m in _poll_until(reader, 1)] == [b"d"]
    again = TopicReader(settings, topic)
    assert len(list(again.read_to_end(PATIENCE_S))) == 4
    again.close()


def _poll_until(reader: TopicReader, count: int) -> list[Message]:
    found: list[Message] = []

    def enough() -> bool:
        found.extend(reader.poll(0.1))
        return len(found) >= count

    until(enough, f"{count} records")
    return found


def test_a_reader_catches_up_with_an_empty_topic(reader: TopicReader) -> None:
    """A topic without records has been read to its end."""

    def caught_up() -> bool:
        assert reader.poll(0.1) == []
        return reader.caught_up

    until(caught_up, "the end of every partition")


def test_a_reader_of_some_partitions_reads_no_others(settings: Settings, topic: str) -> None:
    """Partitions can be named: some, or none."""
    _produce(settings, topic, [b"%d" % number for number in range(50)])
    for starts in ({2: 0, 5: 0}, {}):
        reader = TopicReader(settings, topic, starts=starts)
        assert {m.partition() for m in reader.read_to_end(PATIENCE_S)} == starts.keys()
        reader.close()


def test_poll_gives_no_more_than_asked_for(
    settings: Settings, topic: str, reader: TopicReader
) -> None:
    """`max_records` bounds a batch, and nothing is lost between two."""
    _produce(settings, topic, [b"%d" % number for number in range(50)])
    found: list[Message] = []

    def all_there() -> bool:
        batch = reader.poll(0.1, max_records=len(found) % 3 + 1)
        assert len(batch) <= len(found) % 3 + 1
        found.extend(batch)
        return len(found) >= 50

    until(all_there, "fifty records")
    assert len({m.key() for m in found}) == 50


def test_a_committed_reader_waits_for_an_open_transaction(
    settings: Settings, topic: str, reader: TopicReader
) -> None:
    """Records of an open transaction come after its commit; an aborted one's never."""
    producer = Producer(producer_config(settings, transactional_id=topic))
    producer.init_transactions(PATIENCE_S)
    for key, end in ((b"kept", producer.commit_transaction), (b"no", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, key=key, value=b"x", partition=0)
        producer.flush(PATIENCE_S)
        with pytest.raises(BrokerError, match="a transaction may be open there"):
            list(reader.read_to_end(0.3))
        timer = threading.Timer(0.2, end)
        timer.start()
        assert [m.key() for m in reader.read_to_end(PATIENCE_S)] == [b"kept"] * (key == b"kept")
        timer.join()


def test_ends_of_partitions(settings: Settings, topic: str) -> None:
    """The end of a partition is the offset of its next record."""
    _produce(settings, topic, [b"a"] * 3)
    ends = end_offsets(settings, topic, range(PARTITIONS))
    assert ends == {p: 3 * (p == partition_for(b"a", PARTITIONS)) for p in range(PARTITIONS)}


def test_ends_are_found_after_an_election(
    settings: Settings, topic: str, bandstand_kafka: Kafka
) -> None:
    """A frozen broker loses its leaderships; the client isn't left with those that it knew."""
    bandstand_kafka.pause()
    try:
        time.sleep(FENCED_AFTER_S)  # by the controller, which is as frozen: nothing tells when
    finally:
        bandstand_kafka.resume()
    thawed = time.monotonic()
    while time.monotonic() < thawed + 1:
        ends = end_offsets(settings, topic, range(PARTITIONS))
        assert ends == dict.fromkeys(range(PARTITIONS), 0)


def test_a_missing_topic_is_named_and_not_made(settings: Settings, bandstand_prefix: str) -> None:
    """Whoever asks for a topic that isn't there is told so, and what to do."""
    missing = f"{bandstand_prefix}missing"
    with pytest.raises(TopicError, match=rf"{missing}.*run 'bandstand topics create'"):
        TopicReader(settings, missing)
    with pytest.raises(TopicError, match=missing):
        partition_count(admin(settings), missing)
    assert missing not in admin(settings).list_topics(timeout=10).topics


def test_clients_that_cannot_be_made_are_a_broker_error() -> None:
    """A certificate that can't be read is named in one line, with the setting it came from."""
    settings = Settings(
        kafka=KafkaSettings(security_protocol="SSL", ssl_ca_location="/nowhere/ca.pem")
    )
    with pytest.raises(BrokerError, match=r"ssl\.ca\.location|ca\.pem"):
        TopicReader(settings, "any")
    with pytest.raises(BrokerError, match=r"ssl\.ca\.location|ca\.pem"):
        admin(settings)


def test_errors_are_translated() -> None:
    """The client library's errors become Bandstand's, with what was being done."""
    with pytest.raises(BrokerError, match="counting sheep: "), broker_errors("counting sheep"):
        raise KafkaException("asleep")


@pytest.mark.parametrize(
    ("code", "text", "passing"),
    [
        (KafkaError._TIMED_OUT_QUEUE, "timed out in queue", True),
        (KafkaError._NOENT, "no leaders found", True),
        (KafkaError.NOT_COORDINATOR, "This is not the correct coordinator.", True),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "The coordinator is loading", True),
        (KafkaError.INVALID_REPLICATION_FACTOR, "All brokers are currently fenced.", True),
        (KafkaError.INVALID_REPLICATION_FACTOR, "only 1 broker(s) are registered.", False),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "not for you", False),
    ],
)
def test_what_passes_by_waiting_is_told_from_what_does_not(
    code: int, text: str, passing: bool
) -> None:
    """A broker that comes back says many things for a moment."""
    assert is_passing(KafkaError(code, text)) is passing


def test_configurations_keep_the_promises() -> None:
    """Producers lose and reorder nothing, consumers commit nothing, whatever else is set."""
    settings = Settings(kafka=KafkaSettings(client_id="me"))
    producer = producer_config(settings, linger_ms=50)
    assert (producer["acks"], producer["enable.idempotence"]) == ("all", True)
    assert (producer["linger.ms"], producer["client.id"]) == (50, "me")
    consumer = consumer_config(settings, "group", session_timeout_ms=900)
    assert (consumer["enable.auto.commit"], consumer["group.id"]) == (False, "group")
    assert consumer["session.timeout.ms"] == 900
