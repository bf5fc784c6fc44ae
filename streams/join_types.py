"""What goes into the join's core and what comes out of it."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal, NamedTuple

from bandstand.durations import milliseconds
from bandstand.errors import EventError, StateError
from bandstand.schemas.wire import Wire
from bandstand.settings import LaneSettings

__all__ = [
    "PROGRESS_HEADER",
    "PROGRESS_KEY",
    "TICK_HEADER",
    "Emission",
    "Emissions",
    "Log",
    "Output",
    "Record",
    "Records",
    "Refusal",
    "Rules",
    "Tail",
    "parse_tail",
    "resume_times",
]

Log = Literal["decisions", "rewards"]

TICK_HEADER = "tick"
PROGRESS_HEADER = "progress"
PROGRESS_KEY = b"bandstand.progress"


class Record(NamedTuple):
    """One Kafka record, whatever client read it."""

    offset: int
    timestamp: int
    """Kafka timestamp, milliseconds since the epoch."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of one log, as columns.

    Parameters
    ----------
    start
        The offset that was asked for. Between it and the first record, and between two records, the
        log holds nothing that is to be read: offsets left out there belong to markers of
        transactions. Who fills this vouches for that.
    offsets, timestamps, keys, values
        One entry a record; offsets ascend, timestamps are milliseconds since the epoch.
    headers
        By offset, of the records that have no value at least.

    Examples
    --------
    >>> rows = [Record(7, 1_000, b"a", b"x", ()), Record(9, 1_001, b"b", b"y", ())]
    >>> records = Records.of(rows, start=6)
    >>> records.offsets, records.since(8).keys
    ([7, 9], [b'b'])
    """

    start: int
    offsets: Sequence[int]
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Mapping[int, Sequence[tuple[str, bytes]]]

    @classmethod
    def of(cls, records: Iterable[Record], start: int | None = None) -> Records:
        """Turn single records into columns; `start` is the first one's offset if not given."""
        rows = list(records)
        if start is None:
            start = rows[0].offset if rows else 0
        return cls(
            start,
            [row.offset for row in rows],
            [row.timestamp for row in rows],
            [row.key for row in rows],
            [row.value for row in rows],
            {row.offset: row.headers for row in rows if row.value is None},
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def row(self, at: int) -> Record:
        """Give one record."""
        offset = self.offsets[at]
        headers = self.headers.get(offset, ())
        return Record(offset, self.timestamps[at], self.keys[at], self.values[at], headers)

    def cut(self, first: int, end: int) -> Records:
        """Give the rows from `first` up to, not including, `end`."""
        return Records(
            self.offsets[first] if first < len(self.offsets) else self.start,
            self.offsets[first:end],
            self.timestamps[first:end],
            self.keys[first:end],
            self.values[first:end],
            self.headers,
        )

    def without(self, rows: Iterable[int]) -> Records:
        """Leave rows out."""
        kept = bytearray(b"\1") * len(self)
        for row in rows:
            kept[row] = 0
        return Records(
            self.start,
            list(compress(self.offsets, kept)),
            list(compress(self.timestamps, kept)),
            list(compress(self.keys, kept)),
            list(compress(self.values, kept)),
            self.headers,
        )

    def pick(self, rows: Sequence[int]) -> Records:
        """Give some rows."""
        return Records(
            self.start,
            [self.offsets[row] for row in rows],
            [self.timestamps[row] for row in rows],
            [self.keys[row] for row in rows],
            [self.values[row] for row in rows],
            self.headers,
        )

    def since(self, offset: int) -> Records:
        """Give the rows from an offset on."""
        return self.cut(bisect_left(self.offsets, offset), len(self.offsets))


class Rules(NamedTuple):
    """A lane's settings in force, milliseconds; every tick carries them.

    ``window_ms`` and ``grace_ms`` may change from tick to tick, the others are the lane's for good.
    """

    window_ms: int
    grace_ms: int
    lateness_ms: int
    backward_ms: int
    skew_ms: int

    @classmethod
    def from_settings(cls, lane: LaneSettings) -> Rules:
        """Take the rules from a lane's settings."""
        return cls(
            window_ms=milliseconds(lane.window),
            grace_ms=milliseconds(lane.grace),
            lateness_ms=milliseconds(lane.lateness),
            backward_ms=milliseconds(lane.backward),
            skew_ms=milliseconds(lane.skew),
        )

    @classmethod
    def from_header(cls, header: bytes) -> Rules:
        """Read the rules from a tick's header.

        Raises
        ------
        EventError
            If it isn't such a header.
        """
        try:
            values = json.loads(header)
            rules = cls(**values)
        except (ValueError, TypeError) as error:
            raise EventError("tick", f"header {header[:200]!r} has no rules: {error}") from None
        if not all(type(value) is int and value >= 0 for value in rules):
            raise EventError("tick", f"rules {rules} must be whole numbers >= 0")
        return rules

    def to_header(self) -> bytes:
        """Write the rules as a tick's header."""
        return json.dumps(self._asdict(), separators=(",", ":")).encode()


class Tail(NamedTuple):
    """Where the outcome topic says that the decision cursor stands."""

    source_offset: int
    """Offset of the last decision-log record that is done with."""
    before: int | None
    """Largest tick before the next one, milliseconds; None before the first."""


class Emission(NamedTuple):
    """A record for the lane's outcome topic, same partition."""

    key: bytes
    timestamp: int
    value: bytes | None
    headers: list[tuple[str, bytes]] | None


@dataclass(frozen=True, slots=True)
class Emissions:
    """Outcomes for the lane's outcome topic, same partition, as columns."""

    keys: list[bytes]
    timestamps: list[int]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Emission]:
        for key, timestamp, value in zip(self.keys, self.timestamps, self.values, strict=True):
            yield Emission(key, timestamp, value, None)


