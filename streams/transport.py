"""Batches instead of messages: the Faust transport on which the join runs.

Faust keeps the group: membership, assignment, rebalances, committed offsets. The records come from
a reader outside of it, in Faust's own event loop, and go through its streams: one message is a
batch of one partition, and the next ones are read when the agents have taken all of those before.
Faust's client fetches nothing, and its acks, gaps, seeks and lists of paused partitions are not
used: the reader begins each batch at the offset that is expected, whatever was thrown away in a
rebalance.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from bandstand.logs import get_logger
from bandstand.streams.join_types import Records
from bandstand.streams.log_reader import Found

__all__ = ["Batch", "BatchTransport", "Read"]

_log = get_logger(__name__)
_CONNECT_AGAIN_S = 0.5
_PAUSE_S = 0.02
_IDLE_PAUSE_S = 0.05

Read = Callable[[], Found]
"""Gives the next records of each log that should be read on now; never waits."""


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


async def _connect(
    start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
) -> None:
    while True:
        try:
            return await start()
        except KafkaConnectionError as error:
            _log.warning("the group can't be joined yet", why=str(error))
            await stop()
            await asyncio.sleep(_CONNECT_AGAIN_S)


class _Producer(driver.Producer):
    """Faust's producer, of which nothing is asked but that it is there."""

    async def on_start(self) -> None:
        """Connect, as the group's member does."""
        await _connect(super().on_start, lambda: self._ensure_producer().stop())


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's thread around aiokafka, for membership alone."""

    async def on_start(self) -> None:
        """Connect; wait for a broker that has gone away since it was last asked."""
        await _connect(super().on_start, lambda: self._ensure_consumer().stop())

    def stay(self) -> None:
        """Tell aiokafka that its owner is alive; without it, it leaves the group."""
        with self._ensure_consumer()._subscription.fetch_context():
            pass

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


class _RebalanceListener(driver.ConsumerRebalanceListener):
    """Faust's, around an assignment of which aiokafka fetches nothing."""

    _thread: Any

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Pause what is assigned before anything is fetched."""
        self._thread._ensure_consumer().pause(*assigned)
        await super().on_partitions_assigned(assigned)


class _Consumer(driver.Consumer):
    """Faust's consumer, reading batches in step with the agents."""

    RebalanceListener = _RebalanceListener
    transport: Any
    _thread: Any

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Leave positions alone: every batch begins where it is expected to."""

    async def verify_all_partitions_active(self) -> None:
        """Raise no alarm: nothing is fetched by this client, rightly."""

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Give one message a batch, then wait until the agents have taken them all."""
        del timeout
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        if self.should_stop:
            return
        self._thread.stay()
        found = self._read_or_die()
        batches = {TP(*place): Batch(rows, asyncio.Event()) for place, rows in found.batches}
        for tp, batch in batches.items():
            if not self.flow_active:
                return
            self._read_offset[tp] = None  # else Faust drops what is read again
            yield tp, self._message(tp, batch)
        for batch in batches.values():
            if self.flow_active and not batch.taken.is_set():
                await self.wait_first(batch.taken.wait(), self.suspend_flow.wait())
        if found.few:
            await asyncio.sleep(_PAUSE_S if batches else _IDLE_PAUSE_S)

    def _read_or_die(self) -> Found:
        transport: BatchTransport = self.transport
        try:
            return transport.read()
        except Exception as error:
            transport.die(error)
            raise

    def _message(self, tp: TP, batch: Batch) -> ConsumerMessage:
        records = batch.records
        value: Any = batch
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            records.offsets[-1],
            records.timestamps[-1] / 1_000,
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
    read
        Reads what comes next.
    die
        Called with an error after which nothing may go on.
    """

    Consumer = _Consumer
    Producer = _Producer

    def __init__(
        self, urls: Any, app: Any, *, read: Read, die: Callable[[BaseException], None]
    ) -> None:
        super().__init__(urls, app)
        self.read = read
        self.die = die
