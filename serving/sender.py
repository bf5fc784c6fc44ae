"""A queue to Kafka that never makes its user wait: what is full or lost is counted and said.

librdkafka holds the queue and sends from threads of its own. A thread here collects its reports of
failed deliveries, writes at most one line of log in ten seconds about them, and replaces a producer
that has failed for good.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bandstand.durations import milliseconds
from bandstand.errors import BrokerError
from bandstand.kafka import broker_errors, producer_config
from bandstand.logs import get_logger
from bandstand.schemas.wire import Wire
from bandstand.serving.metrics import DROPPED, LOST
from bandstand.settings import Settings

__all__ = ["OnLost", "Sender", "header_of"]

OnLost = Callable[[Message, KafkaError], None]

_log = get_logger(__name__)
_COLLECT_S: Final = 0.05
_REPORT_S: Final = 10.0
_REPLACE_S: Final = 5.0
_CLOSED: Final = "it is closed"
_FORKED: Final = (
    "this process was forked from the one that made it, and Kafka clients don't survive a fork; "
    "make one after the fork (gunicorn: in post_fork)"
)

_alive: weakref.WeakSet[Sender] = weakref.WeakSet()


class Sender:
    """Sends records without waiting; thread-safe.

    Parameters
    ----------
    settings
        Where the broker is, and how long the queue may grow.
    name
        What is sent, for logs: ``decisions`` or ``rewards``.
    patience
        How long a record waits for a broker that is away before it is given up.
    on_lost
        Called, from the sender's thread, with every record that was queued and not delivered.
    """

    def __init__(
        self, settings: Settings, name: str, *, patience: timedelta, on_lost: OnLost | None = None
    ) -> None:
        self.name = name
        self.ended: str | None = None
        """Why nothing can be sent any more; None while it can."""
        self.dropped = 0
        """Records that the queue didn't take."""
        self.lost = 0
        """Records that the queue took and that weren't delivered."""
        self._on_lost = on_lost
        self._configuration = producer_config(
            settings,
            message_timeout_ms=milliseconds(patience),
            queue_buffering_max_messages=settings.serve.queue_max_messages,
        )
        self._lock = threading.Lock()
        self._why = ""
        self._trouble = ""
        self._reported = 0
        self._report_at = 0.0
        self._fatal: KafkaError | None = None
        self._producer = self._open()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, name=f"bandstand-{name}", daemon=True)
        self._thread.start()
        _alive.add(self)
        atexit.register(self.close)

    def send(self, topic: str, key: bytes, value: bytes, ts: int) -> bool:
        """Queue a record; False if it was dropped.

        Parameters
        ----------
        topic
            Where to.
        key
            Its key.
        value
            Its bytes, header included.
        ts
            Its event time, milliseconds since 1970, UTC.
        """
        try:
            self._producer.produce(topic, value, key, timestamp=ts)
        except BufferError:
            self._drop(topic, "the queue is full")
        except (KafkaException, RuntimeError) as error:
            self._drop(topic, str(error))
        else:
            return True
        return False

    def flush(self, timeout: float) -> int:
        """Wait until everything queued is delivered or lost; give how many records are left.

        Parameters
        ----------
        timeout
            Seconds to wait at most, >= 0.
        """
        left: int = self._producer.flush(timeout)
        return left

    def close(self, timeout: float = 5.0) -> None:
        """Send what is queued, as far as that goes within the time, and end.

        Parameters
        ----------
        timeout
            Seconds to wait at most, >= 0.
        """
        if self.ended is not None:
            return
        self.ended = _CLOSED
        atexit.unregister(self.close)
        self._stop.set()
        self._thread.join()
        if self.flush(timeout):
            _give_up(self._producer)
        self._report(final=True)

    def _open(self) -> Producer:
        # librdkafka's own lines come many a second while a broker is away; `_report` says the same.
        hooks = {"on_delivery": self._delivered, "error_cb": self._failed, "log_level": 0}
        with broker_errors(f"setting up the producer of {self.name}"):
            return Producer({**self._configuration, **hooks})

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        LOST.labels(message.topic()).inc()
        with self._lock:
            self.lost += 1
            self._why = error.str()
        if self._on_lost is None:
            return
        try:
            self._on_lost(message, error)
        except Exception:  # noqa: BLE001 - a user's code; it must not end the sender's thread
            _log.exception("a lost record couldn't be handed back", records=self.name)

    def _failed(self, error: KafkaError) -> None:
        with self._lock:
            self._trouble = error.str()
        if error.fatal():
            self._fatal = error

    def _drop(self, topic: str, why: str) -> None:
        DROPPED.labels(topic).inc()
        with self._lock:
            self.dropped += 1
            self._why = why

    def _collect(self) -> None:
        replace_at = 0.0
        while not self._stop.wait(_COLLECT_S):
            self._producer.poll(0)
            if self._fatal is not None and time.monotonic() >= replace_at:
                replace_at = time.monotonic() + _REPLACE_S
                self._replace(self._fatal)
            self._report()

    def _replace(self, error: KafkaError) -> None:
        _log.error("producer failed for good, a new one begins", records=self.name, why=str(error))
        self._fatal = None
        old, self._producer = self._producer, self._open()
        _give_up(old)

    def _report(self, *, final: bool = False) -> None:
        now = time.monotonic()
        if now < self._report_at and not final:
            return
        with self._lock:
            gone, trouble, self._trouble = self.dropped + self.lost, self._trouble, ""
            new, self._reported = gone - self._reported, gone
        if new:
            _log.error(
                "records don't reach Kafka",
                records=self.name,
                dropped=self.dropped,
                lost=self.lost,
                since_last_report=new,
                why=self._why,
            )
        elif trouble:
            _log.warning("trouble with Kafka", records=self.name, why=trouble)
        if new or trouble:
            self._report_at = now + _REPORT_S


def _give_up(producer: Producer) -> None:
    """Take what is queued as lost."""
    producer.purge()
    producer.flush(1.0)


def header_of(wire: Wire, name: str) -> bytes:
    """Give what stands before every record of a name.

    A service must be able to start while the schema registry is away; every reader also takes
    Avro's own header, which needs none.
    """
    try:
        return wire.header(name)
    except BrokerError as error:
        _log.warning("records go without the registry's id", records=name, why=str(error))
        return Wire.single_object().header(name)


def _forbid_in_child() -> None:
    for sender in list(_alive):
        sender.ended = _FORKED
        atexit.unregister(sender.close)


os.register_at_fork(after_in_child=_forbid_in_child)
