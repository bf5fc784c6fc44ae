"""Kafka clients: how every room outside the Faust worker reaches the broker.

All clients are librdkafka's. Partitions are always chosen by murmur2 of the key, as Java clients
do, so that records with one key meet in the same partition number of every topic of a lane.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from bandstand import clients
from bandstand.errors import BandstandError, BrokerError, TopicError
from bandstand.logs import get_logger
from bandstand.settings import Settings

__all__ = [
    "LIBRARY_LOGGER",
    "TopicReader",
    "admin",
    "broker_errors",
    "consumer_config",
    "end_offsets",
    "is_passing",
    "is_record",
    "partition_count",
    "poll_batch",
    "producer_config",
]

LIBRARY_LOGGER = "librdkafka"
"""Name of the logger that takes what the client library has to say."""

_PASSING = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,  # the leader is new, and doesn't know the end yet
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._NOENT,  # no leader is known of a partition
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._UNKNOWN_PARTITION,  # so a client says while a broker that starts tells it nothing
)

_log = get_logger(__name__)
_METADATA_TIMEOUT_S = 10.0
_ADVICE = "is Kafka up where kafka.bootstrap_servers says?"


def producer_config(settings: Settings, **overrides: object) -> dict[str, Any]:
    """Give the configuration of a producer that loses nothing and keeps its order.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    overrides
        librdkafka properties, underscores for dots.
    """
    return {
        **_connection(settings),
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2",
        "compression.type": "lz4",
        "linger.ms": 5,
        **_dotted(overrides),
    }


def consumer_config(settings: Settings, group_id: str, **overrides: object) -> dict[str, Any]:
    """Give the configuration of a consumer that commits nothing by itself.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    group_id
        Consumer group; required by librdkafka also where partitions are assigned by hand.
    overrides
        librdkafka properties, underscores for dots.
    """
    return {
        **_connection(settings),
        "group.id": group_id,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 100,
        "fetch.queue.backoff.ms": 5,
        **_dotted(overrides),
    }


def admin(
    settings: Settings, error_cb: Callable[[KafkaError], None] | None = None, **overrides: object
) -> AdminClient:
    """Give an admin client.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    error_cb
        Called with what is wrong with its connections, in its `poll`, instead of logs.
    overrides
        librdkafka properties, underscores for dots.

    Raises
    ------
    BrokerError
        If the settings aren't fit to make one.
    """
    with broker_errors("making an admin client"):
        hooks: dict[str, Any] = {} if error_cb is None else {"error_cb": error_cb, "log_level": 0}
        return clients.AdminClient({**_connection(settings), **_dotted(overrides), **hooks})


def _connection(settings: Settings) -> dict[str, Any]:
    return {**settings.kafka.librdkafka(), "logger": logging.getLogger(LIBRARY_LOGGER)}


def _dotted(overrides: dict[str, object]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in overrides.items()}


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Translate the client library's errors into Bandstand's.

    Parameters
    ----------
    doing
        What is being tried, for the message.

    Raises
    ------
    TopicError
        If a topic or partition is missing.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    try:
        yield
    except KafkaException as error:
        cause = error.args[0]
        missing = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
        if isinstance(cause, KafkaError) and cause.code() in missing:
            raise TopicError(f"{doing}: {cause.str()}; run 'bandstand topics create'") from error
        reason = cause.str() if isinstance(cause, KafkaError) else cause
        unfit = isinstance(cause, KafkaError) and cause.code() == KafkaError._INVALID_ARG
        advice = "check the settings of kafka" if unfit else _ADVICE
        raise BrokerError(f"{doing}: {reason}; {advice}", passing=is_passing(cause)) from error


def partition_count(client: AdminClient | Consumer, topic: str) -> int:
    """Give a topic's partition count.

    Raises
    ------
    TopicError
        If the topic isn't there.
    """
    with broker_errors(f"looking up topic {topic!r}"):
        metadata = client.list_topics(topic, timeout=_METADATA_TIMEOUT_S).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
    return len(metadata.partitions)


def end_offsets(settings: Settings, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Give the offset after the last record of each partition, open transactions included.

    A ``read_committed`` consumer is told the end of what is committed now: while anybody's
    transaction is open that may lie before records that others have committed. Whoever must see
    all of those reads up to this offset instead.

    Raises
    ------
    TopicError
        If the topic or a partition isn't there.
    BrokerError
        If the broker can't be reached.
    """
    client = admin(settings)
    places = [TopicPartition(topic, p) for p in partitions]
    deadline = time.monotonic() + _METADATA_TIMEOUT_S
    while True:
        try:
            with broker_errors(f"looking up the end of topic {topic!r}"):
                return _latest(client, places)
        except BrokerError as error:
            if time.monotonic() > deadline or not error.passing:
                raise
            _refresh(client, topic)


def _refresh(client: AdminClient, topic: str) -> None:
    """Have a client look for the topic's leaders anew; by itself it asks the one it remembers."""
    time.sleep(0.05)
    with suppress(KafkaException):
        client.list_topics(topic, timeout=_METADATA_TIMEOUT_S)


def _latest(client: AdminClient, places: list[TopicPartition]) -> dict[int, int]:
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    answers = client.list_offsets(
        dict.fromkeys(places, latest),
        isolation_level=IsolationLevel.READ_UNCOMMITTED,
        request_timeout=_METADATA_TIMEOUT_S,
    )
    return {place.partition: answer.result().offset for place, answer in answers.items()}


