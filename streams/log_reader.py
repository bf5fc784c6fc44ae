"""Reads many logs through one librdkafka consumer, so that none of them holds up another.

One thread does it all and never waits: each round says which logs are ours, where their readers
stand, and which of them should be read on. The client's queue is a mixed one; what isn't wanted yet
is kept aside, log by log, and a log that has more than its share there is paused. What is handed
over begins exactly at the offset that its reader expects: whatever else lies there is dropped, and
the log is sought.

An offset that isn't there any more is an error, never a reason to go on elsewhere. Offsets that
hold nothing for a reader (markers of transactions, records of aborted ones) are passed over by the
client, which vouches for it that nothing else is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from bandstand.clients import Consumer
from bandstand.errors import BandstandError, BrokerError, LogGapError
from bandstand.kafka import broker_errors, consumer_config, is_passing
from bandstand.logs import get_logger
from bandstand.settings import Settings
from bandstand.streams.join_types import Records

__all__ = ["Found", "LogReader"]

_log = get_logger(__name__)
_MOST_ROWS = 2_000
_FEW_ROWS = 1_000
_MOST_BYTES = 2_000_000
"""A batch is about this large at most, so that whoever takes it isn't busy for long."""
_KEPT_BYTES = 32_000_000
"""Of all logs together; what is handed over isn't counted any more."""
_LEAST_SHARE = 250_000
_ROW_BYTES = 200
"""What Python needs for a record besides its key and value."""
_CLIENT_KBYTES = 16_384
_RESPONSE_BYTES = 8_000_000
_PATIENCE_S = 30.0
_ANSWER_S = 2.0

_TIME = itemgetter(1)
"""Of what a message says of its timestamp: that, after its kind."""

Place = tuple[str, int]
Lost = Callable[[Place, BandstandError], None]


class Found(NamedTuple):
    """What a round has brought."""

    batches: list[tuple[Place, Records]]
    """At most one of each log."""
    few: bool
    """Whether to wait a little before the next round: small batches cost as much as large ones."""


@dataclass(slots=True)
class _Batch:
    """Consecutive records, to be handed over together; `end` is the offset after the last one."""

    start: int
    end: int
    size: int = 0
    offsets: list[Any] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: dict[int, Sequence[tuple[str, bytes]]] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return len(self.offsets) < _MOST_ROWS and self.size < _MOST_BYTES

    def add(self, messages: Sequence[Any]) -> int:
        """Take the next records, and give their size."""
        offsets = _offsets(messages)
        keys, values = list(map(Message.key, messages)), list(map(Message.value, messages))
        if None in values:
            for message in messages:
                if message.value() is None:
                    self.headers[message.offset()] = message.headers() or ()
        size = _nbytes(keys) + _nbytes(values) + _ROW_BYTES * len(offsets)
        self.size += size
        self.end = offsets[-1] + 1
        self.offsets += offsets
        self.timestamps += map(_TIME, map(Message.timestamp, messages))
        self.keys += keys
        self.values += values
        return size

    def records(self, expected: int) -> Records:
        """Give what lies at or behind an offset that the batch holds."""
        found = Records(
            self.start, self.offsets, self.timestamps, self.keys, self.values, self.headers
        )
        return found if expected == self.start else replace(found.since(expected), start=expected)


class _Log:
    """One log: what was read of it and not handed over, and where the client stands."""

    def __init__(self, place: Place, offset: int) -> None:
        self.place = place
        self.paused = False
        self.trouble: _Trouble | None = None
        self.go_to(offset)

    def go_to(self, offset: int) -> None:
        """Forget what was read."""
        self.end = offset
        self.size = 0
        self.batches: deque[_Batch] = deque()

    def at(self, offset: int) -> TopicPartition:
        return TopicPartition(*self.place, offset)

    def put(self, messages: Sequence[Any]) -> None:
        """Keep the next records; those that were read before are passed over."""
        if messages[0].offset() < self.end:
            messages = [message for message in messages if message.offset() >= self.end]
            if not messages:
                return
        if not self.batches or not self.batches[-1].has_room:
            self.batches.append(_Batch(self.end, self.end))
        self.size += self.batches[-1].add(messages)
        self.end = self.batches[-1].end
        self.trouble = None

    def holds(self, expected: int) -> bool:
        """Tell whether reading on here leads to what is expected, without a seek."""
        while self.batches and self.batches[0].end <= expected:
            self.size -= self.batches.popleft().size
        first = self.batches[0].start if self.batches else self.end
        return first <= expected <= self.end

    def take(self, expected: int) -> Records:
        """Give the first batch, from an offset on that it holds."""
        batch = self.batches.popleft()
        self.size -= batch.size
        return batch.records(expected)


