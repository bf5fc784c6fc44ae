"""Which snapshot of each bandit is the current one, told from the records of one topic; no I/O.

Artifact and pointer of a bandit lie in the same partition, the artifact first. A pointer moves the
service forward; it moves it back only where an operator says why: a pointer whose reason is
``published`` is a publisher's, and one that names an older version than the current one comes from
a publisher that has lost its partition.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bandstand.errors import EventError, StateError
from bandstand.learners.snapshots import newer
from bandstand.schemas.wire import Wire

__all__ = ["Artifact", "Entry", "Move", "Pointers"]

_PUBLISHED: Final = "published"


class Entry(NamedTuple):
    """A record of the snapshots topic."""

    offset: int
    timestamp: int
    """Kafka's, milliseconds since 1970, UTC."""
    key: bytes
    value: bytes | None


class Artifact(NamedTuple):
    """A snapshot as it lies in the topic."""

    value: bytes
    """With its header."""
    timestamp: int
    """When it was published, milliseconds since 1970, UTC."""


class Move(NamedTuple):
    """A bandit's pointer names another snapshot now."""

    bandit: str
    version: str
    artifact: Artifact


class _Pointer(NamedTuple):
    offset: int
    version: str


class Pointers:
    """Follows the records of the snapshots topic.

    The records of a partition come in order; they may come again from the start, as they do after
    a new connection, without effect.

    Parameters
    ----------
    wire
        Reads the values.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._artifacts: dict[str, dict[str, Artifact]] = {}
        self._pointers: dict[str, _Pointer] = {}
        self._missing: set[str] = set()

    def take(self, entry: Entry) -> Move | None:
        """Take the next record; give the move that it makes, if any.

        Parameters
        ----------
        entry
            The record. Without a value it deletes an artifact; a deleted pointer changes nothing,
            because a service goes on with what it has.

        Raises
        ------
        EventError
            If a pointer can't be read.
        StateError
            If the artifact that a pointer names isn't there; it is waited for.
        """
        value = entry.value
        bandit, mark, version = entry.key.decode(errors="replace").partition("|")
        if mark:
            artifact = None if value is None else Artifact(value, entry.timestamp)
            return self._take_artifact(bandit, version, artifact)
        return None if value is None else self._take_pointer(bandit, entry.offset, value)

    def artifact(self, bandit: str) -> Artifact | None:
        """Give the snapshot that a bandit's pointer names."""
        pointer = self._pointers.get(bandit)
        return pointer and self._artifacts.get(bandit, {}).get(pointer.version)

    def _take_artifact(self, bandit: str, version: str, artifact: Artifact | None) -> Move | None:
        artifacts = self._artifacts.setdefault(bandit, {})
        if artifact is None:
            artifacts.pop(version, None)
            return None
        artifacts[version] = artifact
        if bandit in self._missing and self._pointers[bandit].version == version:
            self._missing.discard(bandit)
            return Move(bandit, version, artifact)
        return None

    def _take_pointer(self, bandit: str, offset: int, value: bytes) -> Move | None:
        record = self._wire.loads("snapshot_pointer", value)
        if record["bandit"] != bandit:
            raise EventError("invalid", f"pointer of {record['bandit']!r} under key {bandit!r}")
        version = record["version"]
        before = self._pointers.get(bandit)
        if before is not None and not _moves(before, offset, version, record["reason"]):
            return None
        self._pointers[bandit] = _Pointer(offset, version)
        artifact = self._artifacts.get(bandit, {}).get(version)
        if artifact is None:
            self._missing.add(bandit)
            raise StateError(
                f"the pointer of bandit {bandit!r} names snapshot {version}, which is not in the "
                "topic; deciding with the one before until it comes"
            )
        self._missing.discard(bandit)
        return Move(bandit, version, artifact)


def _moves(before: _Pointer, offset: int, version: str, reason: str) -> bool:
    if offset <= before.offset or version == before.version:
        return False
    return reason != _PUBLISHED or newer(version, before.version)
