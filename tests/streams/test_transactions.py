"""What a transaction that failed says: whether waiting mends it, and who is to blame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException

from bandstand.errors import BrokerError
from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.transactions import FencedError, Transactions
from tests.streams.given import everything_in, given_settings


class _Client:
    """Fails at the commit as the client library does: why a record failed, only its report says."""

    def __init__(self, refused: int | None, error: KafkaError) -> None:
        self._refused = refused
        self._error = error

    def begin_transaction(self) -> None:
        pass

    def produce(self, *record: object, on_delivery: Callable[..., None], **place: object) -> None:
        del record, place
        if self._refused is not None:
            on_delivery(KafkaError(self._refused), None)

    def commit_transaction(self, timeout: float) -> None:
        del timeout
        raise KafkaException(self._error)


@pytest.mark.parametrize(
    ("refused", "passing"),
    [(KafkaError._MSG_TIMED_OUT, True), (KafkaError.TOPIC_AUTHORIZATION_FAILED, False)],
)
def test_a_broker_that_was_away_is_waited_for_and_a_refusal_is_not(
    refused: int, passing: bool
) -> None:
    """The error of the commit is the same for both."""
    writer = Transactions(Settings(), "name", "topic")
    failed = KafkaError(KafkaError._INCONSISTENT, "1 message(s) failed delivery")
    writer._producer = _Client(refused, failed)  # type: ignore[assignment]
    with pytest.raises(BrokerError, match="a record was refused") as caught:
        writer.write([(0, b"key", b"value")])
    assert caught.value.passing is passing


def test_who_was_fenced_is_told_so() -> None:
    """Also where records failed on the way."""
    writer = Transactions(Settings(), "name", "topic")
    fenced = KafkaError(KafkaError._FENCED)
    writer._producer = _Client(KafkaError._PURGE_QUEUE, fenced)  # type: ignore[assignment]
    with pytest.raises(FencedError, match="taken this partition over"):
        writer.write([(0, b"key", b"value")])


@pytest.mark.parametrize(
    ("code", "passing"),
    [(KafkaError.UNKNOWN, True), (KafkaError.CLUSTER_AUTHORIZATION_FAILED, False)],
)
def test_a_broker_that_fails_at_the_commit_is_tried_again(code: int, passing: bool) -> None:
    """It does so when another is just about to take over; a refusal stays one."""
    writer = Transactions(Settings(), "name", "topic")
    writer._producer = _Client(None, KafkaError(code, "EndTxn commit failed"))  # type: ignore[assignment]
    with pytest.raises(BrokerError, match="EndTxn commit failed") as caught:
        writer.write([(0, b"key", b"value")])
    assert caught.value.passing is passing


def test_who_is_fenced_between_two_records_is_told_so(
    bandstand_kafka: Kafka, bandstand_prefix: str
) -> None:
    """The client library then only says that it had a fatal error; which one, it says if asked."""
    settings = given_settings(bandstand_kafka, bandstand_prefix)
    topics.create(settings)
    specs = TopicNames(settings.topics.prefix).specs
    first, second = (Transactions(settings, f"{bandstand_prefix}x", specs) for _ in range(2))
    first.open()

    def records() -> Iterator[tuple[int, bytes, bytes | None]]:
        yield 0, b"a", b"1"
        second.open()
        second.write([(0, b"b", b"2")])
        for _ in range(10_000):
            yield 0, b"a", b"3"
            time.sleep(0.005)

    with pytest.raises(FencedError, match="taken this partition over"):
        first.write(records())
    assert [message.key() for message in everything_in(settings, specs)] == [b"b"]
    first.close()
    second.close()
