"""Reading all that a topic holds now, in bounded memory, once: for commands, not for roles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from bandstand.errors import BrokerError
from bandstand.kafka import broker_errors, consumer_config, is_record, partition_count, poll_batch
from bandstand.settings import Settings
from bandstand.streams.tail import LogEnds

__all__ = ["OnProgress", "Step", "scan", "silent"]

_BATCH = 2_000
_QUEUE_KBYTES = 16_384
_QUEUE_MESSAGES = 20_000
_POLL_S = 0.2
_STALL_S = 30.0


class Step(NamedTuple):
    """How far a reading has come, in offsets."""

    task: str
    done: int
    total: int


OnProgress = Callable[[Step], None]


def silent(step: Step) -> None:
    """Tell nobody."""
    del step


def scan(
    settings: Settings,
    topic: str,
    *,
    starts: Mapping[int, int] | None = None,
    on_progress: OnProgress = silent,
) -> Iterator[list[Message]]:
    """Give every committed record that is in the topic at the call, in batches.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    topic
        The topic.
    starts
        The partitions to read and the offset to begin at in each; all, from their start, if None.
    on_progress
        Told after each batch.

    Raises
    ------
    TopicError
        If the topic isn't there.
    BrokerError
        If nothing comes for half a minute: the broker is away, or a transaction stays open.
    """
    config = consumer_config(
        settings,
        "bandstand.scan",
        enable_partition_eof=True,
        auto_offset_reset="earliest",
        queued_max_messages_kbytes=_QUEUE_KBYTES,
        queued_min_messages=_QUEUE_MESSAGES,
    )
    with broker_errors(f"reading topic {topic!r}"):
        consumer = Consumer(config)
    with closing(consumer):
        if starts is None:
            starts = dict.fromkeys(range(partition_count(consumer, topic)), 0)
        at, ends = _bounds(settings, topic, starts)
        places = [TopicPartition(topic, p, at[p]) for p in at if at[p] < ends[p]]
        total, left = sum(ends[p.partition] - p.offset for p in places), 0
        consumer.assign(places)
        moved = time.monotonic()
        while behind := sum(max(end - at[p], 0) for p, end in ends.items()):
            if behind != left:
                left, moved = behind, time.monotonic()
                on_progress(Step(topic, total - left, total))
            if time.monotonic() - moved > _STALL_S:
                raise BrokerError(
                    f"reading topic {topic!r} stands still {left} records before its end; is the "
                    "broker up, or a transaction open there? try again",
                    passing=True,
                )
            records = [m for m in poll_batch(consumer, _POLL_S, _BATCH) if _passes(m, at, ends)]
            if records:
                yield records
        on_progress(Step(topic, total, total))


def _bounds(
    settings: Settings, topic: str, starts: Mapping[int, int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Give where to begin in each partition, and where it ends now."""
    with closing(LogEnds(settings)) as looks:
        bounds = {partition: looks.bounds(topic, partition) for partition in starts}
    at = {p: max(starts[p], low) for p, (low, _) in bounds.items()}
    return at, {p: high for p, (_, high) in bounds.items()}


def _passes(message: Message, at: dict[int, int], ends: Mapping[int, int]) -> bool:
    """Note where a partition stands; tell whether this is a record from before its end."""
    partition, offset = message.partition() or 0, message.offset() or 0
    if is_record(message, message.topic() or ""):
        at[partition] = offset + 1
        return offset < ends[partition]
    error = message.error()
    if error is not None and error.code() == KafkaError._PARTITION_EOF:
        at[partition] = max(at[partition], offset)
    return False
