"""What is to be published: from sums and specs to snapshots, never one older than the current.

Pure: it takes records of ``learner-state`` and of ``snapshots``, and gives records for
``snapshots``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import attrgetter
from typing import Any, NamedTuple

from bandstand.errors import EventError, SpecError, StateError
from bandstand.learners.drift import Change, look
from bandstand.learners.policies import Solution, resume
from bandstand.learners.snapshots import Before, build, newer, rank, version_of
from bandstand.learners.statistics import Statistics
from bandstand.schemas.topics import artifact_key, pointer_key
from bandstand.schemas.wire import Wire
from bandstand.streams.in_force import InForce
from bandstand.streams.learner_records import PartitionSums, Place, SumsTable, is_position

__all__ = ["PublishCore", "Published", "parse_artifact_key", "pointer_version"]


class Published(NamedTuple):
    """A snapshot to be written: first the artifact, then the pointer, then the deletions.

    Parameters
    ----------
    bandit, version
        Which one.
    snapshot
        The record.
    records
        Key and value of each record for ``snapshots``, in this order.
    changes
        Of rewards, found since the snapshot before.
    """

    bandit: str
    version: str
    snapshot: dict[str, Any]
    records: list[tuple[bytes, bytes | None]]
    changes: list[Change]

    @property
    def size(self) -> int:
        """Bytes of its records' values."""
        return sum(len(value) for _, value in self.records if value is not None)


@dataclass
class _Shelf:
    """What ``snapshots`` holds of one bandit."""

    current: str = ""
    artifacts: deque[str] = field(default_factory=deque)
    values: dict[str, bytes] = field(default_factory=dict)
    """What the next one is to be near: the current artifact, and one that no pointer names yet."""


