"""The role ``publish``: sums in, versioned snapshots out.

A publisher owns the bandits of the ``learner-state`` partitions that its group assigns to it, and
reads those from their start. Each such partition has one transactional producer, which fences off
the owner before; only then is it read which snapshots are current. Artifact, pointer and deletions
are written in one transaction, and never a version that isn't newer than the current one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from operator import attrgetter

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from bandstand import clients
from bandstand.errors import BandstandError, BrokerError, SpecError, StateError
from bandstand.kafka import (
    TopicReader,
    broker_errors,
    consumer_config,
    is_record,
    partition_count,
    poll_batch,
)
from bandstand.learners.drift import acted
from bandstand.logs import get_logger
from bandstand.membership import leave, membership
from bandstand.partitioner import partition_for
from bandstand.role import Role, persist, running
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_drift import moment
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams import publish_metrics, topics
from bandstand.streams.dead_letters import origin_of
from bandstand.streams.in_force import Wanted
from bandstand.streams.publish_core import PublishCore, Published
from bandstand.streams.specs import SpecFollower, apply
from bandstand.streams.transactions import FencedError, Transactions, open_all

__all__ = ["Publisher", "lots", "run", "transactional_id"]

_log = get_logger(__name__)
_BATCH = 1_000
_READ_S = 120.0
_WRITERS = 8
_LOT_BYTES = 64_000_000
_MOST_BYTES = topics.TABLE_RECORD_BYTES - topics.FRAME_BYTES


def transactional_id(prefix: str, partition: int) -> str:
    """Name the producer of the snapshots of a ``learner-state`` partition's bandits.

    Examples
    --------
    >>> transactional_id("bandstand.", 3)
    'bandstand.3.publish'
    """
    return f"{prefix}{partition}.publish"


def run(settings: Settings) -> None:
    """Publish until told to stop.

    Raises
    ------
    TopicError
        If a topic is missing or set up wrongly.
    StateError
        If what was read can't be what was written.
    BrokerError
        If Kafka refuses for good.
    """
    with running("publish", settings) as role:
        persist(role, lambda: _publish(role))


def _publish(role: Role) -> None:
    topics.require(role.settings)
    try:
        Publisher(role).run()
    except FencedError:
        publish_metrics.FENCES.inc()
        raise


class Publisher:
    """A member of the group of publishers.

    Parameters
    ----------
    role
        The running role.
    """

    def __init__(self, role: Role) -> None:
        settings = role.settings
        self._role = role
        self._settings = settings
        self._names = TopicNames(settings.topics.prefix)
        self._core = PublishCore(
            wire_from(settings),
            settings.publish.keep_artifacts,
            {name: lane.partitions for name, lane in settings.lanes.items()},
            settings.publish.least_outcomes,
        )
        self._specs = SpecFollower(settings, role.name)
        self._consumer = clients.Consumer(
            consumer_config(
                settings,
                settings.publish.group,
                **membership(settings.publish.session_timeout),
                enable_partition_eof=True,
                auto_offset_reset="earliest",
            )
        )
        self._producers: dict[int, Transactions] = {}
        self._state_partitions = partition_count(self._consumer, self._names.learner_state)
        self._snapshot_partitions = partition_count(self._consumer, self._names.snapshots)
        self._partition = cache(lambda b: partition_for(b.encode(), self._state_partitions))
        self._reading: set[int] = set()
        self._owned: set[int] = set()
        self._shelves_known = False
        self._last_round = -settings.publish.interval.total_seconds()

    def run(self) -> None:
        """Publish until the role is told to stop; see `run` for errors."""
        self._role.health.wait_for("assignment")
        self._role.health.started()
        try:
            self._specs.catch_up()
            self._core.follow(self._specs.current, self._specs.current)
            self._consumer.subscribe(
                [self._names.learner_state],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._revoked,
            )
            while not self._role.stop.is_set():
                self._step()
        finally:
            for producer in self._producers.values():
                producer.close()
            leave(self._consumer)
            self._specs.close()

    def _step(self) -> None:
        changes = self._specs.poll()
        if changes:
            self._core.follow(self._specs.current, [change.bandit for change in changes])
            self._shelves_known = self._shelves_known and not self._core.misses_snapshots()
            self._report()
        self._read_state()
        if self._owned and not self._shelves_known:
            self._read_snapshots()
        due = self._due()
        now = time.monotonic()
        if due and now - self._last_round >= self._settings.publish.interval.total_seconds():
            self._last_round = now
            with publish_metrics.ROUNDS.time():
                self._publish(due)

    def _read_state(self) -> None:
        with broker_errors("reading learner-state"):
            messages = poll_batch(self._consumer, self._patience(), _BATCH)
        for message in messages:
            partition = message.partition() or 0
            if is_record(message, self._names.learner_state):
                if partition in self._owned | self._reading:
                    origin = origin_of(message)
                    self._core.take_state(partition, origin.key or b"", origin.value)
            elif partition in self._reading:
                # Its end: only now is it known what is newest there.
                self._reading.discard(partition)
                self._owned.add(partition)
                self._core.follow(self._specs.current, self._specs.current)
                self._report()

    def _patience(self) -> float:
        interval = self._settings.publish.interval.total_seconds()
        if not self._due():
            return min(interval, 0.1)
        return max(0.0, self._last_round + interval - time.monotonic())

    def _due(self) -> list[str]:
        if not self._shelves_known:
            return []
        return [bandit for bandit in self._core.changed if self._partition(bandit) in self._owned]

    def _report(self) -> None:
        owned = {b: self._partition(b) in self._owned for b in self._specs.current}
        publish_metrics.BANDITS.set(sum(owned.values()))
        publish_metrics.forget(bandit for bandit, mine in owned.items() if not mine)

    def _read_snapshots(self) -> None:
        """Learn which snapshots are current; who owned these bandits before writes no more."""
        self._core.forget_snapshots()
        reader = TopicReader(self._settings, self._names.snapshots)
        try:
            for message in reader.read_to_end(_READ_S, self._role.stop):
                origin = origin_of(message)
                self._core.take_snapshot(origin.key or b"", origin.value)
        finally:
            reader.close()
        self._shelves_known = not self._role.stop.is_set()
        if self._shelves_known:
            self._role.health.arrived("assignment")

    def _publish(self, bandits: Sequence[str]) -> None:
        for several in lots(filter(None, map(self._make, bandits)), _LOT_BYTES):
            self._put(several)

    def _put(self, several: Sequence[Published]) -> None:
        made: dict[int, list[Published]] = {}
        for published in several:
            made.setdefault(self._partition(published.bandit), []).append(published)
        with ThreadPoolExecutor(_WRITERS, "write") as pool:
            list(pool.map(self._write, made, made.values()))
        for published in several:
            for key, value in published.records:
                self._core.take_snapshot(key, value)
            publish_metrics.show(published.snapshot)
            _log.info("published", bandit=published.bandit, version=published.version)
        acts = [act for published in several if (act := _act(published)) is not None]
        if acts:
            self._apply(acts)

    def _make(self, bandit: str) -> Published | None:
        """Solve one bandit; one that can't be solved or is too wide stops no other."""
        try:
            with publish_metrics.SOLVES.time():
                made = self._core.publish(bandit, self._partition(bandit))
            if made is not None:
                _refuse_too_wide(made)
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001 - a learner of another package may break anywhere
            _fail("no snapshot", bandit, error)
            return None
        return made

    def _apply(self, acts: Sequence[Wanted]) -> None:
        """Apply specs; one that can't be applied, as its record is too large, stops no other."""
        try:
            apply(self._settings, self._specs, acts, "bandstand publish")
        except SpecError as error:
            if len(acts) == 1:
                _fail("no act on a change of rewards", acts[0].spec.bandit, error)
                return
            middle = len(acts) // 2
            self._apply(acts[:middle])
            self._apply(acts[middle:])

    def _write(self, partition: int, several: Sequence[Published]) -> None:
        self._producers[partition].write(
            (partition_for(made.bandit.encode(), self._snapshot_partitions), key, value)
            for made in several
            for key, value in made.records
        )

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._open([place.partition for place in places])
        for place in places:
            place.offset = OFFSET_BEGINNING
        consumer.incremental_assign(places)
        self._reading.update(place.partition for place in places)
        self._shelves_known = False
        if not places:
            self._role.health.arrived("assignment")
        _log.info("assigned", partitions=[place.partition for place in places])

    def _open(self, partitions: Sequence[int]) -> None:
        prefix = self._settings.topics.prefix
        producers = {
            p: Transactions(self._settings, transactional_id(prefix, p), self._names.snapshots)
            for p in partitions
        }
        self._producers.update(producers)
        open_all(producers.values())

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        del consumer
        for place in places:
            self._owned.discard(place.partition)
            self._reading.discard(place.partition)
            self._core.forget_state(place.partition)
            if (producer := self._producers.pop(place.partition, None)) is not None:
                producer.close()
        self._report()


