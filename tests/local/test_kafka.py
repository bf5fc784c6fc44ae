from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from bandstand.errors import ServerError
from bandstand.local import Kafka, kafka, parts
from bandstand.local.processes import await_condition
from tests.waiting import PATIENCE_S, until


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Run a second broker, which tests may stop and kill."""
    properties = {"log.cleaner.backoff.ms": "250", "message.max.bytes": "2000000"}
    with Kafka(tmp_path_factory.mktemp("own"), properties=properties) as kafka:
        yield kafka


def _admin(kafka: Kafka) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})


def _write(kafka: Kafka, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    producer.produce(topic, value)
    assert producer.flush(PATIENCE_S) == 0


def _create(kafka: Kafka, topic: str) -> None:
    client = _admin(kafka)
    client.create_topics([NewTopic(topic, 1)])[topic].result(PATIENCE_S)


def _read(kafka: Kafka, topic: str, count: int) -> list[bytes]:
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "none", "log_level": 0}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []

    def all_there() -> bool:
        # Beside records it gives what went wrong on the way, with a text as its value.
        records = [m for m in consumer.consume(count, 0.1) if m.error() is None]
        found.extend(m.value() or b"" for m in records)
        return len(found) >= count

    until(all_there, f"{count} records")
    consumer.close()
    return found


def test_two_brokers_run_side_by_side(
    bandstand_kafka: Kafka, own_kafka: Kafka, bandstand_prefix: str
) -> None:
    """Each of two brokers has its own ports, cluster and topics."""
    topic = f"{bandstand_prefix}side"
    _create(own_kafka, topic)
    ours = _admin(own_kafka).list_topics(timeout=PATIENCE_S)
    theirs = _admin(bandstand_kafka).list_topics(timeout=PATIENCE_S)
    assert str(ours.cluster_id) != str(theirs.cluster_id)
    assert topic in ours.topics
    assert topic not in theirs.topics


def test_properties_are_in_force(own_kafka: Kafka) -> None:
    """Built-in settings for development and those of the caller both reach the broker."""
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")
    client = _admin(own_kafka)
    settings = client.describe_configs([resource])[resource].result(PATIENCE_S)
    assert settings["group.min.session.timeout.ms"].value == "500"
    assert settings["auto.create.topics.enable"].value == "false"
    assert settings["message.max.bytes"].value == "2000000"


def test_kill_and_restart_keep_data_and_port(own_kafka: Kafka) -> None:
    """What was acknowledged is there after a clean stop and after a crash, at the same address."""
    _create(own_kafka, "kept")
    address = own_kafka.bootstrap_servers
    _write(own_kafka, "kept", b"before the crash")
    own_kafka.kill()
    own_kafka.start()
    _write(own_kafka, "kept", b"before the stop")
    own_kafka.restart()
    assert own_kafka.bootstrap_servers == address
    assert _read(own_kafka, "kept", 2) == [b"before the crash", b"before the stop"]


def test_paused_broker_goes_on_after_resume(own_kafka: Kafka) -> None:
    """A paused broker answers nothing, a resumed one as before."""
    client = _admin(own_kafka)
    own_kafka.pause()
    with pytest.raises(KafkaException):
        client.list_topics(timeout=0.3)
    own_kafka.resume()
    assert await_condition(own_kafka.answers, PATIENCE_S)


def test_second_start_is_refused(own_kafka: Kafka) -> None:
    """A broker that runs isn't started once more."""
    with pytest.raises(ServerError, match="is running already"):
        own_kafka.start()


def test_wrong_property_is_told_with_kafkas_own_words(tmp_path: Path) -> None:
    """The error of a start that fails has the reason that Kafka gave."""
    kafka = Kafka(tmp_path, properties={"log.retention.hours": "never"})
    with pytest.raises(ServerError, match=r"never for configuration log.retention.hours"):
        kafka.start()


def test_stopped_broker_has_no_process(tmp_path: Path) -> None:
    """Asking for the process of a server that doesn't run says what to do."""
    with pytest.raises(ServerError, match="start it first"):
        Kafka(tmp_path).pause()


def test_java_without_start_up_cache_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Java can't make its cache, Kafka starts without, and nobody tries again."""
    tries: list[Path] = []

    def fail(recording: Kafka) -> Kafka:
        tries.append(recording.folder)
        raise ServerError("no cache today")

    monkeypatch.setattr(kafka._Recording, "start", fail)
    monkeypatch.setattr(parts, "kafka_jars", lambda _: [tmp_path / "kafka-0" / "a.jar"])
    assert [kafka._start_up_cache(None) for _ in range(2)] == [None, None]
    assert len(tries) == 1
