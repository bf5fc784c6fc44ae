"""The published snapshots, read once: for the command line and for whoever wants to look."""

from __future__ import annotations

from typing import Any, NamedTuple

from bandstand.errors import EventError, StateError
from bandstand.kafka import TopicReader
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire, wire_from
from bandstand.settings import Settings
from bandstand.streams.dead_letters import origin_of
from bandstand.streams.publish_core import parse_artifact_key, pointer_version

__all__ = ["SnapshotInfo", "list_snapshots", "load_snapshot"]

_READ_S = 60.0


class SnapshotInfo(NamedTuple):
    """One snapshot that is kept.

    Parameters
    ----------
    bandit, version
        Which one.
    current
        Whether the bandit's pointer names it.
    epoch, outcomes, parent, policy
        As in the snapshot.
    published
        When it was written, milliseconds since 1970.
    size
        Bytes of its record.
    """

    bandit: str
    version: str
    current: bool
    epoch: int
    outcomes: int
    parent: str
    policy: str
    published: int
    size: int


class _Kept(NamedTuple):
    value: bytes
    published: int


def list_snapshots(settings: Settings, bandit: str | None = None) -> list[SnapshotInfo]:
    """List the snapshots that are kept, by bandit, the oldest first.

    Parameters
    ----------
    settings
        The settings in force.
    bandit
        Only this one's.

    Raises
    ------
    StateError
        If one can't be read.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    artifacts, pointers = _read(settings, bandit)
    wire = wire_from(settings)
    found = [
        _info(_decode(kept.value, wire), kept, pointers.get(name) == version)
        for (name, version), kept in artifacts.items()
    ]
    return sorted(found, key=lambda info: (info.bandit, info.epoch, info.outcomes))


def load_snapshot(settings: Settings, bandit: str, version: str | None = None) -> dict[str, Any]:
    """Read one snapshot, as a record of its schema.

    Parameters
    ----------
    settings
        The settings in force.
    bandit
        Its bandit.
    version
        Its version; the current one by default.

    Raises
    ------
    StateError
        If it isn't there, or can't be read.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    artifacts, pointers = _read(settings, bandit)
    wanted = version or pointers.get(bandit, "")
    if (bandit, wanted) not in artifacts:
        known = ", ".join(name for _, name in artifacts) or "none"
        raise StateError(
            f"bandit {bandit!r} has no snapshot {wanted or '(current)'}; kept: {known}; "
            "run 'bandstand snapshot list'"
        )
    return _decode(artifacts[bandit, wanted].value, wire_from(settings))


def _read(
    settings: Settings, only: str | None
) -> tuple[dict[tuple[str, str], _Kept], dict[str, str]]:
    artifacts: dict[tuple[str, str], _Kept] = {}
    pointers: dict[str, str] = {}
    wire = wire_from(settings)
    reader = TopicReader(settings, TopicNames(settings.topics.prefix).snapshots)
    try:
        for message in reader.read_to_end(_READ_S):
            origin = origin_of(message)
            bandit, version = parse_artifact_key(origin.key or b"")
            if only not in (None, bandit):
                continue
            if version is None:
                pointers[bandit] = pointer_version(origin.value, wire)
            elif origin.value is None:
                artifacts.pop((bandit, version), None)
            else:
                artifacts[bandit, version] = _Kept(origin.value, origin.timestamp)
    finally:
        reader.close()
    return artifacts, pointers


def _decode(value: bytes, wire: Wire) -> dict[str, Any]:
    try:
        return wire.loads("snapshot", value)
    except EventError as error:
        raise StateError(f"snapshots has an artifact that can't be read: {error}") from None


def _info(snapshot: dict[str, Any], kept: _Kept, current: bool) -> SnapshotInfo:
    return SnapshotInfo(
        snapshot["bandit"],
        snapshot["version"],
        current,
        snapshot["epoch"],
        snapshot["outcomes"],
        snapshot["parent"],
        snapshot["policy"],
        kept.published,
        len(kept.value),
    )