def lots(several: Iterable[Published], most: int) -> Iterator[list[Published]]:
    """Give snapshots as they are made, in lots that end with the one that brings them to `most`.

    Parameters
    ----------
    several
        Any number of snapshots, however large together.
    most
        Bytes of a lot's records from which no snapshot joins it.
    """
    lot: list[Published] = []
    size = 0
    for one in several:
        lot.append(one)
        size += one.size
        if size >= most:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


def _fail(what: str, bandit: str, error: Exception) -> None:
    publish_metrics.FAILURES.labels(bandit).inc()
    _log.error(
        what,
        bandit=bandit,
        problem=str(error) or repr(error),
        exc_info=None if isinstance(error, BandstandError) else error,
    )


def _act(made: Published) -> Wanted | None:
    """Tell of changes of rewards, and give what the spec wants done about them."""
    for change in made.changes:
        publish_metrics.CHANGES.labels(made.bandit).inc()
        _log.warning("rewards have changed", bandit=made.bandit, **change._asdict())
    if not made.changes:
        return None
    change = max(made.changes, key=attrgetter("began"))
    spec = Spec.from_canonical(made.snapshot["spec"])
    wanted = acted(spec, change)
    if wanted.hash == spec.hash or spec.drift is None:
        return None
    reason = (
        f"drift: {spec.drift.act}, for {change.action!r} brings {change.after:.4g} of its"
        f" range since {moment(change.began).isoformat()}, {change.before:.4g} before"
    )
    return Wanted(wanted, reason, instead_of=made.snapshot["epoch"])


def _refuse_too_wide(made: Published) -> None:
    size = max(len(value) for _, value in made.records if value is not None)
    if size > _MOST_BYTES:
        earlier = len(made.snapshot["earlier"])
        raise StateError(
            f"the snapshot of {made.bandit!r} has {size} bytes; allowed: {_MOST_BYTES}; give the "
            "bandit fewer features or actions"
            + (f", or no smoothing (earlier solutions in it: {earlier})" if earlier else "")
        )
