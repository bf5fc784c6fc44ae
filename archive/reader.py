"""What the archive holds, in the order of the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from bandstand.archive.objects import parse_name
from bandstand.archive.parquet import from_bytes
from bandstand.archive.store import Store
from bandstand.errors import StorageError
from bandstand.settings import Settings

__all__ = ["StoredFile", "download", "files", "read_table"]


class StoredFile(NamedTuple):
    """One file of a topic; sorts in the order of the log."""

    partition: int
    start: int
    """Offset at which it begins."""
    name: str
    """Name of the object, below ``s3.prefix``."""


def files(store: Store, topic: str, *, partitions: Sequence[int] | None = None) -> list[StoredFile]:
    """List a topic's files, by partition, then by offset.

    Parameters
    ----------
    store
        Where they are.
    topic
        Full name of the topic.
    partitions
        Partitions to list; all by default.

    Raises
    ------
    StorageError
        If the store can't be reached, or something else lies in the topic's folder.
    """
    found = []
    for name in store.list(f"{topic}/"):
        _, partition, start = parse_name(name)
        if partitions is None or partition in partitions:
            found.append(StoredFile(partition, start, name))
    return sorted(found)


def read_table(
    settings: Settings,
    topic: str,
    *,
    partitions: Sequence[int] | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """Read a topic's rows, by partition, then by offset.

    Parameters
    ----------
    settings
        Where the store is.
    topic
        Full name of the topic.
    partitions
        Partitions to read; all by default.
    columns
        Columns to read; all by default.

    Raises
    ------
    StorageError
        If there is nothing, or the store can't be reached.
    """
    store = Store(settings)
    found = files(store, topic, partitions=partitions)
    if not found:
        raise StorageError(
            f"nothing of topic {topic!r} is in bucket {settings.s3.bucket!r} under "
            f"{settings.s3.prefix!r}; does 'bandstand archive' run?"
        )
    tables = [
        from_bytes(file.name, store.get(file.name), columns).replace_schema_metadata()
        for file in found
    ]
    return pa.concat_tables(tables, promote_options="default")


def download(settings: Settings, topic: str, folder: Path) -> list[Path]:
    """Copy a topic's files into a folder, as they lie, so that a tool without S3 can read them.

    Parameters
    ----------
    settings
        Where the store is.
    topic
        Full name of the topic.
    folder
        Where the tree ``topic/dt=…/hour=…/`` is made.

    Raises
    ------
    StorageError
        If the store can't be reached.
    """
    store = Store(settings)
    paths = []
    for file in files(store, topic):
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(file.name))
        paths.append(path)
    return paths
