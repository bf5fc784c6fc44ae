"""Publishing refused records again, each once, also when this is killed or run twice.

A lane's logs take no transaction for this: the join reads what was aborted, too. So each batch is
announced in ``dead-letters`` with the ends of the logs that it goes to, published with a header
that names each record's origin, and then marked there. Whoever finds an announcement without its
marks looks for those headers behind the ends, and marks what it finds. Announcements and marks are
written in transactions under one name, so that of two redrives the older one stops.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from bandstand.errors import BrokerError
from bandstand.kafka import producer_config
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams.letter_types import REDRIVEN, REDRIVING, Letter, parse_origin
from bandstand.streams.letters import LetterReader
from bandstand.streams.offset_set import OffsetSet
from bandstand.streams.scan import OnProgress, scan, silent
from bandstand.streams.tail import LogEnds
from bandstand.streams.transactions import Transactions

__all__ = ["ORIGIN_HEADER", "Marks", "OncePublisher", "read_marks"]

ORIGIN_HEADER: Final = "redriven-from"
_KEY: Final = b"redriving"
_BATCH = 1_000
_BATCH_BYTES = 16_000_000
_LARGEST_BYTES = 2_000_000
_PUBLISH_WITHIN_S = 5.0
"""Longest time that a record may be on its way; as long does a successor wait to look for it."""


class Marks(NamedTuple):
    """What earlier redrives have left in the dead letters.

    Parameters
    ----------
    done
        The records that were published again.
    under_way
        Where records of a batch that isn't marked may begin: offset by topic and partition.
    """

    done: OffsetSet
    under_way: dict[tuple[str, int], int]


class _Sent(NamedTuple):
    """A letter whose record was published, as its mark tells it."""

    origin: str
    reason: str
    bandit: str | None
    to: str


def read_marks(settings: Settings, on_progress: OnProgress = silent) -> Marks:
    """Read the marks of all redrives so far.

    Raises
    ------
    BrokerError
        If the dead letters can't be read.
    """
    done, under_way = OffsetSet(), {}
    for letters in LetterReader(settings, on_progress).read():
        for letter in letters:
            if letter.reason == REDRIVEN:
                done.add(*letter.place)
            elif letter.reason == REDRIVING:
                under_way = {_log(log): int(end) for log, end in letter.said.items()}
    return Marks(done, under_way)


class OncePublisher:
    """Publishes letters' records to their topics, and marks the letters.

    Opening it stops every other one. Records are published once even so, unless another process was
    frozen in the middle of a batch for longer than five seconds; then the join takes the second one
    for a duplicate.

    Parameters
    ----------
    settings
        Where the broker is, and the topics' prefix.
    on_progress
        Told how far a reading has come.

    Raises
    ------
    BrokerError
        If Kafka refuses or can't be reached.
    """

    def __init__(self, settings: Settings, on_progress: OnProgress = silent) -> None:
        self._settings = settings
        self._wire = wire_from(settings)
        topic = TopicNames(settings.topics.prefix).dead_letters
        self._marks = Transactions(settings, f"{topic}.redrive", topic)
        self._marks.open()
        opened = time.monotonic()
        self._producer = Producer(
            producer_config(
                settings,
                message_timeout_ms=int(_PUBLISH_WITHIN_S * 1_000),
                message_max_bytes=_LARGEST_BYTES,
            )
        )
        self._waiting: list[tuple[Letter, str | None]] = []
        self._waiting_bytes = 0
        marks = read_marks(settings, on_progress)
        self.done = marks.done
        """The records that were published again, now or before."""
        if marks.under_way:
            time.sleep(max(opened + _PUBLISH_WITHIN_S - time.monotonic(), 0))
            self._mark(self._found(marks.under_way, on_progress))

    def add(self, letter: Letter, bandit: str | None) -> None:
        """Take a letter whose record is to be published; publishes where a batch is full.

        Parameters
        ----------
        letter
            The letter, with the key, time and bytes that the record is to have.
        bandit
            Whose it is, for the mark.

        Raises
        ------
        FencedError
            If another one was opened since: it does what is left.
        BrokerError
            If a record isn't known to be published. Run it again: what was published is found.
        """
        self._waiting.append((letter, bandit))
        self._waiting_bytes += len(letter.value or b"")
        if len(self._waiting) >= _BATCH or self._waiting_bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Publish what was taken, and mark it; raises as `add` does."""
        batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not batch:
            return
        self._write([self._announcement(self._ends({letter.topic for letter, _ in batch}))])
        self._mark(self._publish(batch))

    def close(self) -> None:
        """Let go of the connections; what wasn't flushed isn't published."""
        self._producer.purge()
        self._marks.close()

    def _ends(self, topics: Iterable[str]) -> dict[str, int]:
        ends = {}
        with closing(LogEnds(self._settings)) as looks:
            for topic in topics:
                for partition in range(looks.partition_count(topic)):
                    ends[f"{topic}/{partition}"] = looks.bounds(topic, partition)[1]
        return ends

    def _publish(self, batch: list[tuple[Letter, str | None]]) -> list[_Sent]:
        sent: list[_Sent] = []
        failed: list[KafkaError] = []
        for letter, bandit in batch:
            said = {"origin": letter.origin, "reason": letter.reason, "bandit": bandit}

            def delivered(
                error: KafkaError | None, message: Message, said: dict[str, str | None] = said
            ) -> None:
                if error is None:
                    sent.append(_sent(said, message))
                else:
                    failed.append(error)

            self._producer.produce(
                letter.topic,
                letter.value,
                letter.key,
                timestamp=letter.ts,
                headers=[(ORIGIN_HEADER, json.dumps(said).encode())],
                on_delivery=delivered,
            )
        self._producer.flush()
        if failed:
            raise BrokerError(
                f"{len(failed)} of {len(batch)} records weren't published: {failed[0].str()}; run "
                "it again: it finds those that were, and publishes the others",
                passing=True,
            )
        return sent

    def _found(
        self, under_way: Mapping[tuple[str, int], int], on_progress: OnProgress
    ) -> Iterator[_Sent]:
        """Look for the records of a batch that was announced."""
        for topic in {topic for topic, _ in under_way}:
            starts = {p: offset for (name, p), offset in under_way.items() if name == topic}
            for messages in scan(self._settings, topic, starts=starts, on_progress=on_progress):
                for message in messages:
                    said = dict(message.headers() or ()).get(ORIGIN_HEADER)
                    if said is not None:
                        yield _sent(json.loads(said), message)

    def _mark(self, sent: Iterable[_Sent]) -> None:
        """Mark letters as redriven, and the batch as done."""
        marks = []
        for one in sent:
            place = parse_origin(one.origin)
            if self.done.add(*place):
                detail = json.dumps({"was": one.reason, "bandit": one.bandit, "to": one.to})
                marks.append(self._letter(one.origin.encode(), REDRIVEN, detail, *place))
        self._write([*marks, self._announcement({})])

    def _announcement(self, ends: Mapping[str, int]) -> tuple[bytes, bytes]:
        return self._letter(_KEY, REDRIVING, json.dumps(ends), "", 0, 0)

    def _letter(
        self, key: bytes, reason: str, detail: str, topic: str, partition: int, offset: int
    ) -> tuple[bytes, bytes]:
        letter = {
            "reason": reason,
            "detail": detail,
            "role": "redrive",
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "ts": int(time.time() * 1_000),
        }
        return key, self._wire.dumps("dead_letter", letter)

    def _write(self, letters: Iterable[tuple[bytes, bytes]]) -> None:
        self._marks.write((0, key, value) for key, value in letters)


def _sent(said: Mapping[str, str | None], message: Message) -> _Sent:
    to = f"{message.topic()}/{message.partition()}/{message.offset()}"
    return _Sent(**said, to=to)  # type: ignore[arg-type] # what was written there


def _log(text: str) -> tuple[str, int]:
    topic, _, partition = text.rpartition("/")
    return topic, int(partition)
