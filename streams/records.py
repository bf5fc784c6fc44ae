"""The client library's messages as the records that the cores take."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Message

from bandstand.streams.join_types import Record

__all__ = ["record_of"]


def record_of(message: Message) -> Record:
    """Give a message as a record."""
    headers: Any = message.headers() or ()
    key: Any = message.key()
    value: Any = message.value()
    return Record(message.offset() or 0, message.timestamp()[1], key, value, headers)
