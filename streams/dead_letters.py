"""Where records go that couldn't be used: nothing is dropped, and nothing stops for them.

A role sends a letter for each record that it refuses. One that keeps a position calls
`DeadLetters.flush` before it moves past that record; the join reads recent records again at every
start, and so refuses them again. After a crash a letter may be written again, under the same key.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from confluent_kafka import KafkaError, Message
from prometheus_client import Counter

from bandstand.clients import Producer
from bandstand.errors import BrokerError
from bandstand.kafka import broker_errors, producer_config
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings

__all__ = ["DeadLetters", "Origin", "origin_of"]

_MOST_VALUE_BYTES = 1_900_000
_MOST_KEY_BYTES = 64_000
_MOST_DETAIL = 2_000
_QUEUE_BYTES = 64 * 2**20
_ROOM_S = 0.1
_LETTERS = Counter(
    "bandstand_dead_letters",
    "Records that were refused and written to dead-letters.",
    ["role", "topic", "reason"],
)


class Origin(NamedTuple):
    """A refused record and the place that it came from.

    Parameters
    ----------
    topic, partition, offset
        Where it lies.
    timestamp
        Its Kafka timestamp, milliseconds.
    key, value
        Its bytes.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None

    @property
    def letter_key(self) -> bytes:
        """Key of the dead letter: a repeat of it is seen as one.

        Examples
        --------
        >>> Origin("a.rewards", 3, 17, 0, None, None).letter_key
        b'a.rewards/3/17'
        """
        return f"{self.topic}/{self.partition}/{self.offset}".encode()


def origin_of(message: Message) -> Origin:
    """Take a refused record from the client library's message."""
    return Origin(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        message.key(),
        message.value(),
    )


class DeadLetters:
    """Writes dead letters for one role.

    Parameters
    ----------
    settings
        Where the broker is, and the topics' prefix.
    role
        Name of the role that refuses, e.g. ``join``.
    wire
        How the letters are written.
    """

    def __init__(self, settings: Settings, role: str, wire: Wire) -> None:
        self._topic = TopicNames(settings.topics.prefix).dead_letters
        self._role = role
        self._wire = wire
        self._failed: KafkaError | None = None
        self._backlog: deque[tuple[bytes, bytes]] = deque()
        self._idle_until = time.monotonic()
        config = producer_config(
            settings,
            message_timeout_ms=0,
            message_max_bytes=2 * _MOST_VALUE_BYTES,
            queue_buffering_max_kbytes=_QUEUE_BYTES // 1024,
        )
        with broker_errors("making the producer of dead letters"):
            self._producer = Producer(config)

    def send(self, origin: Origin, reason: str, detail: str) -> None:
        """Queue a letter; never blocks and never drops.

        Parameters
        ----------
        origin
            The refused record. A value of more than 1.9 MB is cut, and the detail says so.
        reason
            One word of a fixed set.
        detail
            What is wrong, for a human.

        Raises
        ------
        BrokerError
            If an earlier letter was refused.
        """
        value = self._wire.dumps("dead_letter", _letter(origin, reason, detail, self._role))
        if not len(self):
            self._idle_until = time.monotonic()
        self._backlog.append((origin.letter_key, value))
        self.poll()
        _LETTERS.labels(self._role, origin.topic, reason).inc()

    def __len__(self) -> int:
        """Tell how many letters aren't acknowledged yet: a role that reads on must mind them."""
        return len(self._backlog) + len(self._producer)

    @property
    def waiting(self) -> float:
        """Seconds since all letters were last acknowledged; 0 while they are."""
        return time.monotonic() - self._idle_until if len(self) else 0.0

    def poll(self) -> None:
        """Notice what was acknowledged, and pass on what waited for room in the queue.

        Raises
        ------
        BrokerError
            If a letter was refused.
        """
        self._producer.poll(0)
        self._raise_failure()
        while self._backlog and self._queued(*self._backlog[0]):
            self._backlog.popleft()

    def flush(self, timeout: float) -> None:
        """Return when every letter sent so far is on the broker.

        Parameters
        ----------
        timeout
            Seconds to wait at most, > 0.

        Raises
        ------
        BrokerError
            If one is not: the caller's position must not move past the records they are about.
        """
        deadline = time.monotonic() + timeout
        self.poll()
        while len(self) and (left := deadline - time.monotonic()) > 0:
            self._producer.flush(left if not self._backlog else min(left, _ROOM_S))
            self.poll()
        if len(self):
            raise BrokerError(
                f"{len(self)} dead letters to {self._topic} weren't acknowledged within "
                f"{timeout:g} s; the position stays where it was",
                passing=True,
            )

    def close(self) -> None:
        """Give what is under way a last second."""
        self._producer.flush(1.0)

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _queued(self, key: bytes, value: bytes) -> bool:
        try:
            with broker_errors(f"writing a dead letter to {self._topic}"):
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
        except BufferError:
            return False
        return True

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        del message
        self._failed = self._failed or error

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise BrokerError(f"a dead letter to {self._topic} was refused: {self._failed.str()}")


def _letter(origin: Origin, reason: str, detail: str, role: str) -> dict[str, object]:
    key, value = origin.key, origin.value
    detail = detail[:_MOST_DETAIL]
    if key is not None and len(key) > _MOST_KEY_BYTES:
        detail = f"{detail} (key cut from {len(key)} bytes)"
        key = key[:_MOST_KEY_BYTES]
    if value is not None and len(value) > _MOST_VALUE_BYTES:
        detail = f"{detail} (value cut from {len(value)} bytes)"
        value = value[:_MOST_VALUE_BYTES]
    return {
        "reason": reason,
        "detail": detail,
        "role": role,
        "topic": origin.topic,
        "partition": origin.partition,
        "offset": origin.offset,
        "ts": origin.timestamp,
        "key": key,
        "value": value,
    }
