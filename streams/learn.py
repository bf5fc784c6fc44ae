"""The role ``learn``: outcomes in, statistics out, each outcome exactly once.

Whoever is assigned an outcome partition opens its transactional producer, which fences off the one
before, restores sums and position, and goes on at that offset. What one partition has taught and
how far it was read are written in one transaction, so they can't disagree.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

from bandstand import clients
from bandstand.errors import LogGapError
from bandstand.kafka import (
    broker_errors,
    consumer_config,
    is_record,
    partition_count,
    poll_batch,
)
from bandstand.learners.keepers import BEGIN_ANEW
from bandstand.logs import get_logger
from bandstand.membership import leave, membership
from bandstand.partitioner import partition_for
from bandstand.role import Role, persist, running
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire, wire_from
from bandstand.settings import Settings
from bandstand.streams import learn_metrics, topics
from bandstand.streams.dead_letters import DeadLetters, Origin
from bandstand.streams.join_types import Record
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import Position
from bandstand.streams.rebuild import Rebuild
from bandstand.streams.records import record_of
from bandstand.streams.restore import Restored, restore
from bandstand.streams.specs import SpecFollower
from bandstand.streams.transactions import FencedError, Transactions, open_all

__all__ = ["Learner", "run", "transactional_id"]

_log = get_logger(__name__)
_BATCH = 50_000
_LETTERS_S = 10.0


def transactional_id(prefix: str, lane: str, partition: int) -> str:
    """Name the producer of an outcome partition's state: there is one of each name.

    Examples
    --------
    >>> transactional_id("bandstand.", "default", 3)
    'bandstand.default.3.learn'
    """
    return f"{prefix}{lane}.{partition}.learn"


def run(settings: Settings) -> None:
    """Learn until told to stop.

    Raises
    ------
    TopicError
        If a topic is missing or set up wrongly.
    LogGapError
        If outcomes were deleted before they were learned.
    StateError
        If what was restored can't be what was written.
    BrokerError
        If Kafka refuses for good.
    """
    with running("learn", settings) as role:
        persist(role, lambda: _learn(role))


def _learn(role: Role) -> None:
    topics.require(role.settings)
    try:
        Learner(role).run()
    except FencedError:
        learn_metrics.FENCES.inc()
        raise


class Learner:
    """A member of the group of learners.

    Parameters
    ----------
    role
        The running role.
    """

    def __init__(self, role: Role) -> None:
        self._role = role
        self._settings = role.settings
        names = TopicNames(role.settings.topics.prefix)
        self._lanes = {names.outcomes(lane): lane for lane in role.settings.lanes}
        self._wire = wire_from(role.settings)
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._state_topic = names.learner_state
        self._letters = DeadLetters(role.settings, role.name, self._wire)
        self._specs = SpecFollower(role.settings, role.name)
        self._consumer = clients.Consumer(
            consumer_config(
                role.settings,
                role.settings.learn.group,
                **membership(role.settings.learn.session_timeout),
            )
        )
        self._state_partitions = partition_count(self._consumer, self._state_topic)

    def run(self) -> None:
        """Learn until the role is told to stop; see `run` for errors."""
        self._role.health.wait_for("assignment")
        self._role.health.started()
        try:
            self._specs.catch_up()
            self._consumer.subscribe(
                list(self._lanes),
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            while not self._role.stop.is_set():
                self._step()
            for partition in self._partitions.values():
                self._commit(partition)
        except BaseException:
            _log.error("stops without a commit: all goes on from the last one")
            raise
        finally:
            self._drop(list(self._partitions))
            leave(self._consumer)
            self._specs.close()
            self._letters.close()

    def _step(self) -> None:
        if self._specs.poll():
            self._follow()
        for (topic, number), records in self._read().items():
            self._learn(self._partitions[topic, number], topic, records)
        now = time.monotonic()
        for partition in self._partitions.values():
            partition.rebuild()
            if partition.is_due(now):
                self._commit(partition)

    def _read(self) -> dict[tuple[str, int], list[Record]]:
        batches: dict[tuple[str, int], list[Record]] = {}
        with broker_errors("reading outcomes"):
            messages = poll_batch(self._consumer, self._patience(), _BATCH)
        for message in messages:
            if is_record(message, "outcomes"):
                place = (message.topic() or "", message.partition() or 0)
                batches.setdefault(place, []).append(record_of(message))
        return {place: records for place, records in batches.items() if place in self._partitions}

    def _patience(self) -> float:
        """Give how long to wait for outcomes: until the next thing to do."""
        interval = self._settings.learn.state_interval.total_seconds()
        now = time.monotonic()
        waits = [p.patience(now) for p in self._partitions.values()]
        return max(0.0, min([interval, 0.1, *waits]))

    def _learn(self, partition: _Partition, topic: str, records: Sequence[Record]) -> None:
        core = partition.core
        learned = core.learn(records)
        for record, error in learned.refused:
            origin = Origin(topic, core.partition, record.offset, *record[1:4])
            self._letters.send(origin, error.reason, error.detail)
            partition.has_letters = True
        learn_metrics.count(core.lane, learned)

    def _commit(self, partition: _Partition) -> None:
        if not partition.core.unwritten:
            return
        if partition.has_letters:
            self._letters.flush(_LETTERS_S)
            partition.has_letters = False
        partition.commit(self._state_partitions)
        core = partition.core
        place = TopicPartition(self._topic(core.lane), core.partition, core.position.next_offset)
        # For lag tools only: nothing reads it back.
        with broker_errors("committing an offset"):
            self._consumer.commit(offsets=[place], asynchronous=True)

    def _topic(self, lane: str) -> str:
        return TopicNames(self._settings.topics.prefix).outcomes(lane)

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if places:
            self._take_over(consumer, places)
        else:
            consumer.incremental_assign([])
        self._role.health.arrived("assignment")

    def _take_over(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        keys = [(self._lanes[place.topic], place.partition) for place in places]
        producers = self._open(keys)
        restored = restore(self._settings, self._wire, keys, self._specs, self._role.stop)
        if restored is None:
            consumer.incremental_assign([])
            return
        for place, key in zip(places, keys, strict=True):
            # Translated here: out of a callback the client library's errors come as no exceptions.
            with broker_errors(f"looking up the ends of {place.topic}/{place.partition}"):
                first, end = consumer.get_watermark_offsets(place, timeout=_LETTERS_S)
            core = _core(*key, self._wire, restored[key], first, end)
            partition = _Partition(
                self._settings, self._wire, core, producers[key], place.topic, first
            )
            self._partitions[place.topic, place.partition] = partition
            place.offset = core.position.next_offset
        consumer.incremental_assign(places)
        self._follow()  # the others too: restoring has read the specs up to their end
        _log.info("assigned", partitions=[f"{p.topic}/{p.partition}@{p.offset}" for p in places])

    def _open(self, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Transactions]:
        prefix = self._settings.topics.prefix
        producers = {
            key: Transactions(self._settings, transactional_id(prefix, *key), self._state_topic)
            for key in keys
        }
        open_all(producers.values())
        return producers

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        del consumer
        mine = [
            (p.topic, p.partition) for p in places if (p.topic, p.partition) in self._partitions
        ]
        for place in mine:
            self._commit(self._partitions[place])
        self._drop(mine)

    def _lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        del consumer
        _log.warning("partitions lost", partitions=[f"{p.topic}/{p.partition}" for p in places])
        self._drop([(place.topic, place.partition) for place in places])

    def _drop(self, places: Sequence[tuple[str, int]]) -> None:
        for place in places:
            partition = self._partitions.pop(place, None)
            if partition is not None:
                partition.close()
                learn_metrics.forget(partition.core)
        self._report()

    def _follow(self) -> None:
        for partition in self._partitions.values():
            partition.follow(self._specs)
        self._report()

    def _report(self) -> None:
        bandits = Counter(in_force.spec.lane for in_force in self._specs.current.values())
        for lane in self._lanes.values():
            learn_metrics.BANDITS.labels(lane).set(bandits[lane])
            learn_metrics.PARTITIONS.labels(lane).set(
                sum(partition.core.lane == lane for partition in self._partitions.values())
            )


class _Partition:
    """One assigned outcome partition: its core, its producer, and a rebuild where one is needed."""

    def __init__(
        self,
        settings: Settings,
        wire: Wire,
        core: LearnCore,
        producer: Transactions,
        topic: str,
        first: int,
    ) -> None:
        self.core = core
        self._wire = wire
        self.has_letters = False
        self._settings = settings
        self._producer = producer
        self._topic = topic
        self._first = first
        self._rebuild: Rebuild | None = None
        self._full: frozenset[str] = frozenset()
        self._interval = settings.learn.state_interval.total_seconds()
        self._committed_at = -self._interval

    def follow(self, specs: SpecFollower) -> None:
        self.core.follow(specs.current)
        if self.core.position.next_offset <= self._first:
            self.core.open()

    def rebuild(self) -> None:
        """Take a step towards sums for bandits that had none when their first outcomes came."""
        if self._rebuild is None:
            if not self.core.missing:
                return
            _log.info(
                "learns what came before", bandits=sorted(self.core.missing), topic=self._topic
            )
            self._rebuild = Rebuild(self._settings, self._wire, self._topic, self.core)
            learn_metrics.REBUILDS.inc(len(self.core.missing))
        if self._rebuild.step(self.core):
            self._rebuild.close()
            self._rebuild = None

    def is_due(self, now: float) -> bool:
        return self.core.unwritten and now - self._committed_at >= self._interval

    def patience(self, now: float) -> float:
        if self._rebuild is not None:
            return 0.0
        return self._committed_at + self._interval - now if self.core.unwritten else self._interval

    def commit(self, state_partitions: int) -> None:
        writes = [
            (partition_for(write.owner, state_partitions), write.key, write.value)
            for write in self.core.writes()
        ]
        with learn_metrics.TRANSACTIONS.time():
            self._producer.write(writes)
        self.core.written()
        self._committed_at = time.monotonic()
        full = self.core.full
        learn_metrics.show(self.core, len(full))
        for bandit in sorted(full - self._full):
            _log.error(
                "bandit is full and learns no more",
                bandit=bandit,
                partition=f"{self._topic}/{self.core.partition}",
                problem=f"another outcome would take a total too far; {BEGIN_ANEW}",
            )
        self._full = full

    def close(self) -> None:
        self._producer.close()
        if self._rebuild is not None:
            self._rebuild.close()


def _core(
    lane: str, partition: int, wire: Wire, restored: Restored, first: int, end: int
) -> LearnCore:
    position = restored.position or Position(first)
    if not first <= position.next_offset <= end:
        raise LogGapError(
            f"outcomes of lane {lane!r}, partition {partition}, were learned up to offset "
            f"{position.next_offset}, but the topic holds {first} to {end}: outcomes were deleted "
            "before they were learned, or the topic was made anew; restore the topic from the "
            "archive, or begin anew under another topics.prefix"
        )
    return LearnCore(lane, partition, wire, position, restored.held, restored.stale)
