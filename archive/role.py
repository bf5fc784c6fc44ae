"""The role ``bandstand archive``: what the topics hold, to Parquet on S3, each record once.

One loop reads, fills a `Buffer` a partition, and stores what has become a file. The group's offset
is the only state, and is committed twice a file: before the upload, where the file begins, with the
name that it gets; after it, where the next one begins. A name that was given stays, also where
compaction or retention has removed the record that it came from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import closing

from bandstand.archive import metrics
from bandstand.archive.objects import Buffer, Cut, object_name
from bandstand.archive.source import Mark, Place, Source
from bandstand.archive.store import Store
from bandstand.archive.uploads import Upload, Uploads
from bandstand.archive.writer import File, build
from bandstand.logs import get_logger
from bandstand.role import Role, persist, running
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire, wire_from
from bandstand.settings import ArchiveSettings, Settings
from bandstand.streams.join_types import Record

__all__ = ["archived_topics", "run"]

_log = get_logger(__name__)
_READ_S = 0.1
_UPLOAD_THREADS = 4
_PATIENCE_S = 1.0
"""How long uploads may take before reading is held and polling goes on."""
_FINISH_S = 2.5
"""How long the last files may take when the role ends."""
_STORE_CHECK_S = 0.5
_LAG_S = 1.0


def run(settings: Settings) -> None:
    """Archive until SIGTERM.

    Raises
    ------
    TopicError
        If a topic is missing.
    StorageError
        If the bucket is missing or refuses; a store that is down is waited for.
    StateError
        If the store holds other records than the log under the name of a file.
    LogGapError
        If records are gone from a log before they were archived.
    BrokerError
        If Kafka refuses for good.
    """
    topics, wire = archived_topics(settings), wire_from(settings)
    with running("archive", settings) as role:
        store = Store(settings)
        if not _store_is_there(store, role):
            return
        uploads = Uploads(
            lambda upload: _file(upload, topics, wire), store, role.health, _UPLOAD_THREADS
        )
        archive = _Archive(role, settings.archive, uploads)
        sources: list[Source] = []

        def begin() -> None:
            sources.append(Source(settings, topics, archive.assigned, archive.revoked, role.stop))

        persist(role, begin)
        for source in sources:
            with closing(source):
                archive.run(source)


def archived_topics(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Give the topics that are archived, each with the schemas that its values may have.

    Examples
    --------
    >>> list(archived_topics(Settings()))[0]
    'bandstand.default.decisions'
    """
    names = TopicNames(settings.topics.prefix)
    topics: dict[str, tuple[str, ...]] = {}
    for lane in settings.lanes:
        for topic, schema in zip(names.lane(lane), ("decision", "reward", "outcome"), strict=True):
            topics[topic] = (schema,)
    topics[names.snapshots] = ("snapshot", "snapshot_pointer")
    return topics


def _store_is_there(store: Store, role: Role) -> bool:
    """Wait for the store; False: the role is to stop before it has come."""
    role.health.wait_for("storage")
    while not store.check():
        _log.warning("storage is down, archive waits")
        if role.stop.wait(_STORE_CHECK_S):
            return False
    role.health.arrived("storage")
    return True


def _file(upload: Upload, topics: Mapping[str, tuple[str, ...]], wire: Wire) -> File:
    names = topics[upload.topic]
    return build(names, upload.topic, upload.partition, upload.cut, upload.name, wire)


