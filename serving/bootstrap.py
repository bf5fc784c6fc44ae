"""Snapshots on disk: what a service begins with where Kafka can't be reached.

A file holds one snapshot as it would lie in Kafka, in Avro's single-object encoding, so that it can
be read without a schema registry. The file's modification time is when the snapshot was published.
"""

from __future__ import annotations

import os
from pathlib import Path

from bandstand.errors import BandstandError, StateError
from bandstand.logs import get_logger
from bandstand.schemas.wire import Wire
from bandstand.serving.encoding import Layouts
from bandstand.serving.models import Model, load_model

__all__ = ["read_snapshots", "write_snapshot"]

_log = get_logger(__name__)
_PATTERN = "*.snapshot"


def read_snapshots(path: Path, layouts: Layouts) -> dict[str, Model]:
    """Load a snapshot file, or all ``*.snapshot`` files of a folder; give them by bandit.

    Parameters
    ----------
    path
        File or folder; one that isn't there is said in the log, because a service that has never
        run has none yet.
    layouts
        Where encoders keep their layouts.

    Raises
    ------
    StateError
        If a file isn't a snapshot that this version can use; names it.
    """
    files = sorted(path.glob(_PATTERN)) if path.is_dir() else [path]
    models = [_read(file, layouts) for file in files if file.exists()]
    if not models:
        _log.warning("no bootstrap snapshot", path=str(path))
    return {model.bandit: model for model in models}


def write_snapshot(path: Path, record: dict[str, object], published: float) -> None:
    """Write a snapshot file, whole or not at all.

    Parameters
    ----------
    path
        The file; a file that is there is replaced.
    record
        The snapshot.
    published
        When it was published, seconds since 1970, UTC.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(Wire.single_object().dumps("snapshot", record))
    os.utime(unfinished, (published, published))
    unfinished.replace(path)


def _read(file: Path, layouts: Layouts) -> Model:
    try:
        return load_model(
            Wire.single_object().loads("snapshot", file.read_bytes()),
            published=file.stat().st_mtime,
            step="bootstrap",
            layouts=layouts,
        )
    except (OSError, BandstandError) as error:
        raise StateError(
            f"bootstrap file {file} can't be used: {error}; write it anew with "
            "Client.save_snapshot, or delete it"
        ) from error
