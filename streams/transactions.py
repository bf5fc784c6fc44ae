"""One transactional producer under one name: whoever opens it last has it, all others are fenced.

Hides the protocol: records of one `write` are seen by ``read_committed`` readers all or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

from confluent_kafka import KafkaError, KafkaException, Message

from bandstand.clients import Producer
from bandstand.durations import milliseconds
from bandstand.errors import BrokerError
from bandstand.kafka import broker_errors, is_passing, producer_config
from bandstand.settings import Settings
from bandstand.streams.topic_plans import TABLE_RECORD_BYTES

__all__ = ["FencedError", "Transactions", "open_all"]

_TIMEOUT_S = 10.0
_TIMEOUT_MS = milliseconds(timedelta(seconds=_TIMEOUT_S))
_THREADS = 8
_FENCED = (
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
)


class FencedError(BrokerError):
    """Somebody else has taken over: what wasn't committed here never will be."""


class Transactions:
    """A producer that others can fence off.

    Parameters
    ----------
    settings
        Where the broker is.
    name
        Its transactional id.
    topic
        The topic that it writes to.
    """

    def __init__(self, settings: Settings, name: str, topic: str) -> None:
        self._name = name
        self._topic = topic
        self._failed: KafkaError | None = None
        self._producer = Producer(
            producer_config(
                settings,
                transactional_id=name,
                transaction_timeout_ms=_TIMEOUT_MS,
                linger_ms=0,
                message_max_bytes=TABLE_RECORD_BYTES,
                queue_buffering_max_kbytes=1_000_000,
                queue_buffering_max_messages=0,  # unlimited: a transaction is written as a whole
            )
        )

    def open(self) -> None:
        """Fence off whoever has this name, and end what they had begun.

        Raises
        ------
        BrokerError
            If Kafka refuses or can't be reached.
        """
        with self._errors("opening"):
            self._producer.init_transactions(_TIMEOUT_S)

    def write(self, records: Iterable[tuple[int, bytes, bytes | None]]) -> dict[bytes, int]:
        """Write records, given as partition, key and value, in one transaction.

        Returns
        -------
        dict
            Key and offset of each record.

        Raises
        ------
        FencedError
            If somebody else has opened the name; nothing was written.
        BrokerError
            If it isn't known to be committed; use this object no more.
        """
        offsets: dict[bytes, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            self._failed = self._failed or error
            if error is None:
                offsets[message.key() or b""] = message.offset() or 0

        with self._errors("writing in"):
            self._producer.begin_transaction()
            for partition, key, value in records:
                self._producer.produce(
                    self._topic, value, key, partition=partition, on_delivery=delivered
                )
            self._commit()
        return offsets

    def close(self) -> None:
        """Drop what is under way, without waiting for it; also after an error."""
        self._producer.purge()

    def _commit(self) -> None:
        for attempt in range(3):
            try:
                self._producer.commit_transaction(_TIMEOUT_S)
            except KafkaException as error:
                if attempt == 2 or not error.args[0].retriable():
                    raise
            else:
                return

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        doing = f"{doing} transaction {self._name!r}"
        try:
            yield
        except KafkaException as error:
            reason = self._reason(error.args[0])
            if reason.code() in _FENCED:
                raise FencedError(
                    f"{doing}: {reason.str()}; somebody else has taken this partition over",
                    passing=True,
                ) from error
            if self._failed is not None:  # the error only says that some weren't delivered
                raise BrokerError(
                    f"{doing}: a record was refused: {self._failed.str()}",
                    passing=is_passing(self._failed),
                ) from error
            if reason.code() == KafkaError.UNKNOWN:
                # So a broker fails while it is about to fence this producer off.
                raise BrokerError(f"{doing}: {reason.str()}", passing=True) from error
            with broker_errors(doing):
                raise KafkaException(reason) from error

    def _reason(self, error: KafkaError) -> KafkaError:
        """Ask for the fatal error of which `produce` only says that there was one."""
        if error.code() == KafkaError._FATAL:
            try:
                self._producer.abort_transaction(_TIMEOUT_S)
            except KafkaException as fatal:
                reason: KafkaError = fatal.args[0]
                return reason
        return error


def open_all(producers: Iterable[Transactions]) -> None:
    """Open several names at once.

    Raises
    ------
    BrokerError
        If Kafka refuses or can't be reached.
    """
    with ThreadPoolExecutor(_THREADS, "open") as pool:
        list(pool.map(Transactions.open, producers))
