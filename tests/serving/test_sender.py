from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from confluent_kafka import KafkaError, Message

from bandstand.schemas.topics import TopicNames
from bandstand.serving.sender import OnLost, Sender
from bandstand.settings import Settings
from tests.serving.given import NOWHERE, read_all, settings_for
from tests.waiting import PATIENCE_S, until

FATAL = KafkaError(KafkaError._FATAL, "the broker forgot this producer", fatal=True)


def sender(settings: Settings, on_lost: OnLost | None = None) -> Sender:
    """Give a sender whose records don't wait long."""
    return Sender(settings, "decisions", patience=timedelta(seconds=30), on_lost=on_lost)


def test_a_producer_that_failed_for_good_is_replaced(settings: Settings) -> None:
    """What comes after a fatal error is sent by a new producer."""
    topic = TopicNames(settings.topics.prefix).decisions("default")
    it = sender(settings)
    broken = it._producer
    it._failed(FATAL)
    until(lambda: it._producer is not broken)
    assert it.send(topic, b"after", b"x", int(time.time() * 1000))
    assert it.flush(PATIENCE_S) == 0
    it.close()
    assert it.lost == 0
    assert b"after" in [message.key() for message in read_all(settings, topic)]


def test_what_a_failed_producer_held_is_lost_and_handed_back() -> None:
    """Records that can't be told from delivered ones aren't sent twice: they are given up."""
    lost: list[bytes | None] = []
    it = sender(settings_for(NOWHERE), lambda message, _: lost.append(message.key()))
    assert it.send("t", b"before", b"x", 1_764_000_000_000)
    it._failed(FATAL)
    until(lambda: lost == [b"before"])
    it.close(timeout=0)


def raising(seen: list[bytes | None]) -> Callable[[Message, KafkaError], None]:
    """Give a callback that fails."""

    def on_lost(message: Message, error: KafkaError) -> None:
        seen.append(message.key())
        raise ValueError("a bug of the service's")

    return on_lost


def test_a_callback_that_raises_costs_no_other_record_its_report() -> None:
    """Every lost record is handed back, whatever the service does with it."""
    seen: list[bytes | None] = []
    it = sender(settings_for(NOWHERE), raising(seen))
    for key in (b"1", b"2", b"3"):
        assert it.send("t", key, b"x", 1_764_000_000_000)
    it.close(timeout=0)
    assert seen == [b"1", b"2", b"3"]
    assert it.lost == 3
