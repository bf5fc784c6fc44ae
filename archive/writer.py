"""From the records of one file to an object in the store, or to the one that is there already."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from bandstand.archive import parquet
from bandstand.archive.columns import table
from bandstand.archive.objects import Cut
from bandstand.archive.parquet import Span
from bandstand.errors import StateError
from bandstand.schemas.wire import Wire

__all__ = ["File", "Objects", "Written", "build", "store"]

_COMPARED = ["_offset", "_timestamp", "_key", "_headers", "_value"]


class Objects(Protocol):
    """What is needed of a store: `archive.store.Store`, or the one that a test lets crash."""

    def put_if_absent(self, name: str, body: bytes) -> bool:
        """Store an object unless there is one of that name; False: there was one."""

    def get(self, name: str) -> bytes:
        """Give an object's bytes."""


class File(NamedTuple):
    """A file, ready to be stored."""

    name: str
    span: Span
    table: pa.Table
    body: bytes


class Written(NamedTuple):
    """What is in the store now."""

    next_offset: int
    """Where the next file begins."""
    adopted: bool
    """Whether the object was there already."""


def build(
    names: tuple[str, ...], topic: str, partition: int, cut: Cut, name: str, wire: Wire
) -> File:
    """Make a file of records; the same records give the same bytes.

    Parameters
    ----------
    names
        Schemas that the topic's values may have.
    topic, partition, cut
        Where the records come from and what they are.
    name
        Name that the object gets.
    wire
        What reads the values' headers.
    """
    rows = table(names, partition, cut.records, wire)
    covered = Span(topic, partition, cut.start, cut.next_offset)
    return File(name, covered, rows, parquet.to_bytes(rows, covered))


def store(file: File, objects: Objects) -> Written:
    """Store a file, or adopt the one that another writer, or this one before a crash, has stored.

    Raises
    ------
    StateError
        If there is an object of its name that holds other records than the log.
    StorageError
        If the store can't be reached or refuses.
    """
    if objects.put_if_absent(file.name, file.body):
        return Written(file.span.end, adopted=False)
    there = parquet.from_bytes(file.name, objects.get(file.name))
    covered = parquet.span(file.name, there)
    if covered[:3] != file.span[:3] or not _agrees(file.table, there, covered.end):
        raise StateError(
            f"object {file.name!r} is there already and holds other records than the topic; was "
            "the topic created anew, or does another cluster write here? Set s3.prefix to a new one"
        )
    return Written(covered.end, adopted=True)


def _agrees(ours: pa.Table, theirs: pa.Table, end: int) -> bool:
    """Tell whether they have every record of ours below `end`, as it is.

    Ours may have fewer: a compacted topic may have lost some since.
    """
    ours = ours.select(_COMPARED)
    ours = ours.filter(pc.less(ours["_offset"], end))
    theirs = theirs.select(_COMPARED)
    theirs = theirs.filter(pc.is_in(theirs["_offset"], ours["_offset"].combine_chunks()))
    return bool(ours.equals(theirs))
