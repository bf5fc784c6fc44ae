"""Writing without gaps: the producer of outcomes.

Readers of outcomes drop what doesn't increase the source offset. That is right only if a writer's
stream has no holes; so a record that can't be delivered is the producer's end, with nothing sent
after it, and a full queue makes the join wait instead of dropping.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import length_hint
from typing import Any

from confluent_kafka import KafkaException, Message

from bandstand.clients import Producer
from bandstand.errors import BrokerError
from bandstand.kafka import producer_config
from bandstand.settings import Settings
from bandstand.streams.join_types import Emission, Emissions

__all__ = ["GaplessProducer"]

_QUEUE_KBYTES = 65_536
_LARGEST_REQUEST_BYTES = 2_000_000
"""More than an outcome topic takes: what is too large is the core's business, not the client's."""


@dataclass(slots=True)
class _Queued:
    """Records of one partition, of which the first `sent` were queued with the client."""

    topic: str
    partition: int
    keys: Sequence[bytes]
    timestamps: Sequence[int]
    values: Sequence[bytes | None]
    headers: Any = None
    sent: int = 0

    @property
    def left(self) -> int:
        return len(self.keys) - self.sent


class GaplessProducer:
    """A producer whose stream has no gaps, or ends.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    failed
        Called with the error when a record could not be delivered; nothing is sent after it.
    overrides
        librdkafka properties, underscores for dots.
    """

    def __init__(
        self, settings: Settings, failed: Callable[[BrokerError], None], **overrides: object
    ) -> None:
        self._tell = failed
        self._backlog: deque[_Queued] = deque()
        self._failed = False
        config: dict[str, Any] = producer_config(
            settings,
            message_timeout_ms=0,
            enable_gapless_guarantee=True,
            queue_buffering_max_kbytes=_QUEUE_KBYTES,
            message_max_bytes=_LARGEST_REQUEST_BYTES,
            delivery_report_only_error=True,
            **overrides,
        )
        self._producer = Producer(
            {**config, "on_delivery": self._on_delivery, "error_cb": self._on_error}
        )

    @property
    def full(self) -> bool:
        """Whether records wait for room in the queue; then nothing more should be read."""
        return bool(self._backlog)

    def send(self, topic: str, partition: int, emission: Emission) -> None:
        """Queue one record."""
        key, timestamp, value, headers = emission
        self._send(_Queued(topic, partition, [key], [timestamp], [value], headers))

    def send_all(self, topic: str, partition: int, emissions: Emissions) -> None:
        """Queue what a core gave, in its order."""
        columns = emissions.keys, emissions.timestamps, emissions.values
        self._send(_Queued(topic, partition, *columns))

    def poll(self) -> None:
        """Notice deliveries and failures; queue what waits for room."""
        self._notice()
        while self._backlog and self._produce(self._backlog[0]):
            self._backlog.popleft()

    def flush(self, timeout: float) -> int:
        """Wait until everything is delivered; give how many records are not, after `timeout`."""
        self.poll()
        return self._waiting + (0 if self._failed else int(self._producer.flush(timeout)))

    def __len__(self) -> int:
        """How many records aren't delivered yet."""
        return self._waiting + len(self._producer)

    @property
    def _waiting(self) -> int:
        return sum(queued.left for queued in self._backlog)

    def _send(self, queued: _Queued) -> None:
        if self._backlog or not self._produce(queued):
            self._backlog.append(queued)

    def _produce(self, queued: _Queued) -> bool:
        """Give the client as much as it has room for; tell whether that was all."""
        if self._failed:
            return False
        topic, partition, none = repeat(queued.topic), repeat(queued.partition), repeat(None)
        keys, times, values = (
            iter(column[queued.sent :])
            for column in (queued.keys, queued.timestamps, queued.values)
        )
        # In one call, and by position: anything else takes half as long again, a million times.
        calls = map(
            self._producer.produce,
            *(topic, values, keys, partition, none, none, times, repeat(queued.headers)),
        )
        refused = 1
        try:
            deque(calls, maxlen=0)
            refused = 0
        except BufferError:
            self._notice()
        except KafkaException as error:
            self._fail(queued.topic, queued.partition, error.args[0])
        queued.sent = len(queued.keys) - length_hint(keys) - refused
        return not queued.left

    def _notice(self) -> None:
        try:
            self._producer.poll(0)
        except KafkaException as error:  # a fatal one, whatever the callbacks were told
            self._fail(None, None, error.args[0])

    def _on_delivery(self, error: object, message: Message) -> None:
        if error is not None:
            self._fail(message.topic(), message.partition(), error)

    def _on_error(self, error: Any) -> None:
        if error.fatal():
            self._fail(None, None, error)

    def _fail(self, topic: str | None, partition: int | None, error: object) -> None:
        if self._failed:
            return
        self._failed = True
        self._backlog.clear()
        self._producer.purge(in_flight=False, blocking=False)
        where = "" if topic is None else f" to topic {topic!r}, partition {partition},"
        self._tell(
            BrokerError(
                f"a record{where} could not be delivered: {error}; going on would leave a hole, so "
                "nothing more is written; nothing is lost: remove the cause and start this worker "
                "again"
            )
        )
