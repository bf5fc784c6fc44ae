"""Batches instead of messages: the Faust transport on which the join runs.

One Faust message is a batch of one partition, and batches go in step: the next fetch begins when
the agents have taken all of the one before. Before each fetch the position of every log is compared
with the offset that its reader expects, and set to it where they differ; so neither a rebalance,
nor a fetch that was thrown away, nor Faust's own seeks can make a reader skip anything.
Faust's acks, gaps, seeks and lists of paused partitions are not used at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from bandstand.errors import LogGapError
from bandstand.logs import get_logger
from bandstand.streams.join_types import Record, Records

__all__ = ["Batch", "BatchTransport", "Wanted"]

_log = get_logger(__name__)
_FETCH_WAIT_MS = 100
_FETCH_TIMEOUT_S = 0.25
_NOTHING_WANTED_S = 0.02

Wanted = Callable[[], Mapping[tuple[str, int], int]]
"""Gives the next offset of each (topic, partition) that should be read on now."""


class Batch(NamedTuple):
    """Consecutive records of one partition.

    Parameters
    ----------
    records
        The records, at least one.
    taken
        To be set by the agent when it is done with the batch.
    """

    records: Records
    taken: asyncio.Event


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's thread around aiokafka, with a fetch that seeks first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._one_at_a_time: asyncio.Lock | None = None
        self._jumped: dict[tuple[str, int], int] = {}

    def _create_worker_consumer(self, transport: Any) -> Any:
        # Faust has 1500 in its code: a fetch of empty partitions holds up full ones so long.
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        return consumer

    async def fetch(self, wanted: Mapping[tuple[str, int], int]) -> dict[TP, list[Record]]:
        """Give the next records of the wanted logs; called from Faust's main thread."""
        future = asyncio.run_coroutine_threadsafe(self._fetch(wanted), self.thread_loop)
        return await asyncio.wrap_future(future)

    async def commit_quietly(self, offsets: Mapping[TP, int]) -> None:
        """Commit offsets for those who look at the group's lag; nothing else reads them."""
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        ours = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        if ours:
            commit = asyncio.run_coroutine_threadsafe(
                consumer.commit({TopicPartition(*tp): at for tp, at in ours.items()}),
                self.thread_loop,
            )
            await asyncio.wrap_future(commit)

    async def _fetch(self, wanted: Mapping[tuple[str, int], int]) -> dict[TP, list[Record]]:
        if self._one_at_a_time is None:
            self._one_at_a_time = asyncio.Lock()
        async with self._one_at_a_time:
            consumer = self._ensure_consumer()
            if consumer._closed or consumer._fetcher._closed:
                raise ConsumerStoppedError
            assigned = consumer.assignment()
            ours = {TopicPartition(*tp): at for tp, at in wanted.items() if tp in assigned}
            for tp, offset in ours.items():
                self._go_to(consumer, tp, offset)
            # The context tells aiokafka that its owner is alive; without it, it leaves the group.
            with consumer._subscription.fetch_context():
                if not ours:
                    await asyncio.sleep(_NOTHING_WANTED_S)
                    return {}
                fetched = await consumer._fetcher.fetched_records(ours, timeout=_FETCH_TIMEOUT_S)
        return {
            TP(*tp): [Record(r.offset, r.timestamp, r.key, r.value, r.headers) for r in records]
            for tp, records in fetched.items()
            if tp in ours and self._follows(tp, ours[tp], records[0].offset)
        }

    @staticmethod
    def _go_to(consumer: Any, tp: Any, offset: int) -> None:
        state = consumer._subscription.subscription.assignment.state_value(tp)
        if not state.has_valid_position or state.position != offset:
            _log.debug("goes to", topic=tp.topic, partition=tp.partition, offset=offset)
            consumer.seek(tp, offset)

    def _follows(self, tp: tuple[str, int], expected: int, got: int) -> bool:
        """Tell whether records may be passed on; a jump may be aiokafka's once, not twice."""
        if got == expected:
            self._jumped.pop(tp, None)
            return True
        if self._jumped.get(tp) != expected:
            self._jumped[tp] = expected
            return False
        why = (
            "it was deleted and made anew, or a broker lost its end; the outcomes that are there "
            "belong to the old log: open a new lane"
            if got < expected
            else "records were deleted before they were read, or written in a transaction"
        )
        raise LogGapError(
            f"topic {tp[0]!r}, partition {tp[1]}: asked for offset {expected}, got {got}: {why}"
        )


class _Consumer(driver.Consumer):
    """Faust's consumer, fetching batches in step with the agents."""

    transport: Any
    _thread: Any

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Leave positions alone: every fetch sets its own."""

    async def verify_all_partitions_active(self) -> None:
        """Raise no alarm: a partition that waits for another one isn't fetched, rightly."""

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Give one message a batch, then wait until the agents have taken them all."""
        del timeout
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        if self.should_stop:
            return
        batches = await self._fetch_or_die()
        for tp, batch in batches.items():
            if not self.flow_active:
                return
            self._read_offset[tp] = None  # else Faust drops what is read again
            yield tp, self._message(tp, batch)
        for batch in batches.values():
            if self.flow_active and not batch.taken.is_set():
                await self.wait_first(batch.taken.wait(), self.suspend_flow.wait())

    async def _fetch_or_die(self) -> dict[TP, Batch]:
        transport: BatchTransport = self.transport
        wanted = transport.wanted()
        try:
            fetched = await self._thread.fetch(wanted)
        except ConsumerStoppedError:
            raise
        except Exception as error:
            transport.die(error)
            raise
        return {
            tp: Batch(Records.of(records, wanted[tp]), asyncio.Event())
            for tp, records in fetched.items()
        }

    def _message(self, tp: TP, batch: Batch) -> ConsumerMessage:
        last = batch.records.row(-1)
        value: Any = batch
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1_000,
            timestamp_type=0,
            headers=None,
            key=None,
            value=value,
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with batches for messages.

    Parameters
    ----------
    urls
        The brokers.
    app
        The Faust app.
    wanted
        What to read next, and from where.
    die
        Called with an error after which nothing may go on.
    """

    Consumer = _Consumer

    def __init__(
        self, urls: Any, app: Any, *, wanted: Wanted, die: Callable[[BaseException], None]
    ) -> None:
        super().__init__(urls, app)
        self.wanted = wanted
        self.die = die