class _Trouble(NamedTuple):
    """An error that may pass, or not; what comes after it ends it."""

    since: float
    why: str


class LogReader:
    """Reads logs in batches; for one thread.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    topics
        The topics that logs will be of.
    lost
        Called with a log that can't be read any more and why: it doesn't hold the offset that is
        expected, or it was forbidden for longer than a moment. It should be no longer
        ours at the next round.
    patience
        Seconds for which a log may be forbidden.

    Raises
    ------
    BrokerError
        If the settings aren't fit to reach a broker.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Iterable[str],
        lost: Lost,
        patience: float = _PATIENCE_S,
    ) -> None:
        configuration = consumer_config(
            settings,
            "bandstand.join.data",
            queued_max_messages_kbytes=_CLIENT_KBYTES,
            fetch_max_bytes=_RESPONSE_BYTES,
        )
        with broker_errors("making the consumer of the join"):
            self._consumer = Consumer(configuration)
            for topic in topics:
                # Else the client looks for its leaders when it likes, up to a second later.
                self._consumer.list_topics(topic, timeout=_ANSWER_S)
        self._lost = lost
        self._patience = patience
        self._logs: dict[Place, _Log] = {}
        self._mean_bytes = _MOST_BYTES // 100

    @property
    def kept_bytes(self) -> int:
        """Size of what was read and not handed over."""
        return sum(log.size for log in self._logs.values())

    def read(self, positions: Mapping[Place, int], wanted: Collection[Place]) -> Found:
        """Give the next records of logs that are wanted, at most one batch each; never waits.

        Parameters
        ----------
        positions
            Our logs, and the next offset of each.
        wanted
            Those of them that should be read on. One that isn't ours any more is passed over: a
            lane may be given up by another thread while both are being told.

        Raises
        ------
        BrokerError
            If the client can't go on at all.
        """
        wanted = [place for place in wanted if place in positions]
        self._own(positions)
        for place in wanted:
            if not self._logs[place].holds(positions[place]):
                self._seek(self._logs[place], positions[place])
        dry = any(not self._logs[place].batches for place in wanted) and not self._poll()
        batches = [
            (place, self._logs[place].take(positions[place]))
            for place in wanted
            if self._logs[place].batches
        ]
        self._keep_shares()
        rows = sum(len(records) for _, records in batches)
        return Found(batches, few=rows < _FEW_ROWS and (dry or not wanted))

    def _own(self, positions: Mapping[Place, int]) -> None:
        if positions.keys() == self._logs.keys():
            return
        gone = [self._logs.pop(place) for place in self._logs.keys() - positions.keys()]
        new = [_Log(place, positions[place]) for place in positions.keys() - self._logs.keys()]
        with broker_errors("assigning the logs of the join"):
            if gone:
                self._consumer.incremental_unassign([log.at(log.end) for log in gone])
            if new:
                self._consumer.incremental_assign([log.at(log.end) for log in new])
        self._logs.update({log.place: log for log in new})

    def _seek(self, log: _Log, offset: int) -> None:
        _log.debug("goes to", topic=log.place[0], partition=log.place[1], offset=offset)
        log.go_to(offset)
        # Unlike a seek this may be done at any time, and it ends a pause.
        with broker_errors(f"going to offset {log.end} of {log.place[0]}/{log.place[1]}"):
            self._consumer.incremental_unassign([log.at(log.end)])
            self._consumer.incremental_assign([log.at(log.end)])
        log.paused = False

    def _poll(self) -> bool:
        """Take what the client has; tell whether it may have more."""
        most = max(1, min(_MOST_ROWS, _MOST_BYTES // self._mean_bytes))
        with broker_errors("reading the logs of the join"):
            messages = self._consumer.consume(most, 0)
        errors, records = list[Message](), messages
        if any(map(Message.error, messages)):
            errors = [message for message in messages if message.error() is not None]
            records = [message for message in messages if message.error() is None]
        kept = self.kept_bytes
        for place, run in _runs(records) if records else ():
            if place in self._logs:
                self._logs[place].put(run)
        if records:
            self._mean_bytes = max(1, (self.kept_bytes - kept) // len(records))
        for message in errors:
            self._mind(message)
        self._lose_patience()
        return len(messages) == most

    def _keep_shares(self) -> None:
        """Pause logs that have too much, and go on with those that don't any more.

        A pause throws away what the client has fetched ahead; so it lasts until half is used up.
        One log is never paused: without a fetch under way each new one begins a second late.
        """
        share = max(_KEPT_BYTES // max(len(self._logs), 1), _LEAST_SHARE)
        running = [log for log in self._logs.values() if not log.paused]
        full = [log for log in running if log.size > share]
        if full and len(full) == len(running):
            full.remove(min(full, key=lambda log: log.size))
        low = [log for log in self._logs.values() if log.paused and log.size <= share // 2]
        with broker_errors("pausing logs of the join"):
            if full:
                self._consumer.pause([log.at(log.end) for log in full])
            if low:
                self._consumer.resume([log.at(log.end) for log in low])
        for log in chain(full, low):
            log.paused = not log.paused

    def _mind(self, message: Any) -> None:
        """Take an error for what it is: the end, something that passes, or one of these."""
        error = message.error()
        log = self._logs.get((message.topic(), message.partition()))
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            if log is not None:
                self._lost(log.place, self._gap(log, error))
        elif error.fatal():
            with broker_errors("reading the logs of the join"):
                raise KafkaException(error)
        elif log is None or is_passing(error):
            _log.warning("reading is held up", topic=message.topic(), why=error.str())
        elif log.trouble is None:
            log.trouble = _Trouble(time.monotonic(), error.str())
            _log.warning("a log can't be read", topic=log.place[0], why=error.str())

    def _lose_patience(self) -> None:
        now = time.monotonic()
        for log in self._logs.values():
            if log.trouble is None or log.paused or log.batches:
                continue
            if now - log.trouble.since >= self._patience:
                why = BrokerError(
                    f"topic {log.place[0]!r}, partition {log.place[1]} can't be read for "
                    f"{self._patience:g} s: {log.trouble.why}; see to it that the join has the "
                    "right to read it, and start again"
                )
                self._lost(log.place, why)

    def _gap(self, log: _Log, error: KafkaError) -> BandstandError:
        topic, partition = log.place
        where = f"topic {topic!r}, partition {partition}"
        try:
            bounds = self._consumer.get_watermark_offsets(log.at(log.end), timeout=_ANSWER_S)
        except KafkaException:
            bounds = None
        if bounds is not None and bounds[0] > log.end:
            return LogGapError(
                f"{where}: the records from offset {log.end} to {bounds[0] - 1} were deleted "
                "before they were read; nothing is skipped silently: raise the topic's retention, "
                "or see who deleted them, and start again"
            )
        held = "" if bounds is None else f", the log holds {bounds[0]} to {bounds[1] - 1}"
        return LogGapError(
            f"{where}: asked for offset {log.end}{held}: {error.str()}; it was deleted and made "
            "anew, or a broker lost its end; the outcomes that are there belong to the old log: "
            "open a new lane"
        )


def _runs(messages: Sequence[Any]) -> Iterable[tuple[Place, Sequence[Any]]]:
    """Cut messages, one at least, where another log begins."""
    topics: list[Any] = list(map(Message.topic, messages))
    partitions: list[Any] = list(map(Message.partition, messages))
    if topics.count(topics[0]) == len(topics) and len(set(partitions)) == 1:
        yield (topics[0], partitions[0]), messages
        return
    rest = iter(messages)
    for place, run in groupby(zip(topics, partitions, strict=True)):
        yield place, list(islice(rest, len(list(run))))


def _offsets(messages: Sequence[Any]) -> Sequence[Any]:
    """Give the offsets of messages of one log; hardly ever does one leave out any."""
    first, behind = messages[0].offset(), messages[-1].offset() + 1
    if behind - first == len(messages):
        return range(first, behind)
    return list(map(Message.offset, messages))


def _nbytes(parts: Sequence[bytes | None]) -> int:
    try:
        return sum(map(len, parts))  # type: ignore[arg-type]
    except TypeError:  # some are None, as those of ticks
        return sum(map(len, filter(None, parts)))
