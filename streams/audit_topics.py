"""The logs of a lane as the topics hold them, for whoever audits it.

Three consumers, one for each kind of log, read one partition after another from any offset; nothing
is committed. Ends are looked at in the order that makes a running lane's audit clean: the outcomes'
first, so that every outcome before that end has its decision, its ticks and its rewards before the
ends of theirs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from bandstand.errors import BrokerError, LogGapError
from bandstand.kafka import broker_errors, consumer_config, is_record, partition_count, poll_batch
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams.audit_partition import AuditLogs
from bandstand.streams.join_types import Records
from bandstand.streams.records import records_of
from bandstand.streams.tail import LogEnds

__all__ = ["TopicSource"]

_MOST_RECORDS = 5_000
_QUEUE_KBYTES = 16_384
"""What a consumer may read ahead; memory stays small, and a fetch is still a megabyte."""
_PATIENCE_S = 30.0
_POLL_S = 0.2
_ANSWER_S = 5.0


class TopicSource:
    """All partitions of all lanes, as the topics hold them; for one thread.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    """

    complete = True
    """An outcome is written after what it comes from: a decision that isn't there never was."""

    def __init__(self, settings: Settings) -> None:
        self._names = TopicNames(settings.topics.prefix)
        self._ends = LogEnds(settings)
        self._readers = [_Reader(settings) for _ in AuditLogs._fields]

    def partitions(self, lane: str) -> Sequence[int]:
        """Give the partitions of a lane.

        Raises
        ------
        TopicError
            If its topics aren't there.
        """
        topic = self._names.outcomes(lane)
        return range(partition_count(self._readers[0].consumer, topic))

    def logs(self, lane: str, partition: int) -> AuditLogs:
        """Look at the ends of a partition's logs as they are now.

        Raises
        ------
        BrokerError
            If the leaders don't answer.
        """
        decisions, rewards, outcomes = self._names.lane(lane)
        readers = dict(zip((decisions, rewards, outcomes), self._readers, strict=True))
        bounds = {
            topic: readers[topic].bounds(_Place(topic, partition))
            for topic in (outcomes, decisions, rewards)
        }
        return AuditLogs(
            *(
                _TopicLog(self._ends, reader, _Place(topic, partition), *bounds[topic])
                for reader, topic in zip(self._readers, (decisions, rewards, outcomes), strict=True)
            )
        )

    def close(self) -> None:
        """Disconnect."""
        self._ends.close()
        for reader in self._readers:
            reader.consumer.close()


class _Place(NamedTuple):
    topic: str
    partition: int


class _TopicLog:
    """One partition of a topic, between two offsets."""

    def __init__(self, ends: LogEnds, reader: _Reader, place: _Place, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self._ends = ends
        self._reader = reader
        self._place = place

    def at(self, timestamp: int) -> int:
        """Ask the timestamp index; no answer means: from the start."""
        found = self._ends.offset_at(*self._place, timestamp)
        return self.start if found is None else found

    def read(self, offset: int) -> Records:
        """Give some of the next records."""
        return self._reader.read(self._place, offset, self.end)


class _Reader:
    """A consumer that reads one partition at a time, from where it is told to."""

    def __init__(self, settings: Settings) -> None:
        self.consumer = Consumer(
            consumer_config(
                settings,
                "bandstand.audit",
                enable_partition_eof=True,
                queued_max_messages_kbytes=_QUEUE_KBYTES,
            )
        )
        self._place: _Place | None = None
        self._next = 0
        self._end_seen = -1

    def bounds(self, place: _Place) -> tuple[int, int]:
        """Give the first offset that is kept, and the end of what is committed: as the join reads.

        Raises
        ------
        BrokerError
            If no leader answers.
        """
        doing = f"looking for the end of {place.topic}/{place.partition}"
        with broker_errors(doing):
            try:
                low, high = self.consumer.get_watermark_offsets(
                    TopicPartition(*place), timeout=_ANSWER_S
                )
            except KafkaException as error:
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                    raise
                # So says the client of a broker that was killed a moment ago, too.
                raise BrokerError(f"{doing}: {error.args[0].str()}", passing=True) from error
        return int(low), int(high)

    def read(self, place: _Place, offset: int, end: int) -> Records:
        """Give some of the records from `offset` up to, not including, `end`.

        Raises
        ------
        LogGapError
            If the offset isn't there any more.
        BrokerError
            If the broker refuses, or gives nothing for long.
        """
        self._go_to(place, offset)
        deadline = time.monotonic() + _PATIENCE_S
        while offset < end and self._end_seen < end:
            messages = self._records(poll_batch(self.consumer, _POLL_S, _MOST_RECORDS), place)
            within = [message for message in messages if (message.offset() or 0) < end]
            if len(within) < len(messages):
                self._place = None  # the consumer is ahead: next time it must go back
                self._end_seen = end
            if within:
                self._next = (within[-1].offset() or 0) + 1
                return records_of(within, offset)
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"{place.topic}/{place.partition} gave nothing from offset {offset} on within "
                    f"{_PATIENCE_S:g} s, though it goes on to {end}; is its leader up?",
                    passing=True,
                )
        return Records.of((), offset)

    def _go_to(self, place: _Place, offset: int) -> None:
        if (self._place, self._next) == (place, offset):
            return
        self._place, self._next, self._end_seen = place, offset, -1
        with broker_errors(f"reading {place.topic}/{place.partition}"):
            self.consumer.assign([TopicPartition(*place, offset)])

    def _records(self, messages: Sequence[Message], place: _Place) -> list[Message]:
        records = []
        for message in messages:
            error = message.error()
            if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise LogGapError(
                    f"{place.topic}/{place.partition}: offset {self._next} isn't there any more "
                    f"({error.str()}): retention deleted it while it was to be audited; "
                    "audit again, which begins where the log begins now"
                )
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                self._end_seen = message.offset() or 0
            elif is_record(message, place.topic):
                records.append(message)
        return records