def is_passing(cause: object) -> bool:
    """Tell whether an error is that of a broker that is away, or of a partition between leaders."""
    if not isinstance(cause, KafkaError):
        return False
    # So says a broker that was frozen, until its controller lets it in again.
    fenced = cause.code() == KafkaError.INVALID_REPLICATION_FACTOR and "fenced" in cause.str()
    return fenced or cause.retriable() or cause.code() in _PASSING


def poll_batch(consumer: Consumer, timeout: float, most: int) -> list[Message]:
    """Give what a consumer has: waits for a first message only, as `Consumer.consume` doesn't.

    Parameters
    ----------
    consumer
        A consumer with an assignment or a subscription.
    timeout
        Seconds to wait for a first message, >= 0.
    most
        Most messages to give, at least 1.
    """
    first = consumer.poll(timeout)
    if first is None:
        return []
    return [first, *consumer.consume(most - 1, 0)] if most > 1 else [first]


def is_record(message: Message, topic: str) -> bool:
    """Tell a record from an event of the client, such as the end of a partition.

    Parameters
    ----------
    message
        What the consumer gave.
    topic
        What is being read, for errors.

    Raises
    ------
    TopicError
        If the topic is missing.
    BrokerError
        If the broker refuses for good, e.g. because an offset isn't there.
    """
    error = message.error()
    if error is None:
        return True
    if error.code() == KafkaError._PARTITION_EOF:
        return False
    if error.fatal() or not error.retriable():
        with broker_errors(f"reading topic {message.topic() or topic!r}"):
            raise KafkaException(error)
    _log.warning("read failed, trying on", topic=message.topic() or topic, error=error.str())
    return False


class TopicReader:
    """Read a topic from its start and go on following it, without a consumer group.

    For topics that are tables (compacted) and small enough to be read whole by whoever needs them.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    topic
        The topic.
    starts
        Partitions to read, and the offset to begin at in each; all, from their start, by default.
        What was deleted meanwhile is passed over.
    isolation
        ``read_committed`` leaves out records of transactions that are open or were aborted.

    Raises
    ------
    TopicError
        If the topic isn't there.
    BrokerError
        If the broker can't be reached, or the settings aren't fit to reach it.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        *,
        starts: Mapping[int, int] | None = None,
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
    ) -> None:
        self.topic = topic
        self._settings = settings
        configuration = consumer_config(
            settings,
            "bandstand.reader",
            isolation_level=isolation,
            enable_partition_eof=True,
            auto_offset_reset="earliest",
        )
        with broker_errors(f"reading topic {topic!r}"):
            self._consumer = clients.Consumer(configuration)
        self._next = dict.fromkeys(self._all_partitions(), 0) if starts is None else dict(starts)
        self._behind = set(self._next)
        self._consumer.assign(
            [TopicPartition(topic, p, at or OFFSET_BEGINNING) for p, at in self._next.items()]
        )

    @property
    def caught_up(self) -> bool:
        """Whether every partition has been read to an end that it had since the start."""
        return not self._behind

    def poll(self, timeout: float, max_records: int = 1_000) -> list[Message]:
        """Give the next records; an empty list where none came within the time.

        Parameters
        ----------
        timeout
            Seconds to wait for a first record, >= 0.
        max_records
            Most records to give, at least 1.

        Raises
        ------
        BrokerError
            If the broker refuses for good.
        """
        messages = poll_batch(self._consumer, timeout, max_records)
        return [message for message in messages if self._is_record(message)]

    def position(self, partition: int) -> int:
        """Give the offset of the next record to be read, as far as is known by now."""
        return self._next[partition]

    def read_to_end(self, timeout: float, stop: threading.Event | None = None) -> Iterator[Message]:
        """Give all records up to the end that the topic has now; waits for open transactions.

        Parameters
        ----------
        timeout
            Seconds within which the end must be reached, > 0.
        stop
            Once this is set, reading ends early.

        Raises
        ------
        BrokerError
            If the end isn't reached in time.
        """
        deadline = time.monotonic() + timeout
        ends = end_offsets(self._settings, self.topic, self._next)
        while behind := [p for p, end in ends.items() if self._next[p] < end]:
            if stop is not None and stop.is_set():
                return
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"topic {self.topic!r} wasn't read to its end within {timeout:g} s; "
                    f"partitions that are behind: {behind}; a transaction may be open there",
                    passing=True,
                )
            yield from self.poll(0.1)

    def ping(self, timeout: float) -> None:
        """Ask every partition's leader for a sign of life: a quiet topic gives none by itself.

        Parameters
        ----------
        timeout
            Seconds to wait for each, > 0.

        Raises
        ------
        BrokerError
            If one doesn't answer.
        """
        with broker_errors(f"asking for a sign of life of topic {self.topic!r}"):
            for partition in self._consumer.assignment():
                self._consumer.get_watermark_offsets(partition, timeout=timeout, cached=False)

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def _all_partitions(self) -> range:
        try:
            return range(partition_count(self._consumer, self.topic))
        except BandstandError:
            self._consumer.close()
            raise

    def _is_record(self, message: Message) -> bool:
        partition, offset = message.partition() or 0, message.offset() or 0
        if is_record(message, self.topic):
            self._next[partition] = offset + 1
            return True
        error = message.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            self._next[partition] = offset
            self._behind.discard(partition)
        return False
