"""Many values at once, from Kafka's bytes to Arrow columns; hides which codec does it.

pyruhvro reads a batch twenty times as fast as fastavro, but refuses all of it for one bad record,
and takes what Avro forbids: bytes after the record, text that isn't UTF-8. Here one bad record
costs itself only, and what is let through is what `codec.decode` lets through, with equal values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from bandstand.errors import EventError
from bandstand.schemas.codec import END, END_BYTES, current, decode, encode, schema_json
from bandstand.schemas.wire import Wire

__all__ = ["Bad", "Batch", "arrow_schema", "columns"]

ONE_BY_ONE: Final = 8
"""Records in a refused part of a batch below which each is tried alone."""


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
        The good rows, in their order, with the columns of `arrow_schema`. A map column holds a
        repeated key as often as it was written; the last one counts, as in a dict.
    rows
        Index of each good row among the values; int64, ascending.
    bodies
        Each good row's own bytes as the current schema gives them, without a header.
    bad
        The others, ascending.
    """

    table: pa.RecordBatch
    rows: npt.NDArray[np.int64]
    bodies: list[bytes]
    bad: list[Bad]


@dataclass
class _Bodies:
    """Bodies in the current schema, with the indexes they came from."""

    bodies: list[bytes] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)


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
    found = _bodies(name, values, wire)
    tables, refused = _sift(_reader(name), found.bodies, 0)
    tables = tables or [pa.RecordBatch.from_pylist([], schema=arrow_schema(name))]
    if refused:
        found = _without(name, found, refused)
    return Batch(
        table=pa.concat_batches(tables) if len(tables) > 1 else tables[0],
        rows=np.asarray(found.rows, dtype=np.int64),
        bodies=found.bodies,
        bad=sorted(found.bad, key=lambda bad: bad.index),
    )


def _bodies(name: str, values: Sequence[bytes | None], wire: Wire) -> _Bodies:
    """Take the headers off; at once where all are the one that this process writes."""
    header = wire.header(name)
    start = len(header)
    if all(value is not None and value.startswith(header) for value in values):
        return _Bodies([value[start:] for value in values if value], list(range(len(values))))
    found = _Bodies()
    for row, value in enumerate(values):
        try:
            body = _body(name, value, wire)
        except EventError as error:
            found.bad.append(Bad(row, error))
        else:
            found.bodies.append(body)
            found.rows.append(row)
    return found


def _body(name: str, value: bytes | None, wire: Wire) -> bytes:
    """Give a record's bytes in the current schema, written anew where they are in another."""
    split = wire.split(name, value)
    assert value is not None
    body = value[split.body_start :]
    if split.writer.is_current(name):
        return body
    return encode(name, decode(name, body, split.writer))


Reader = Callable[[list[bytes]], pa.RecordBatch]


@cache
def _reader(name: str) -> Reader:
    """Choose the codec of a schema."""
    schema = current(name)

    def in_rust(bodies: list[bytes]) -> pa.RecordBatch:
        table = pyruhvro.deserialize_array([body + END_BYTES for body in bodies], schema.columns)
        table.validate(full=True)
        if not pc.all(pc.equal(table["end"], END)).as_py():
            raise ValueError("bytes follow a record")
        return table.drop_columns(["end"])

    def in_python(bodies: list[bytes]) -> pa.RecordBatch:
        records = [decode(name, body) for body in bodies]
        return pa.RecordBatch.from_pylist(records, schema=arrow_schema(name))

    return in_rust if schema.in_rust else in_python


def _sift(read: Reader, bodies: list[bytes], first: int) -> tuple[list[pa.RecordBatch], list[int]]:
    """Read what can be read, halving what is refused; the indexes of what can't come second."""
    try:
        return [read(bodies)], []
    except (ValueError, EventError):
        if len(bodies) == 1:
            return [], [first]
    step = 1 if len(bodies) <= ONE_BY_ONE else (len(bodies) + 1) // 2
    tables: list[pa.RecordBatch] = []
    refused: list[int] = []
    for start in range(0, len(bodies), step):
        more = _sift(read, bodies[start : start + step], first + start)
        tables += more[0]
        refused += more[1]
    return tables, refused


def _without(name: str, found: _Bodies, refused: list[int]) -> _Bodies:
    """Move the refused records to the bad ones, each with its reason."""
    out = set(refused)
    kept = [at for at in range(len(found.bodies)) if at not in out]
    bad = [Bad(found.rows[at], _reason(name, found.bodies[at])) for at in refused]
    return _Bodies(
        [found.bodies[at] for at in kept], [found.rows[at] for at in kept], [*found.bad, *bad]
    )


def _reason(name: str, body: bytes) -> EventError:
    try:
        decode(name, body)
    except EventError as error:
        return error
    return EventError("invalid", f"these bytes aren't a {name}, by the batch codec's reading")