class _Archive:
    """The loop and what it holds."""

    def __init__(self, role: Role, limits: ArchiveSettings, uploads: Uploads) -> None:
        self._role = role
        self._limits = limits
        self._uploads = uploads
        self._buffers: dict[Place, Buffer] = {}
        self._names: dict[Place, str] = {}
        self._under_way: dict[Place, Upload] = {}
        self._stored: dict[Place, Mark] = {}
        """Stored, but not committed yet."""
        self._lag_due = 0.0
        self._deadline: float | None = None

    def run(self, source: Source) -> None:
        """Archive until the role is to stop, then store what is there."""
        stop = self._role.stop
        self._role.health.wait_for("partitions")
        self._role.health.started()
        while not stop.is_set():
            source.release()
            self._take(source.read(_READ_S))
            while not stop.is_set() and (cuts := self._due()):
                if not self._write(source, cuts):
                    break
            self._commit(source)
            self._watch(source)
        self._finish(source)

    def assigned(self, marks: Mapping[Place, Mark]) -> None:
        """Begin with partitions where the group's memory says."""
        rows, size = self._limits.max_rows, self._limits.max_bytes
        for place, mark in marks.items():
            self._buffers[place] = Buffer(mark.offset, max_rows=rows, max_bytes=size)
            self._names[place] = mark.name
        self._role.health.arrived("partitions")

    def revoked(self, places: list[Place]) -> None:
        """Drop partitions: the next owner reads again what isn't committed."""
        for place in places:
            self._buffers.pop(place, None)
            self._stored.pop(place, None)
            if upload := self._under_way.pop(place, None):
                upload.cancelled.set()
            metrics.LAG.remove(*place)

    def _take(self, read: Mapping[Place, list[Record]]) -> None:
        now = time.monotonic()
        for place, records in read.items():
            buffer = self._buffers[place]
            missing = buffer.missing
            buffer.add(records, now)
            metrics.MISSING.labels(place[0]).inc(buffer.missing - missing)

    def _due(self) -> dict[Place, Cut]:
        """Give the files that are full or old enough; the largest one too if memory is short."""
        oldest = time.monotonic() - self._limits.max_age.total_seconds()
        due: dict[Place, Cut | None] = {}
        for place, buffer in self._buffers.items():
            old = buffer.since is not None and buffer.since <= oldest
            due[place] = buffer.rest() if old else buffer.full()
        held = sum(buffer.bytes for buffer in self._buffers.values())
        metrics.BUFFERED.set(held)
        if held > self._limits.max_buffered_bytes and not any(due.values()):
            largest = max(self._buffers, key=lambda place: self._buffers[place].bytes)
            due[largest] = self._buffers[largest].rest()
        return {place: cut for place, cut in due.items() if cut is not None}

    def _write(self, source: Source, cuts: Mapping[Place, Cut]) -> bool:
        """Store a file of each of these partitions; False where that must be tried again."""
        uploads = {
            place: Upload(*place, cut, self._names[place] or object_name(*place, cut))
            for place, cut in cuts.items()
        }
        if not source.commit({at: Mark(up.cut.start, up.name) for at, up in uploads.items()}):
            return False
        self._under_way = uploads
        for upload in list(uploads.values()):
            self._uploads.submit(upload)
        self._await(source)
        for place, upload in self._under_way.items():
            if upload.done.done():
                self._settle(place, upload)
            else:
                upload.cancelled.set()
        self._under_way = {}
        return self._commit(source)

    def _await(self, source: Source) -> None:
        """Wait for the uploads; in the group all the while, and not for ever if the role stops."""
        patience = time.monotonic() + _PATIENCE_S
        while waiting := [up.done for up in self._under_way.values() if not up.done.done()]:
            wait(waiting, _READ_S, FIRST_COMPLETED)
            if self._role.stop.is_set() and time.monotonic() > self._last_moment():
                return
            if time.monotonic() > patience:
                source.hold()
                self._take(source.read(0))

    def _settle(self, place: Place, upload: Upload) -> None:
        written = upload.done.result()
        self._buffers[place].settle(written.next_offset)
        self._names[place] = ""
        self._stored[place] = Mark(written.next_offset)
        _log.info(
            "file found" if written.adopted else "file stored",
            object=upload.name,
            rows=len(upload.cut.records),
            next_offset=written.next_offset,
        )

    def _commit(self, source: Source) -> bool:
        if self._stored and not source.commit(self._stored):
            return False
        self._stored.clear()
        return True

    def _last_moment(self) -> float:
        if self._deadline is None:
            self._deadline = time.monotonic() + _FINISH_S
        return self._deadline

    def _finish(self, source: Source) -> None:
        """Store and commit what is there, as far as the time lasts; the log keeps the rest."""
        while time.monotonic() < self._last_moment():
            rest = {place: buffer.rest() for place, buffer in self._buffers.items()}
            cuts = {place: cut for place, cut in rest.items() if cut is not None}
            if not cuts or not self._write(source, cuts):
                break
        left = sum(buffer.since is not None for buffer in self._buffers.values())
        if left:
            _log.warning("ended with records not stored; the next run reads them", partitions=left)

    def _watch(self, source: Source) -> None:
        """Say once a second how much isn't stored yet."""
        now = time.monotonic()
        if now < self._lag_due:
            return
        self._lag_due = now + _LAG_S
        for place, buffer in self._buffers.items():
            end = source.end(place)
            if end is not None and buffer.start is not None:
                metrics.LAG.labels(*place).set(max(end - buffer.start, 0))
