"""A table as the bytes of a Parquet file: the same table gives the same bytes; pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bandstand.errors import StorageError

__all__ = ["Span", "from_bytes", "span", "to_bytes"]

_FORMAT = b"1"
_COMPRESSION = "zstd"
_LEVEL = 1
_ROW_GROUP_ROWS = 131_072
_ALL_DIFFERENT = frozenset(["_key", "_value", "decision_id", "decision.decision_id", "reward_id"])
"""Columns in which hardly a value comes twice, so that a dictionary would only cost time."""


class Span(NamedTuple):
    """The part of a log that a file covers: offsets from `start` up to, not including, `end`."""

    topic: str
    partition: int
    start: int
    end: int


def to_bytes(table: pa.Table, span: Span) -> bytes:
    """Write a table as a file.

    Parameters
    ----------
    table
        Rows of one partition, as `archive.columns` makes them.
    span
        What the file covers; kept in its footer.
    """
    named = {
        b"bandstand.format": _FORMAT,
        **{
            f"bandstand.{key}".encode(): str(value).encode()
            for key, value in span._asdict().items()
        },
    }
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(named),
        sink,
        compression=_COMPRESSION,
        compression_level=_LEVEL,
        row_group_size=_ROW_GROUP_ROWS,
        **_encodings(table.schema),
    )
    return bytes(sink.getvalue())


def from_bytes(name: str, body: bytes, columns: list[str] | None = None) -> pa.Table:
    """Read a file.

    Parameters
    ----------
    name
        Name of the object, for the message.
    body
        The whole file.
    columns
        Columns to read; all by default.

    Raises
    ------
    StorageError
        If it isn't a Parquet file.
    """
    try:
        return pq.read_table(pa.BufferReader(body), columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(f"object {name!r} can't be read as Parquet: {error}") from error


def span(name: str, table: pa.Table) -> Span:
    """Give what a file covers.

    Raises
    ------
    StorageError
        If its footer doesn't say so.
    """
    named = table.schema.metadata or {}
    if named.get(b"bandstand.format") != _FORMAT:
        raise StorageError(
            f"object {name!r} isn't the archive's: its footer has bandstand.format "
            f"{named.get(b'bandstand.format')!r}; allowed: {_FORMAT!r}; "
            "keep other objects under another s3.prefix"
        )
    topic, *numbers = (named[f"bandstand.{key}".encode()].decode() for key in Span._fields)
    return Span(topic, *map(int, numbers))


@cache
def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Choose each leaf's encoding by its type: floats split by byte, whole numbers as steps."""
    dictionary: list[str] = []
    others: dict[str, str] = {}
    for path, kind in _leaves(schema):
        if kind in ("FLOAT", "DOUBLE"):
            others[path] = "BYTE_STREAM_SPLIT"
        elif kind in ("INT32", "INT64"):
            others[path] = "DELTA_BINARY_PACKED"
        elif path not in _ALL_DIFFERENT:
            dictionary.append(path)
    return {"use_dictionary": dictionary, "column_encoding": others}


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, str]]:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    for at in range(len(leaves)):
        yield leaves.column(at).path, leaves.column(at).physical_type
