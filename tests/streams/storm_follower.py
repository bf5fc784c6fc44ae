"""Reads topics as they grow, whatever becomes of the broker; hides the thread and its client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from bandstand.kafka import admin, consumer_config, partition_count, poll_batch
from bandstand.settings import Settings
from bandstand.streams.join_types import Record
from bandstand.streams.records import record_of

__all__ = ["Arrival", "DifferenceError", "Follower"]


class DifferenceError(AssertionError):
    """Something in the topics isn't what it must be."""


class Arrival(NamedTuple):
    """A record, and when it came."""

    topic: str
    partition: int
    at: float
    record: Record


class Follower:
    """Reads topics from their start in a thread of its own, whatever becomes of the broker.

    Parameters
    ----------
    settings
        Where the broker is.
    topics
        Names of the topics.
    """

    def __init__(self, settings: Settings, topics: Iterable[str]) -> None:
        client = admin(settings)
        places = [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for topic in topics
            for partition in range(partition_count(client, topic))
        ]
        # Not `TopicReader`: that one gives up where a broker that starts denies its topics.
        self._consumer = Consumer(
            consumer_config(settings, "bandstand.storm", fetch_wait_max_ms=20)
        )
        self._consumer.assign(places)
        self._next: dict[tuple[str, int], int] = {}
        self._arrived: list[Arrival] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.last_error = ""
        self._thread = threading.Thread(target=self._run, name="follower")
        self._thread.start()

    def take(self) -> list[Arrival]:
        """Give what came since the last call."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
        return arrived

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            messages = poll_batch(self._consumer, 0.05, 1_000)
            now = time.monotonic()
            arrived = []
            for message in messages:
                error = message.error()
                if error is not None:
                    self.last_error = error.str()
                    continue
                topic, partition = message.topic() or "", message.partition() or 0
                arrived.append(Arrival(topic, partition, now, record_of(message)))
            with self._lock:
                self._arrived += arrived
