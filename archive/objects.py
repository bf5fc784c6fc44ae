"""Where a file begins and ends, and what it is called; pure.

The files of one partition are a chain: each begins where the one before it ends, and its name says
where it begins. A name is given out once (the store refuses a second object under it), so two
writers that start from one position, one of them stalled or killed, walk the same chain: whoever
comes second finds the file there, and goes on at its end. That is why a crash at any point leaves
neither a gap nor a duplicate.

A file ends where the log says so: before the record that would make it too large, or that lies in
a later hour than its first record; after ``max_rows`` records. Only age, memory and the end of the
role end it earlier. Records of an earlier hour stay where they came, so an hour's folder also holds
the latecomers that arrived behind its first record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from bandstand.errors import StorageError
from bandstand.streams.join_types import Record

__all__ = ["Buffer", "Cut", "Name", "hour_end", "object_name", "parse_name"]

_HOUR_MS = 3_600_000
_LAST_MS = 253_402_300_799_999
"""End of the year 9999, the last that a folder can be named after."""

_NAME = re.compile(
    r"(?P<topic>[^/]+)/dt=(?P<day>\d{4}-\d\d-\d\d)/hour=(?P<hour>\d\d)/(?P=topic)\+(?P<partition>\d+)\+(?P<start>\d{19})\.parquet"
)


class Name(NamedTuple):
    """What an object's name says."""

    topic: str
    partition: int
    start: int
    """Offset at which the file begins."""


class Cut(NamedTuple):
    """The records of one file."""

    start: int
    """Offset at which the file begins: its first record's, or less where offsets are missing."""
    records: Sequence[Record]
    """At least one, in the order of their offsets."""

    @property
    def next_offset(self) -> int:
        """Offset at which the next file begins."""
        return self.records[-1].offset + 1


def object_name(topic: str, partition: int, cut: Cut) -> str:
    """Name a file after where it begins and when its first record happened.

    Examples
    --------
    >>> first = Record(offset=41, timestamp=3_600_000, key=None, value=None, headers=())
    >>> object_name("t", 3, Cut(41, [first]))
    't/dt=1970-01-01/hour=01/t+3+0000000000000000041.parquet'
    """
    timestamp = min(max(cut.records[0].timestamp, 0), _LAST_MS)
    moment = datetime.fromtimestamp(timestamp // 1000, UTC)
    folder = f"{topic}/dt={moment:%Y-%m-%d}/hour={moment:%H}"
    return f"{folder}/{topic}+{partition}+{cut.start:019d}.parquet"


def parse_name(name: str) -> Name:
    """Read an object's name.

    Raises
    ------
    StorageError
        If it isn't one of the archive's.

    Examples
    --------
    >>> parse_name("t/dt=1970-01-01/hour=01/t+3+0000000000000000041.parquet")
    Name(topic='t', partition=3, start=41)
    """
    match = _match(name)
    return Name(match["topic"], int(match["partition"]), int(match["start"]))


def hour_end(name: str) -> int:
    """Give the time, in milliseconds, that every record of a file lies before.

    Raises
    ------
    StorageError
        If the name isn't one of the archive's.

    Examples
    --------
    >>> hour_end("t/dt=1970-01-01/hour=01/t+3+0000000000000000041.parquet")
    7200000
    """
    match = _match(name)
    hour = datetime.fromisoformat(f"{match['day']}T{match['hour']}:00+00:00")
    return int(hour.timestamp()) * 1_000 + _HOUR_MS


def _match(name: str) -> re.Match[str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise StorageError(
            f"object {name!r} isn't the archive's; allowed: topic/dt=YYYY-MM-DD/hour=HH/"
            "topic+partition+offset.parquet; keep other objects under another s3.prefix"
        )
    return match


class Buffer:
    """The records of one partition that aren't in a file yet.

    Parameters
    ----------
    start
        Offset at which the next file begins; None: at the first record that comes.
    max_rows
        Most records in a file, at least 1.
    max_bytes
        Most bytes of keys, values and headers in a file, unless its only record has more.

    Examples
    --------
    >>> buffer = Buffer(0, max_rows=2, max_bytes=1_000)
    >>> buffer.add([Record(o, 0, None, b"", ()) for o in range(3)], now=10.0)
    >>> buffer.full().next_offset
    2
    >>> buffer.settle(2)
    >>> buffer.full() is None, buffer.rest().start, buffer.since
    (True, 2, 10.0)
    """

    def __init__(self, start: int | None, *, max_rows: int, max_bytes: int) -> None:
        self.start = start
        self.bytes = 0
        """Bytes of all records held."""
        self.since: float | None = None
        """When the oldest record held came; None while there is none."""
        self.missing = 0
        """Offsets that were passed over: no record was read there."""
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._records: list[Record] = []
        self._latest = 0.0
        self._rescan()

    @property
    def position(self) -> int | None:
        """Offset of the next record expected; None before the first."""
        return self._records[-1].offset + 1 if self._records else self.start

    def add(self, records: Sequence[Record], now: float) -> None:
        """Take records in the order of their offsets; those below `position` are repeats.

        Parameters
        ----------
        records
            Records of this partition.
        now
            Seconds on a clock that never goes back.
        """
        for record in records:
            expected = self.position
            if expected is None:
                expected = self.start = record.offset
            if record.offset < expected:
                continue
            self.missing += record.offset - expected
            self._records.append(record)
            self.bytes += _size(record)
        if self._records:
            self.since = now if self.since is None else self.since
            self._latest = now
        self._scan()

    def full(self) -> Cut | None:
        """Give the next file, if the log has reached its end."""
        return self._cut(self._end) if self._end else None

    def rest(self) -> Cut | None:
        """Give the next file as far as it has come; None if nothing is held."""
        return self._cut(self._end or len(self._records)) if self._records else None

    def settle(self, next_offset: int) -> None:
        """Let go of everything below an offset: it is stored, and the next file begins there."""
        kept = [record for record in self._records if record.offset >= next_offset]
        self.start = next_offset
        self._records = kept
        self.bytes = sum(map(_size, kept))
        self.since = self._latest if kept else None
        self._rescan()

    def _cut(self, end: int) -> Cut:
        assert self.start is not None
        return Cut(self.start, self._records[:end])

    def _rescan(self) -> None:
        self._end: int | None = None
        self._scanned = 0
        self._filled = 0
        self._scan()

    def _scan(self) -> None:
        """Look for the end of the next file among the records not looked at yet."""
        while self._end is None and self._scanned < len(self._records):
            record = self._records[self._scanned]
            size = _size(record)
            if self._scanned and self._belongs_to_next(record, size):
                self._end = self._scanned
                return
            self._scanned += 1
            self._filled += size
            if self._scanned == self._max_rows:
                self._end = self._scanned

    def _belongs_to_next(self, record: Record, size: int) -> bool:
        hour = self._records[0].timestamp // _HOUR_MS
        return record.timestamp // _HOUR_MS > hour or self._filled + size > self._max_bytes


def _size(record: Record) -> int:
    size = len(record.key or b"") + len(record.value or b"")
    for key, value in record.headers:
        size += len(key) + len(value or b"")
    return size
