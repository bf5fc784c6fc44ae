"""The consumer group: which partitions are ours, from where, and how far they are done.

Partitions come and go one by one (cooperative), so that a rebalance doesn't cost what is held of
those that stay. Whoever is busy calls `hold` and goes on calling `read`: then nothing is read, but
the group keeps its member.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import NamedTuple, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from bandstand import clients
from bandstand.durations import milliseconds
from bandstand.errors import BrokerError, LogGapError
from bandstand.kafka import broker_errors, consumer_config, is_passing, partition_count
from bandstand.logs import get_logger
from bandstand.settings import Settings
from bandstand.streams.join_types import Record
from bandstand.streams.records import record_of

__all__ = ["Mark", "Place", "Source"]

T = TypeVar("T")

_log = get_logger(__name__)
_LOOKUP_S = 10.0
_BATCH_RECORDS = 2_000
_STEP_S = 0.1
_ANSWER_S = 30.0
"""How long a broker that hangs may hold us up."""
_LAST_ANSWER_S = 1.0
"""The same, when the role is to stop."""

Place = tuple[str, int]
"""A topic and a partition of it."""


class Mark(NamedTuple):
    """What the group remembers of a partition."""

    offset: int | None
    """Where the next file begins; None where nothing was ever archived."""
    name: str = ""
    """Name that the next file was given by a run that may have stored it; empty where none was."""


class Source:
    """The records that this process has to archive.

    Parameters
    ----------
    settings
        Broker and group.
    topics
        Full names of the topics.
    assigned
        Called, inside `read`, with the partitions that are ours from now on.
    revoked
        Called, inside `read`, with the partitions that no longer are.
    stop
        Set when the role is to stop: from then on a broker that hangs isn't waited for.

    Raises
    ------
    TopicError
        If a topic is missing.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Iterable[str],
        assigned: Callable[[Mapping[Place, Mark]], None],
        revoked: Callable[[list[Place]], None],
        stop: threading.Event,
    ) -> None:
        self._group = settings.archive.group
        self._tell_assigned = assigned
        self._tell_revoked = revoked
        self._stop = stop
        self._owned: set[Place] = set()
        self._fresh: set[Place] = set()
        """Assigned within the last `read`, not read yet."""
        self._held = False
        session = milliseconds(settings.archive.session_timeout)
        self._consumer = clients.Consumer(
            consumer_config(
                settings,
                self._group,
                session_timeout_ms=session,
                heartbeat_interval_ms=session // 3,
                partition_assignment_strategy="cooperative-sticky",
            )
        )
        for topic in topics:
            partition_count(self._consumer, topic)
        self._consumer.subscribe(
            list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def read(self, timeout: float) -> dict[Place, list[Record]]:
        """Give what has come, by partition; nothing while held.

        Parameters
        ----------
        timeout
            Seconds to wait for more.

        Raises
        ------
        LogGapError
            If records are gone from a log before they were archived.
        BrokerError
            If the broker refuses for good.
        """
        if not self._held:
            self._resume(self._fresh)
        self._fresh.clear()
        read: dict[Place, list[Record]] = {}
        for message in self._consumer.consume(_BATCH_RECORDS, timeout):
            error = message.error()
            if error is not None:
                self._refuse(message, error)
                continue
            place = (message.topic(), message.partition())
            if place in self._owned and place not in self._fresh:
                read.setdefault(place, []).append(record_of(message))
        return read

    def hold(self) -> None:
        """Stop reading, but stay in the group; no harm if it's held already."""
        if not self._held:
            self._held = True
            self._pause(self._owned)

    def release(self) -> None:
        """Go on reading; no harm if it isn't held."""
        if self._held:
            self._held = False
            self._resume(self._owned)

    def commit(self, marks: Mapping[Place, Mark]) -> bool:
        """Make the group remember; False where it changes just now: try again after a `read`."""
        offsets = []
        for place, mark in marks.items():
            assert mark.offset is not None, "nothing to remember"
            offsets.append(TopicPartition(*place, mark.offset, metadata=mark.name))
        try:
            answers = self._answer(
                lambda: self._consumer.commit(offsets=offsets, asynchronous=False)
            )
        except TimeoutError:
            _log.warning("commit not answered, trying on")
            return False
        except KafkaException as error:
            _log.warning("commit failed, trying on", error=str(error.args[0]))
            return False
        refused = [at for at in answers or () if at.error is not None]
        for at in refused:
            _log.warning("commit failed, trying on", topic=at.topic, error=str(at.error))
        return not refused

    def end(self, place: Place) -> int | None:
        """Give the end of a log, as of the last fetch; None before the first."""
        _, end = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        return end if end >= 0 else None

    def close(self) -> None:
        """Leave the group; if the broker doesn't answer it will notice by itself."""
        try:
            self._answer(self._consumer.close)
        except TimeoutError:
            _log.warning("leaving the group isn't answered")

    def _answer(self, call: Callable[[], T]) -> T:
        """Make a call, but wait for its end no longer than we may; raises `TimeoutError`.

        A commit that comes later all the same is harmless: where it goes back behind a newer one,
        the next owner finds the files that are there already.
        """
        result = _begin(call)
        bound = time.monotonic() + _ANSWER_S
        while not result.done() and time.monotonic() < bound:
            wait([result], _STEP_S)
            if self._stop.is_set():
                bound = min(bound, time.monotonic() + _LAST_ANSWER_S)
        return result.result(0)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        committed = self._committed(consumer, partitions)
        marks = {}
        for at in committed:
            known = at.offset >= 0
            marks[at.topic, at.partition] = Mark(at.offset if known else None, at.metadata or "")
            at.offset = at.offset if known else OFFSET_BEGINNING
        consumer.incremental_assign(committed)
        # What the consume under way still gives of these may be from an earlier assignment: they
        # are read from the next one on.
        self._pause(marks)
        self._owned |= marks.keys()
        self._fresh |= marks.keys()
        self._tell_assigned(marks)
        _log.info("partitions assigned", count=len(marks), owned=len(self._owned))

    def _committed(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[TopicPartition]:
        """Look up where the archive stands, again where the broker knows it a moment later only."""
        bound = time.monotonic() + _ANSWER_S
        while True:
            try:
                with broker_errors("looking up where the archive stands"):
                    return consumer.committed(partitions, timeout=_LOOKUP_S)
            except BrokerError as error:
                if not error.passing or self._stop.is_set() or time.monotonic() > bound:
                    raise
                _log.warning("looks up again where the archive stands", problem=str(error))
                time.sleep(_STEP_S)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer
        places = [(at.topic, at.partition) for at in partitions]
        self._owned.difference_update(places)
        self._fresh.difference_update(places)
        self._tell_revoked(places)
        _log.info("partitions revoked", count=len(places), owned=len(self._owned))

    def _pause(self, places: Iterable[Place]) -> None:
        self._consumer.pause([TopicPartition(*place) for place in places])

    def _resume(self, places: Iterable[Place]) -> None:
        self._consumer.resume([TopicPartition(*place) for place in places])

    def _refuse(self, message: Message, error: KafkaError) -> None:
        where = f"topic {message.topic()!r} partition {message.partition()}"
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise LogGapError(
                f"archive of {where}: records are gone from the log before they were archived "
                f"({error.str()}); raise topics.retention; to go on behind the gap, set the offset "
                f"of group {self._group!r} with kafka-consumer-groups --reset-offsets"
            )
        passing = is_passing(error) or error.code() == KafkaError._MAX_POLL_EXCEEDED
        if error.fatal() or not passing:
            raise BrokerError(f"reading {where}: {error}")
        _log.warning("read failed, trying on", topic=message.topic(), error=error.str())


def _begin(call: Callable[[], T]) -> Future[T]:
    """Make a call beside this thread, one that may never end."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            result.set_exception(error)

    threading.Thread(target=run, name="broker", daemon=True).start()
    return result
