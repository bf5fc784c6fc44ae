"""Many values at once, from Kafka's bytes to Arrow columns; hides which codec does it.

pyruhvro reads a batch twenty times as fast as fastavro, but refuses all of it for one bad record,
and takes what Avro forbids: bytes after the record, text that isn't UTF-8. Here one bad record
costs itself only, and what is let through is what `codec.decode` lets through, with equal values.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyruhvro

from bandstand.errors import EventError
from bandstand.schemas.codec import decode, encode
from bandstand.schemas.definitions import current, schema_json
from bandstand.schemas.maps import maps_of, repeat_a_key
from bandstand.schemas.primitives import write_long
from bandstand.schemas.wire import CONFLUENT_HEADER, SINGLE_OBJECT_HEADER, Wire

__all__ = ["Bad", "Batch", "arrow_schema", "columns", "encode_columns"]

LARGEST_BATCH: Final = 2**31 - 1
"""Bytes that a batch may have: Arrow counts a text column's in 31 bits."""

ONE_BY_ONE: Final = 8
"""Records in a refused part of a batch below which each is tried alone."""

END: Final = secrets.randbits(63)
"""What a field after the last one must be read as.

pyruhvro doesn't say where a record ended. So it is given a schema with one field more, and records
with `END_BYTES` behind them: it reads `END` only where nothing stood between the two. Drawn by each
process, so that no record can hold it on purpose.
"""


END_BYTES: Final = write_long(END)


@dataclass(frozen=True)
class Bad:
    """A value that can't be read, by its index in the batch."""

    index: int
    error: EventError


@dataclass(frozen=True)
class Batch:
    """The values of a batch that can be read, as columns, and those that can't.

    Parameters
    ----------
    table
        The good rows, in their order, with the columns of `arrow_schema`.
    rows
        Index of each good row among the values; int64, ascending.
    bad
        The others, ascending.
    frames
        Each good row's bytes with their header, in the current schema and as this process frames
        them; what came in another schema or with another header was written anew.
    sizes
        Length of each frame; int64.
    """

    table: pa.RecordBatch
    rows: npt.NDArray[np.int64]
    bad: list[Bad]
    frames: list[bytes]
    sizes: npt.NDArray[np.int64]


@dataclass
class _Frames:
    """Values whose headers were read, with the indexes they came from."""

    frames: list[bytes]
    rows: Sequence[int]
    bad: list[Bad]


@cache
def arrow_schema(name: str) -> pa.Schema:
    """Give the columns of a record: times as ``timestamp[ms]``, symbols as text.

    Examples
    --------
    >>> arrow_schema("reward").field("ts").type
    TimestampType(timestamp[ms])
    """
    return pyruhvro.avro_to_arrow_schema(schema_json(name))


def columns(name: str, values: Sequence[bytes | None], wire: Wire) -> Batch:
    """Read a batch of values.

    Parameters
    ----------
    name
        Name of the schema.
    values
        Kafka values, each with its header; less than 2 GiB in all.
    wire
        What reads the headers.

    Raises
    ------
    BrokerError
        If the schema registry can't be asked.
    ValueError
        If the values are too much for one batch.

    Examples
    --------
    >>> wire = Wire.single_object()
    >>> good = wire.dumps("snapshot_pointer", {"bandit": "home", "version": "1-0-ab"})
    >>> batch = columns("snapshot_pointer", [good, good[:-3], None], wire)
    >>> batch.table["bandit"].to_pylist(), batch.rows.tolist()
    (['home'], [0])
    >>> [(bad.index, bad.error.reason) for bad in batch.bad]
    [(1, 'truncated'), (2, 'empty')]
    """
    found = _frames(name, values, wire)
    sizes = np.fromiter(map(len, found.frames), np.int64, len(found.frames))
    if (size := int(sizes.sum())) > LARGEST_BATCH:
        raise ValueError(f"a batch of {size} bytes; allowed: {LARGEST_BATCH}; split it")
    start = len(wire.header(name))
    tables, refused = _sift(_reader(name, start), found, range(len(found.frames)))
    if refused:
        found, sizes = _without(name, found, start, refused), np.delete(sizes, refused)
    return Batch(
        table=_joined(name, tables),
        rows=_numbers(found.rows),
        bad=sorted(found.bad, key=lambda bad: bad.index),
        frames=found.frames,
        sizes=sizes,
    )


def encode_columns(name: str, table: pa.RecordBatch) -> list[bytes]:
    r"""Write a batch of records, without headers; the reverse of `columns`.

    Parameters
    ----------
    name
        Name of a schema that holds no bytes.
    table
        Columns as `arrow_schema` gives them.

    Raises
    ------
    EventError
        ``invalid``, if the columns don't fit the schema.

    Examples
    --------
    >>> table = pa.RecordBatch.from_pylist(
    ...     [{"bandit": "home", "version": "1-0-ab", "reason": "published"}],
    ...     schema=arrow_schema("snapshot_pointer"),
    ... )
    >>> encode_columns("snapshot_pointer", table)
    [b'\x08home\x0c1-0-ab\x12published']
    """
    needed = [field.name for field in arrow_schema(name) if not field.nullable]
    if missing := [key for key in needed if key in table.schema.names and table[key].null_count]:
        # Written as they are, they would become empty texts and zeros.
        raise EventError("invalid", f"a {name} needs a value in every row of {', '.join(missing)}")
    try:
        parts = pyruhvro.serialize_record_batch(table, schema_json(name), 1)
    except ValueError as error:
        raise EventError("invalid", f"columns that are no {name}: {error}") from None
    return [body.as_py() for part in parts for body in part]


