"""The logs of a lane as the archive holds them, for whoever audits it.

One file of each log is in memory at a time, and of that a piece as records. Outcomes may have been
archived whose decisions haven't yet: they can't be judged, and aren't.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import pyarrow as pa

from bandstand.archive.columns import records
from bandstand.archive.objects import hour_end
from bandstand.archive.parquet import from_bytes, span
from bandstand.archive.reader import StoredFile, files
from bandstand.archive.store import Store
from bandstand.errors import LogGapError, StorageError
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams.audit_partition import AuditLogs
from bandstand.streams.join_types import Records

__all__ = ["ArchiveSource"]

_PIECE = 5_000
_COLUMNS = ["_offset", "_timestamp", "_key", "_headers", "_value"]


class ArchiveSource:
    """All partitions of all lanes, as the archive holds them.

    Parameters
    ----------
    settings
        Where the store is.
    """

    complete = False
    """Each topic is archived at its own pace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = TopicNames(settings.topics.prefix)
        self._store = Store(settings)
        self._files: dict[str, list[StoredFile]] = {}

    def partitions(self, lane: str) -> Sequence[int]:
        """Give the partitions of a lane.

        Raises
        ------
        StorageError
            If none of its decisions was archived, or the store can't be reached.
        """
        for topic in self._names.lane(lane):
            self._files[topic] = files(self._store, topic)
        if not self._files[self._names.decisions(lane)]:
            raise StorageError(
                f"nothing of lane {lane!r} is in bucket {self._settings.s3.bucket!r} under "
                f"{self._settings.s3.prefix!r}; does 'bandstand archive' run?"
            )
        return range(self._settings.lane(lane).partitions)

    def logs(self, lane: str, partition: int) -> AuditLogs:
        """Give a partition's logs, as they were when `partitions` was asked."""
        return AuditLogs(
            *(
                _ArchivedLog(
                    self._store,
                    [file for file in self._files[topic] if file.partition == partition],
                )
                for topic in self._names.lane(lane)
            )
        )


class _ArchivedLog:
    """One partition's files, a chain."""

    def __init__(self, store: Store, found: Sequence[StoredFile]) -> None:
        self._store = store
        self._files = found
        self._starts = [file.start for file in found]
        self._number = -1
        self._table: pa.Table | None = None
        self._file_end = 0
        self.start = self._starts[0] if found else 0
        self.end = 0
        if found:
            self._load(len(found) - 1, ["_offset"])
            self.end = self._file_end
            self._number = -1

    def at(self, timestamp: int) -> int:
        """Give the start of the first file that reaches as late; none does: the log's start."""
        late = (file.start for file in self._files if hour_end(file.name) > timestamp)
        return next(late, self.start)

    def read(self, offset: int) -> Records:
        """Give some of the next records.

        Raises
        ------
        LogGapError
            If offsets lie between the end of a file and the start of the next one.
        StorageError
            If the store can't be reached, or has no such file any more.
        """
        if offset >= self.end:
            return Records.of((), offset)
        number = bisect_right(self._starts, offset) - 1
        if number != self._number:
            self._load(number, _COLUMNS)
        if offset >= self._file_end:
            raise LogGapError(
                f"the archive has a hole: {self._files[number].name!r} ends before offset "
                f"{self._file_end}, the next file begins at {self._starts[number + 1]}; were "
                "objects deleted?"
            )
        assert self._table is not None
        first = bisect_right(self._offsets, offset - 1)
        return Records.of(records(self._table.slice(first, _PIECE)), offset)

    def _load(self, number: int, columns: list[str]) -> None:
        name = self._files[number].name
        self._table = None  # before the next one is there, too
        table = from_bytes(name, self._store.get(name), columns)
        self._table, self._number = table, number
        self._file_end = span(name, table).end
        self._offsets = table["_offset"].to_numpy()
