"""Asks which logs could be written just now, without writing.

A leader that answers isn't enough: with fewer replicas in sync than ``min.insync.replicas`` it
answers every question and refuses every record. So the leader is asked for its end, and the cluster
for the replicas in sync and how many there must be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from bandstand.kafka import admin
from bandstand.settings import Settings

__all__ = ["GONE", "Answer", "Leaders", "Place"]

GONE = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)
"""Errors that say that a topic isn't there, or isn't for us."""
_METADATA_AGE_MS = 1_000
_LEAST = "min.insync.replicas"


class Place(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


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


class _Questions(NamedTuple):
    ends: dict[Place, Future[Any]]
    topics: dict[str, Future[Any]]
    configs: dict[str, Future[Any]]

    def all(self) -> Iterable[Future[Any]]:
        return (f for futures in self for f in futures.values())


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
        # After an election the client library asks with the old leader's epoch, and is refused,
        # as long as it has that in its memory.
        self._admin: AdminClient = admin(settings, metadata_max_age_ms=_METADATA_AGE_MS)
        self._timeout = timeout
        self._questions: _Questions | None = None

    @property
    def asked(self) -> bool:
        """Whether a question is under way."""
        return self._questions is not None

    def ask(self, places: Collection[Place]) -> None:
        """Ask about some logs, one at least; returns at once."""
        end: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        topics = sorted({place.topic for place in places})
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        client, within = self._admin, {"request_timeout": self._timeout}
        ends = client.list_offsets({TopicPartition(*p): end for p in places}, **within)
        found = client.describe_topics(TopicCollection(topics), **within)
        configs = client.describe_configs(resources, **within)
        self._questions = _Questions(
            {Place(tp.topic, tp.partition): future for tp, future in ends.items()},
            found,
            {resource.name: future for resource, future in configs.items()},
        )

    def hear(self) -> Answer | None:
        """Give the answer, once; None while there is none."""
        questions = self._questions
        if questions is None or wait(questions.all(), timeout=0).not_done:
            return None
        self._questions = None
        gone = {place: e for place in questions.ends if (e := _gone(questions, place)) is not None}
        return Answer(frozenset(p for p in questions.ends if _is_writable(questions, p)), gone)


def _is_writable(questions: _Questions, place: Place) -> bool:
    parts = (
        questions.ends[place],
        questions.topics[place.topic],
        questions.configs[place.topic],
    )
    if any(part.exception() for part in parts):
        return False
    end, topic, config = (part.result() for part in parts)
    partition = next((p for p in topic.partitions if p.id == place.partition), None)
    # A question that ran out of time comes back without an error, and with no offset either.
    if end.offset < 0 or partition is None:
        return False
    # As the broker counts: of one replica no two can be in sync.
    return len(partition.isr) >= min(int(config[_LEAST].value), len(partition.replicas))


def _gone(questions: _Questions, place: Place) -> KafkaError | None:
    error = questions.ends[place].exception()
    if isinstance(error, KafkaException) and error.args[0].code() in GONE:
        cause: KafkaError = error.args[0]
        return cause
    return None
