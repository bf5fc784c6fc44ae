"""The role ``publish``: sums in, versioned snapshots out.

A publisher owns the bandits of the ``learner-state`` partitions that its group assigns to it, and
reads those from their start. It publishes a bandit's artifact and then its pointer to one partition
of ``snapshots``, and never a version that isn't newer than the current one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import attrgetter

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)
from prometheus_client import Counter, Gauge, Histogram

from bandstand import clients
from bandstand.errors import BrokerError, StateError
from bandstand.kafka import (
    TopicReader,
    broker_errors,
    consumer_config,
    is_record,
    partition_count,
    poll_batch,
    producer_config,
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
from bandstand.streams import topics
from bandstand.streams.dead_letters import origin_of
from bandstand.streams.publish_core import PublishCore, Published
from bandstand.streams.specs import SpecFollower, apply_spec

__all__ = ["Publisher", "run"]

_log = get_logger(__name__)
_BATCH = 1_000
_READ_S = 120.0
_WRITE_S = 30.0
_MOST_BYTES = topics.TABLE_RECORD_BYTES - topics.FRAME_BYTES

_SNAPSHOTS = Counter("bandstand_publish_snapshots", "Snapshots published.", ["bandit"])
_FAILURES = Counter(
    "bandstand_publish_failures", "Snapshots that couldn't be made, see the log.", ["bandit"]
)
_OUTCOMES = Gauge("bandstand_publish_outcomes", "Outcomes in the newest snapshot.", ["bandit"])
_CHANGES = Counter(
    "bandstand_publish_changes", "Changes of an action's rewards that were found.", ["bandit"]
)
_SECONDS = Histogram(
    "bandstand_publish_seconds",
    "Time to solve and write a round of snapshots.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)


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
    Publisher(role).run()


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
        self._producer = clients.Producer(
            producer_config(
                settings,
                linger_ms=0,
                message_max_bytes=topics.TABLE_RECORD_BYTES,
                message_timeout_ms=0,
            )
        )
        self._state_partitions = partition_count(self._consumer, self._names.learner_state)
        self._snapshot_partitions = partition_count(self._consumer, self._names.snapshots)
        self._reading: set[int] = set()
        self._owned: set[int] = set()
        self._shelves_known = False
        self._failed: KafkaError | None = None
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
            leave(self._consumer)
            self._specs.close()

    def _step(self) -> None:
        changes = self._specs.poll()
        if changes:
            self._core.follow(self._specs.current, [change.bandit for change in changes])
        self._read_state()
        if self._owned and not self._shelves_known:
            self._read_snapshots()
        due = self._due()
        now = time.monotonic()
        if due and now - self._last_round >= self._settings.publish.interval.total_seconds():
            self._last_round = now
            with _SECONDS.time():
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

    def _patience(self) -> float:
        interval = self._settings.publish.interval.total_seconds()
        if not self._due():
            return min(interval, 0.1)
        return max(0.0, self._last_round + interval - time.monotonic())

    def _due(self) -> list[str]:
        if not self._shelves_known:
            return []
        return [bandit for bandit in self._core.changed if self._partition(bandit) in self._owned]

    def _partition(self, bandit: str) -> int:
        return partition_for(bandit.encode(), self._state_partitions)

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
        published = [made for bandit in bandits if (made := self._make(bandit)) is not None]
        # No pointer is sent before its artifact is there, and nothing is deleted before that.
        for made in published:
            self._write(made, made.records[:1])
        self._flush()
        for made in published:
            self._write(made, made.records[1:])
        self._flush()
        for made in published:
            for key, value in made.records:
                self._core.take_snapshot(key, value)
            _SNAPSHOTS.labels(made.bandit).inc()
            _OUTCOMES.labels(made.bandit).set(made.snapshot["outcomes"])
            _log.info("published", bandit=made.bandit, version=made.version)
        for made in published:
            self._act(made)

    def _act(self, made: Published) -> None:
        """Tell of changes of rewards, and do what the spec wants done about them."""
        for change in made.changes:
            _CHANGES.labels(made.bandit).inc()
            _log.warning("rewards have changed", bandit=made.bandit, **change._asdict())
        if not made.changes:
            return
        change = max(made.changes, key=attrgetter("began"))
        spec = Spec.from_canonical(made.snapshot["spec"])
        wanted = acted(spec, change)
        if wanted.hash != spec.hash and spec.drift is not None:
            reason = (
                f"drift: {spec.drift.act}, for {change.action!r} brings {change.after:.4g} of its"
                f" range since {moment(change.began).isoformat()}, {change.before:.4g} before"
            )
            epoch = made.snapshot["epoch"]
            apply_spec(self._settings, wanted, "bandstand publish", reason, instead_of=epoch)

    def _make(self, bandit: str) -> Published | None:
        """Solve one bandit; one that can't be solved or is too wide stops no other."""
        try:
            made = self._core.publish(bandit, self._partition(bandit))
            if made is not None:
                _refuse_too_wide(made)
        except StateError as error:
            _FAILURES.labels(bandit).inc()
            _log.error("no snapshot", bandit=bandit, problem=str(error))
            return None
        return made

    def _write(self, made: Published, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        partition = partition_for(made.bandit.encode(), self._snapshot_partitions)
        for key, value in records:
            with broker_errors(f"publishing {made.bandit!r}"):
                self._producer.produce(
                    self._names.snapshots, value, key, partition, on_delivery=self._delivered
                )

    def _flush(self) -> None:
        waiting = self._producer.flush(_WRITE_S)
        if self._failed is not None or waiting:
            why = self._failed.str() if self._failed else f"no answer within {_WRITE_S:g} s"
            raise BrokerError(
                f"publishing to {self._names.snapshots}: {why}", passing=self._failed is None
            )

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        del message
        self._failed = self._failed or error

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        for place in places:
            place.offset = OFFSET_BEGINNING
        consumer.incremental_assign(places)
        self._reading.update(place.partition for place in places)
        self._shelves_known = False
        if not places:
            self._role.health.arrived("assignment")
        _log.info("assigned", partitions=[place.partition for place in places])

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        del consumer
        for place in places:
            self._owned.discard(place.partition)
            self._reading.discard(place.partition)
            self._core.forget_state(place.partition)


def _refuse_too_wide(made: Published) -> None:
    size = max(len(value) for _, value in made.records if value is not None)
    if size > _MOST_BYTES:
        raise StateError(
            f"the snapshot of {made.bandit!r} has {size} bytes; allowed: {_MOST_BYTES}; give the "
            "bandit fewer features or actions"
        )
