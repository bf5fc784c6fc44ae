"""Asks which logs could be written just now, without writing.

A leader that answers isn't enough: with fewer replicas in sync than ``min.insync.replicas`` it
answers every question and refuses every record. So the leader is asked for its end, and the cluster
for the replicas in sync and how many there must be.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from bandstand.kafka import admin
from bandstand.settings import Settings

__all__ = ["GONE", "RECONNECT_MS", "Answer", "Leaders", "Place"]

GONE = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)
"""Errors that say that a topic isn't there, or isn't for us."""
RECONNECT_MS = 1_000
"""Longest time between two tries to reach a broker; the client's own, ten seconds, is long."""
_LEAST = "min.insync.replicas"
_LEAST_S = 0.05


class Place(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Answer(NamedTuple):
    """What was found out.

    Parameters
    ----------
    writable
        Logs whose leader answered, with enough replicas in sync.
    gone
        Logs that aren't there, or aren't for us, with the error that says so.
    """

    writable: frozenset[Place]
    gone: dict[Place, KafkaError]


class Leaders:
    """Asks for many logs at once, one question at a time.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    timeout
        Seconds within which an answer is of use.
    """

    def __init__(self, settings: Settings, timeout: float) -> None:
        self._admin: AdminClient = admin(settings, reconnect_backoff_max_ms=RECONNECT_MS)
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leaders")
        self._answer: Future[Answer] | None = None
        self._configs: dict[str, Future[Any]] = {}
        self._least: dict[str, int] = {}
        self._in_sync: dict[str, frozenset[Place]] = {}
        """Of each topic the partitions with enough replicas in sync, when that was last told."""

    @property
    def asked(self) -> bool:
        """Whether a question is under way."""
        return self._answer is not None

    def ask(self, places: Collection[Place]) -> None:
        """Ask about some logs, one at least; returns at once."""
        self._answer = self._thread.submit(self._find_out, list(places))

    def hear(self) -> Answer | None:
        """Give the answer, once; None while there is none."""
        if self._answer is None or not self._answer.done():
            return None
        answer, self._answer = self._answer.result(), None
        return answer

    def close(self) -> None:
        """Ask no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _find_out(self, places: Sequence[Place]) -> Answer:
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        ends = self._admin.list_offsets(
            {TopicPartition(*place): latest for place in places}, request_timeout=self._timeout
        )
        enough = self._enough_in_sync({place.topic for place in places})
        wait(ends.values())
        of_place = {Place(tp.topic, tp.partition): future for tp, future in ends.items()}
        # A question that ran out of time comes back without an error, and with no offset either.
        answered = {p for p, f in of_place.items() if not f.exception() and f.result().offset >= 0}
        gone = {p: e for p, f in of_place.items() if (e := _denied(f)) is not None}
        return Answer(frozenset(answered & enough), gone)

    def _enough_in_sync(self, topics: Collection[str]) -> set[Place]:
        self._learn_least(topics)
        end = time.monotonic() + self._timeout
        for topic in topics:
            # Not the admin's own call, which goes to one broker only, be it frozen. It may meet
            # that one, too: what was told last holds then, for the leader itself has answered.
            # It also has the client ask the next leader after an election, not the one before.
            with suppress(KafkaException):
                left = max(end - time.monotonic(), _LEAST_S)
                partitions = self._admin.list_topics(topic, timeout=left).topics[topic].partitions
                self._in_sync[topic] = frozenset(
                    Place(topic, number)
                    for number, partition in partitions.items()
                    if len(partition.isrs) >= self._needed(topic, len(partition.replicas))
                )
        return {place for topic in topics for place in self._in_sync.get(topic, ())}

    def _needed(self, topic: str, copies: int) -> int:
        """Give how many replicas must be in sync; as the broker counts, one is enough of one."""
        return min(self._least.get(topic, copies), copies)

    def _learn_least(self, topics: Iterable[str]) -> None:
        """Ask how many replicas must be in sync; until the answer comes, the last one holds."""
        for topic, future in list(self._configs.items()):
            if future.done():
                del self._configs[topic]
                if not future.exception():
                    self._least[topic] = int(future.result()[_LEAST].value)
        new = [ConfigResource(ResourceType.TOPIC, t) for t in topics if t not in self._configs]
        if new:
            asked = self._admin.describe_configs(new, request_timeout=self._timeout)
            self._configs |= {resource.name: future for resource, future in asked.items()}


def _denied(future: Future[Any]) -> KafkaError | None:
    error = future.exception()
    if isinstance(error, KafkaException) and error.args[0].code() in GONE:
        cause: KafkaError = error.args[0]
        return cause
    return None
