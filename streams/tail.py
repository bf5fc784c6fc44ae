"""Looks at the ends of logs: where an outcome partition stands, where a time begins, the last tick.

The outcome topic's tail is the join's only checkpoint; nothing is remembered elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType

from bandstand.clients import Consumer
from bandstand.errors import BrokerError
from bandstand.kafka import admin, broker_errors, consumer_config, partition_count
from bandstand.schemas.topics import TICK_KEY
from bandstand.settings import Settings
from bandstand.streams.join_types import Record

__all__ = ["LogEnds"]

_REQUEST_S = 2.0
_PATIENCE_S = 5.0
_RETRY_S = 0.05
_FETCH_WAIT_MS = 2
_METADATA_AGE_MS = 1_000
_LOOK_BACK = 5_000
_LOOK_BACK_OLD = 200
_FIRST_STEP_BACK = 200
_LAST_STEP_BACK = 20_000
"""Records; so many are read well within the patience."""

T = TypeVar("T")


class LogEnds:
    """Reads single places of logs, by offset or time; for one thread.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = _consumer(settings)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Give the first offset that is kept and the next one to be written.

        Raises
        ------
        BrokerError
            If no leader answers in time.
        """
        place = TopicPartition(topic, partition)
        low, high = self._patiently(
            lambda: self._consumer.get_watermark_offsets(place, timeout=_REQUEST_S),
            f"looking for the end of {topic}/{partition}",
        )
        return int(low), int(high)

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int | None:
        """Give the first offset whose timestamp isn't smaller; None where there is none.

        Parameters
        ----------
        topic, partition
            The log.
        timestamp
            Milliseconds since the epoch.
        """
        place = TopicPartition(topic, partition, max(timestamp, 0))

        def look() -> int:
            [answer] = self._consumer.offsets_for_times([place], timeout=_REQUEST_S)
            if answer.error is not None:
                raise KafkaException(answer.error)
            return int(answer.offset)

        offset = self._patiently(look, f"looking for time {timestamp} in {topic}/{partition}")
        return offset if offset >= 0 else None

    def tail(self, topic: str, partition: int) -> Record | None:
        """Give the last record, whatever markers of transactions follow it; None where none is.

        Raises
        ------
        BrokerError
            If it can't be read in time.
        """
        low, high = self.bounds(topic, partition)
        back = 1
        while high > low:
            start = max(high - back, low)
            records = list(self._read(topic, partition, start, high))
            if records or start == low:
                return records[-1] if records else None
            back *= 2
        return None

    def last_tick(self, topic: str, partition: int, since: int) -> int | None:
        """Give the newest tick's time, as far as a bounded look at the log's end can tell.

        Parameters
        ----------
        topic, partition
            The log.
        since
            Milliseconds since the epoch; a tick that isn't older is found unless thousands of
            records follow it, an older one only if it is among the last few hundred.
        """
        low, high = self.bounds(topic, partition)
        start = self.offset_at(topic, partition, since)
        back = high - _LOOK_BACK_OLD if start is None else max(start, high - _LOOK_BACK)
        records = self._read(topic, partition, max(back, low), high)
        return max((r.timestamp for r in records if r.key == TICK_KEY), default=None)

    def partition_count(self, topic: str) -> int:
        """Give a topic's partition count.

        Raises
        ------
        TopicError
            If the topic isn't there.
        """
        return partition_count(self._consumer, topic)

    def newest_tick(self, topic: str, partition: int) -> int | None:
        """Give the newest tick's time, however many records follow it; None where there is none."""
        tick = self.newest(topic, partition, lambda record: record.key == TICK_KEY)
        return None if tick is None else tick.timestamp

    def newest(self, topic: str, partition: int, fits: Callable[[Record], bool]) -> Record | None:
        """Give the last record that fits: reads back from the end, in steps that grow.

        Parameters
        ----------
        topic, partition
            The log.
        fits
            Tells whether a record is what is looked for.
        """
        low, end = self.bounds(topic, partition)
        back = _FIRST_STEP_BACK
        while end > low:
            start = max(end - back, low)
            last = None
            for record in self._read(topic, partition, start, end):
                last = record if fits(record) else last
            if last is not None:
                return last
            end, back = start, min(2 * back, _LAST_STEP_BACK)
        return None

    def next(
        self, topic: str, partition: int, start: int, fits: Callable[[Record], bool]
    ) -> Record | None:
        """Give the first record from an offset on that fits, as the log is now."""
        low, high = self.bounds(topic, partition)
        records = self._read(topic, partition, max(start, low), high)
        with closing(records):
            return next((record for record in records if fits(record)), None)

    def retention_ms(self, topic: str) -> int | None:
        """Give for how long a topic keeps its records, in milliseconds; None: for ever.

        Raises
        ------
        BrokerError
            If the broker doesn't answer in time.
        """
        resource = ConfigResource(ResourceType.TOPIC, topic)
        client = admin(self._settings)
        with broker_errors(f"reading the settings of topic {topic!r}"):
            [answer] = client.describe_configs([resource], request_timeout=_REQUEST_S).values()
            kept = int(answer.result()["retention.ms"].value)
        return kept if kept >= 0 else None

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _patiently(self, ask: Callable[[], T], doing: str) -> T:
        """Ask again while a new leader settles in: a fresh topic's first answer may be a refusal.

        A client that was told of no brokers may never find one again (librdkafka's #5301), so
        whoever comes back after such a wait asks by a new one.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return ask()
            except KafkaException as error:
                _raise_unless_passing(error.args[0], doing)
                if time.monotonic() > deadline:
                    self._consumer.close()
                    self._consumer = _consumer(self._settings)
                    raise BrokerError(
                        f"{doing}: no answer within {_PATIENCE_S:g} s: {error}", passing=True
                    ) from None
                time.sleep(_RETRY_S)

    def _read(self, topic: str, partition: int, start: int, end: int) -> Generator[Record]:
        """Read from `start` up to, not including, `end`."""
        if start >= end:
            return
        self._consumer.assign([TopicPartition(topic, partition, start)])
        try:
            yield from self._read_assigned(f"{topic}/{partition}", end)
        finally:
            self._consumer.unassign()

    def _read_assigned(self, log: str, end: int) -> Generator[Record]:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.1)
            if message is None:
                continue
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                return
            if error is not None:
                _raise_unless_passing(error, f"reading {log}")
                continue
            record = _record(message)
            if record.offset < end:
                yield record
            if record.offset >= end - 1:
                return
        raise BrokerError(
            f"{log} could not be read up to offset {end} within {_PATIENCE_S:g} s; "
            "is its leader up?",
            passing=True,
        )


def _record(message: Any) -> Record:
    _, timestamp = message.timestamp()
    headers = message.headers() or ()
    return Record(message.offset(), timestamp, message.key(), message.value(), headers)


def _consumer(settings: Settings) -> Consumer:
    return Consumer(
        consumer_config(
            settings,
            "bandstand.join.ends",
            enable_partition_eof=True,
            isolation_level="read_uncommitted",
            auto_offset_reset="earliest",
            # Other questions wait behind a fetch that waits for more.
            fetch_wait_max_ms=_FETCH_WAIT_MS,
            # After an election they are refused while the old leader is remembered.
            metadata_max_age_ms=_METADATA_AGE_MS,
        )
    )


def _raise_unless_passing(error: KafkaError, doing: str) -> None:
    passing = (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
    )
    if error.retriable() or error.code() in passing:
        return
    with broker_errors(doing):
        raise KafkaException(error)