class PublishCore:
    """Decides what is published, for the bandits whose sums it is given.

    Parameters
    ----------
    wire
        How records are framed.
    keep_artifacts
        Artifacts a bandit that stay, the current one included, at least 1.
    lanes
        Number of outcome partitions of each lane.
    least_outcomes
        How many more outcomes than the current snapshot of its epoch the next one must have, at
        least 1. The first of an epoch needs none.
    """

    def __init__(
        self, wire: Wire, keep_artifacts: int, lanes: Mapping[str, int], least_outcomes: int = 1
    ) -> None:
        self._wire = wire
        self._keep = keep_artifacts
        self._lanes = lanes
        self._least = least_outcomes
        self._tables: dict[int, SumsTable] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._in_force: Mapping[str, InForce] = {}
        self._changed: set[str] = set()
        self._solutions: dict[str, tuple[int, Solution]] = {}
        self._looked: dict[str, tuple[int, int]] = {}

    def follow(self, specs: Mapping[str, InForce], changed: Collection[str]) -> None:
        """Take the specs in force; `changed` are the bandits whose spec is another one now."""
        self._in_force = dict(specs)  # theirs may change before the next call tells of it
        self._changed.update(changed)
        for bandit in changed:
            if bandit in self._shelves and not self._smooths(bandit):
                self._shelves[bandit].values.clear()

    def take_state(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Take a record of a partition of ``learner-state``.

        Raises
        ------
        StateError
            If it isn't what a learner wrote.
        """
        if is_position(key):
            return
        place = self._tables.setdefault(partition, SumsTable(self._wire)).take(key, value)
        if place is not None:
            self._changed.add(place.bandit)

    def forget_state(self, partition: int) -> None:
        """Drop a partition of ``learner-state``: it is somebody else's now."""
        table = self._tables.pop(partition, None)
        for place in table.places() if table else ():
            self._solutions.pop(place.bandit, None)

    def forget_snapshots(self) -> None:
        """Drop what is known of ``snapshots``, before it is read anew."""
        self._shelves.clear()

    def take_snapshot(self, key: bytes, value: bytes | None) -> None:
        """Take a record of ``snapshots``, also one that this core has given.

        Raises
        ------
        StateError
            If it can't be read.
        """
        bandit, version = parse_artifact_key(key)
        shelf = self._shelves.setdefault(bandit, _Shelf())
        if version is None:
            current = pointer_version(value, self._wire)
            shelf.current = current
            shelf.values = {v: kept for v, kept in shelf.values.items() if v == current}
        elif value is None:
            shelf.artifacts = deque(kept for kept in shelf.artifacts if kept != version)
            shelf.values.pop(version, None)
        else:
            if version not in shelf.artifacts:
                shelf.artifacts.append(version)
            if self._smooths(bandit):
                shelf.values[version] = value

    def misses_snapshots(self) -> bool:
        """Tell whether one is to be near a snapshot that was passed over, so read them anew."""
        return any(
            shelf.current and shelf.current not in shelf.values and self._smooths(bandit)
            for bandit, shelf in self._shelves.items()
        )

    @property
    def changed(self) -> list[str]:
        """Bandits that may have a newer snapshot."""
        return sorted(self._changed)

    def publish(self, bandit: str, partition: int) -> Published | None:
        """Give the bandit's newest snapshot; None where there is none that is due.

        The first one of an epoch waits for all outcome partitions, if an older epoch's has learned
        something: that one serves until the new one knows all that is retained.

        Parameters
        ----------
        bandit
            Its name.
        partition
            Its partition in ``learner-state``.

        Raises
        ------
        StateError
            If its posterior can't be solved, or its lane isn't set up; it isn't due again until it
            changes.
        """
        self._changed.discard(bandit)
        in_force = self._in_force.get(bandit)
        if in_force is None:
            return None
        spec, epoch = in_force.spec, in_force.epoch
        parts = sorted(self._parts(bandit, in_force, partition), key=attrgetter("partition"))
        first, *others = [part.statistics for part in parts] or [Statistics.empty(spec)]
        merged = reduce(Statistics.merge, others, first)
        shelf = self._shelves.setdefault(bandit, _Shelf())
        if self._waits(in_force, shelf.current, {part.partition for part in parts}):
            return None
        if self._too_few(epoch, merged.outcomes, shelf.current):
            return None
        version = version_of(epoch, merged.outcomes, merged.digest())
        if not newer(version, shelf.current):
            return None
        offsets = {part.partition: part.next_offset for part in parts}
        solved = self._resume(bandit, in_force, merged).solved
        before = self._before(bandit, shelf)
        snapshot = build(spec, merged, epoch, shelf.current, offsets, solved, before)
        changes = self._look(bandit, in_force, merged)
        return Published(bandit, version, snapshot, self._records(shelf, snapshot), changes)

    def _waits(self, in_force: InForce, current: str, partitions: Collection[int]) -> bool:
        count = self._lanes.get(in_force.spec.lane)
        if count is None:
            raise StateError(
                f"{in_force.spec.bandit!r} is in the lane {in_force.spec.lane!r}, which isn't set"
                f" up here; known: {', '.join(self._lanes)}; give publishers the settings of all"
            )
        epoch, outcomes = rank(current)
        return epoch < in_force.epoch and outcomes > 0 and len(partitions) < count

    def _too_few(self, epoch: int, outcomes: int, current: str) -> bool:
        of, known = rank(current)
        return epoch == of and outcomes - known < self._least

    def _resume(self, bandit: str, in_force: InForce, merged: Statistics) -> Solution:
        """Solve what has changed since the bandit was solved last in this epoch."""
        spec, epoch = in_force.spec, in_force.epoch
        known = self._solutions.pop(bandit, None)
        before = known[1] if known and known[0] == epoch else None
        solution = resume(spec, merged, before, in_force.evidence)
        self._solutions[bandit] = epoch, solution
        return solution

    def _smooths(self, bandit: str) -> bool:
        in_force = self._in_force.get(bandit)
        return in_force is not None and in_force.spec.smoothing is not None

    def _before(self, bandit: str, shelf: _Shelf) -> Before | None:
        """Give the snapshot that the next one is to be near."""
        if not shelf.current or not self._smooths(bandit):
            return None
        try:
            snapshot = self._wire.loads("snapshot", shelf.values[shelf.current])
            return Before.of(snapshot)
        except (KeyError, EventError, SpecError, StateError) as error:
            raise StateError(
                f"the current snapshot {shelf.current!r} of {bandit!r} can't be read, so the next"
                f" one can't be near it: {error!r}; apply a spec without smoothing"
            ) from error

    def _look(self, bandit: str, in_force: InForce, merged: Statistics) -> list[Change]:
        """Look for changes of rewards that weren't there when it was last looked in this epoch."""
        epoch, last = self._looked.get(bandit, (in_force.epoch, -1))
        last = last if epoch == in_force.epoch else -1
        step, found = look(in_force.spec, merged.sums, merged.newest, last)
        self._looked[bandit] = in_force.epoch, step
        return found

    def _parts(self, bandit: str, in_force: InForce, partition: int) -> Iterator[PartitionSums]:
        table = self._tables.get(partition)
        if table is None:
            return
        spec, epoch = in_force.spec, in_force.epoch
        for place in table.places_of(bandit):
            if _fits(place, in_force) and table.epoch(place) == epoch:
                yield table.sums(place, spec)

    def _records(self, shelf: _Shelf, snapshot: dict[str, Any]) -> list[tuple[bytes, bytes | None]]:
        bandit, version = snapshot["bandit"], snapshot["version"]
        pointer = {"bandit": bandit, "version": version, "reason": "published"}
        old = [kept for kept in shelf.artifacts if kept not in (version, shelf.current)]
        surplus = len(old) + 1 + bool(shelf.current) - self._keep
        return [
            (artifact_key(bandit, version), self._wire.dumps("snapshot", snapshot)),
            (pointer_key(bandit), self._wire.dumps("snapshot_pointer", pointer)),
            *((artifact_key(bandit, gone), None) for gone in old[: max(0, surplus)]),
        ]


def pointer_version(value: bytes | None, wire: Wire) -> str:
    """Read which version a pointer names; empty where there is none.

    Raises
    ------
    StateError
        If it can't be read.
    """
    if value is None:
        return ""
    try:
        return str(wire.loads("snapshot_pointer", value)["version"])
    except EventError as error:
        raise StateError(f"snapshots has a pointer that can't be read: {error}") from None


def parse_artifact_key(key: bytes) -> tuple[str, str | None]:
    """Take a key of ``snapshots`` apart: bandit and version, or bandit and None for a pointer.

    Raises
    ------
    StateError
        If it isn't UTF-8.

    Examples
    --------
    >>> parse_artifact_key(b"home|3-1200-0f"), parse_artifact_key(b"home")
    (('home', '3-1200-0f'), ('home', None))
    """
    try:
        bandit, mark, version = key.decode().partition("|")
    except UnicodeDecodeError:
        raise StateError(
            f"snapshots has a record under the key {key!r}; allowed: bandit and bandit|version; "
            "only publishers may write there: delete it with a record of that key without a value"
        ) from None
    return bandit, version if mark else None


def _fits(place: Place, in_force: InForce) -> bool:
    return place.spec_hash == in_force.spec.hash and place.lane == in_force.spec.lane