class Refusal(NamedTuple):
    """A record for the dead letters."""

    log: Log
    record: Record
    reason: str
    detail: str
    again: bool
    """Whether an owner before has counted it."""


class Output(NamedTuple):
    """What one push has brought about."""

    emissions: Emissions
    refusals: list[Refusal]
    decisions: Counter[str]
    """Decisions that reached their state: joined, defaulted, duplicate, oversize, invalid."""
    rewards: Counter[str]
    """Rewards that did: joined, late, out_of_window, duplicate, unmatched, invalid."""
    delays: list[int]
    """Of each reward in an outcome: its time less its decision's, milliseconds."""


def parse_tail(record: Record, wire: Wire) -> Tail:
    """Read where the decision cursor stands from the last record of an outcome partition.

    Parameters
    ----------
    record
        An outcome or a progress record.
    wire
        How outcomes are framed.

    Raises
    ------
    StateError
        If it is neither.
    """
    try:
        if record.value is None:
            progress = json.loads(dict(record.headers)[PROGRESS_HEADER])
            return Tail(progress["source_offset"], progress["before"])
        outcome = wire.loads("outcome", record.value)
    except (KeyError, ValueError, TypeError, EventError) as error:
        raise StateError(
            f"the last record of the outcome partition (offset {record.offset}) is neither an "
            f"outcome nor a progress record: {error}; only the join may write there"
        ) from None
    return Tail(outcome["source_offset"], outcome["before"])


def progress_record(tail: Tail, index_size: int) -> Emission | None:
    """Give the record that keeps a position alive, once there is a tick to date it by.

    Parameters
    ----------
    tail
        The position.
    index_size
        Rewards that the writer keeps in memory, for those who look on.
    """
    if tail.before is None:
        return None
    fields = {**tail._asdict(), "rewards": index_size}
    header = json.dumps(fields, separators=(",", ":")).encode()
    return Emission(PROGRESS_KEY, tail.before, None, [(PROGRESS_HEADER, header)])


def resume_times(tail: Tail, rules: Rules) -> tuple[int, int] | None:
    """Give the times from which decisions and rewards must be read again; None: from the start.

    Everything that can still change a verdict lies at or after the first offset whose timestamp is
    one of these; so does every tick that is at least as large.

    Examples
    --------
    >>> resume_times(Tail(7, before=10_000), Rules(60_000, 5_000, 1_000, 200, 300))
    (8700, 8500)
    """
    if tail.before is None:
        return None
    decisions = tail.before - rules.lateness_ms - rules.skew_ms
    return decisions, decisions - rules.backward_ms