def _numbers(rows: Sequence[int]) -> npt.NDArray[np.int64]:
    if isinstance(rows, range):
        return np.arange(rows.start, rows.stop)
    return np.array(rows, np.int64)


def _joined(name: str, tables: list[pa.RecordBatch]) -> pa.RecordBatch:
    if not tables:
        return pa.RecordBatch.from_pylist([], schema=arrow_schema(name))
    return tables[0] if len(tables) == 1 else pa.concat_batches(tables)


def _frames(name: str, values: Sequence[bytes | None], wire: Wire) -> _Frames:
    """Read the headers; at once where all are the one that this process writes."""
    header = wire.header(name)
    if None not in values:
        whole = list(cast("Sequence[bytes]", values))
        if all(map(bytes.startswith, whole, repeat(header))):
            return _Frames(whole, range(len(whole)), [])
    frames: list[bytes] = []
    rows: list[int] = []
    bad: list[Bad] = []
    for row, value in enumerate(values):
        try:
            frame = _frame(name, value, wire, header)
        except EventError as error:
            bad.append(Bad(row, error))
        else:
            frames.append(frame)
            rows.append(row)
    return _Frames(frames, rows, bad)


def _frame(name: str, value: bytes | None, wire: Wire, header: bytes) -> bytes:
    """Give a record in the current schema and with our header, written anew where it differs."""
    if value is not None and value.startswith(header):
        return value
    split = wire.split(name, value)
    assert value is not None
    body = value[split.body_start :]
    if split.writer.is_current(name):
        return header + body
    return header + encode(name, decode(name, body, split.writer))


Reader = Callable[[list[bytes]], pa.RecordBatch]

# Avro fields as long as a header: a version byte or two read as a number, then the schema's name.
# So a batch is read with its headers on, and no record is copied only to lose one.
_HEADER_FIELDS: Final = {SINGLE_OBJECT_HEADER: "double", CONFLUENT_HEADER: "float"}


@cache
def _reader(name: str, start: int) -> Reader:
    """Choose the codec of a schema, for records behind headers of so many bytes."""
    schema = current(name)
    fields = [
        {"name": "head", "type": "long"},
        {"name": "head_rest", "type": _HEADER_FIELDS[start]},
        *schema.definition["fields"],
        {"name": "end", "type": "long"},
    ]
    maps = maps_of(arrow_schema(name))
    with_ends = json.dumps({**schema.definition, "fields": fields})

    def in_rust(ended: list[bytes]) -> pa.RecordBatch:
        table = pyruhvro.deserialize_array(ended, with_ends)
        table.validate(full=True)
        if not (table["end"].to_numpy() == END).all():
            raise ValueError("bytes follow a record")
        table = table.drop_columns(["head", "head_rest", "end"])
        if repeat_a_key(table, maps):
            raise ValueError("a map has a key twice")
        return table

    def in_python(ended: list[bytes]) -> pa.RecordBatch:
        records = [decode(name, frame[start:].removesuffix(END_BYTES)) for frame in ended]
        return pa.RecordBatch.from_pylist(records, schema=arrow_schema(name))

    return in_rust if schema.in_rust else in_python


def _sift(read: Reader, found: _Frames, part: range) -> tuple[list[pa.RecordBatch], list[int]]:
    """Read what can be read, halving what is refused; the places of what can't come second."""
    try:
        return [read([frame + END_BYTES for frame in found.frames[part.start : part.stop]])], []
    except (ValueError, EventError):
        if len(part) == 1:
            return [], [part.start]
    step = 1 if len(part) <= ONE_BY_ONE else (len(part) + 1) // 2
    tables: list[pa.RecordBatch] = []
    refused: list[int] = []
    for first in range(0, len(part), step):
        more = _sift(read, found, part[first : first + step])
        tables += more[0]
        refused += more[1]
    return tables, refused


def _without(name: str, found: _Frames, start: int, refused: list[int]) -> _Frames:
    """Move the refused records to the bad ones, each with its reason."""
    out = set(refused)
    kept = [at for at in range(len(found.frames)) if at not in out]
    bad = [Bad(found.rows[at], _reason(name, found.frames[at][start:])) for at in refused]
    return _Frames(
        [found.frames[at] for at in kept], [found.rows[at] for at in kept], found.bad + bad
    )


def _reason(name: str, body: bytes) -> EventError:
    try:
        decode(name, body)
    except EventError as error:
        return error
    return EventError("invalid", f"these bytes aren't a {name}, by the batch codec's reading")
