"""The client library's messages as the records that the cores take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Message

from bandstand.streams.join_types import Record, Records

__all__ = ["record_of", "records_of"]


def record_of(message: Message) -> Record:
    """Give a message as a record."""
    headers: Any = message.headers() or ()
    key: Any = message.key()
    value: Any = message.value()
    return Record(message.offset() or 0, message.timestamp()[1], key, value, headers)


def records_of(messages: Sequence[Message], start: int) -> Records:
    """Give messages of one partition as columns.

    Parameters
    ----------
    messages
        All that the log holds from `start` to the last one of them, in order.
    start
        The offset that was asked for.
    """
    given: Sequence[Any] = messages
    offsets = [message.offset() for message in given]
    values = [message.value() for message in given]
    return Records(
        start,
        offsets,
        [message.timestamp()[1] for message in given],
        [message.key() for message in given],
        values,
        {offsets[at]: given[at].headers() or () for at, v in enumerate(values) if v is None},
    )
