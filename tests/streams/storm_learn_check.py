"""Holds what learners and publishers wrote against the pure core's reading of the outcomes alone.

Everything is judged at the offset that it names, whatever order the topics are read in: records
wait until the outcomes and specs that they speak of are there.
"""

from __future__ import annotations

import bisect
from collections import Counter, deque
from collections.abc import Iterable
from hashlib import sha256
from itertools import pairwise
from typing import Any

from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames, artifact_key
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams.in_force import InForce, Start
from bandstand.streams.join_types import Record
from bandstand.streams.learner_records import (
    PartitionSums,
    SumsTable,
    is_position,
    position_key,
    position_of,
)
from tests.streams.storm_follower import Arrival, DifferenceError
from tests.streams.storm_learn_load import LANE, Tally
from tests.streams.storm_learn_truth import Truth, merged
from tests.streams.storm_letters import Letters

__all__ = ["Checks", "version_of"]

_WIRE = Wire.single_object()


class Checks:
    """All that follows from a lane's outcomes: sums, positions, snapshots, dead letters.

    Parameters
    ----------
    settings
        The lane's; it is called ``default``.
    tally
        What was written.
    """

    def __init__(self, settings: Settings, tally: Tally) -> None:
        names = TopicNames(settings.topics.prefix)
        self.outcomes, self._letter_topic = names.outcomes(LANE), names.dead_letters
        self._specs, self._state, self._snapshots = (
            names.specs,
            names.learner_state,
            names.snapshots,
        )
        self._tally = tally
        self._partitions = settings.lanes[LANE].partitions
        self.truth = Truth(LANE, self._partitions)
        self.letters = Letters()
        self.in_force: dict[str, InForce] = {}
        self.counts: Counter[str] = Counter()
        self._epochs: dict[int, InForce] = {}
        self._next: Counter[int] = Counter()
        self._waiting: dict[int, deque[Record]] = {}
        self._tables: dict[int, SumsTable] = {}
        self._positions: dict[int, list[int]] = {p: [0] for p in range(self._partitions)}
        self._committed: set[tuple[int, int]] = set()
        """Each outcome partition with each of its positions."""
        self._sums: dict[tuple[int, int], dict[int, Statistics]] = {}
        """By epoch and outcome partition: its sums in this round by offset, ascending."""
        self._artifacts: dict[tuple[str, str], bytes] = {}
        self._kept: set[tuple[str, str]] = set()
        self._pointers: dict[str, str] = {}
        self._unjudged: deque[dict[str, Any]] = deque()

    @property
    def topics(self) -> list[str]:
        """What must be followed."""
        return [self.outcomes, self._specs, self._state, self._snapshots, self._letter_topic]

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """Check what came.

        Raises
        ------
        DifferenceError
            At the first thing that isn't as it must be.
        """
        outcomes: dict[int, list[Record]] = {}
        for topic, partition, _, record in arrivals:
            if topic == self.outcomes:
                self._follow(partition, record)
                self._tally.read(partition, record)
                outcomes.setdefault(partition, []).append(record)
            elif topic == self._specs:
                self._spec(record)
            elif topic == self._state:
                self._waiting.setdefault(partition, deque()).append(record)
            elif topic == self._snapshots:
                self._snapshot(record)
            else:
                self.letters.take(record)
        for partition, records in outcomes.items():
            place = f"{self.outcomes}/{partition}"
            for refused in self.truth.add(partition, records):
                self.letters.refuse(place, refused.record, refused.error.reason)
        for partition, waiting in self._waiting.items():
            while waiting and self._judge_state(partition, waiting[0]):
                waiting.popleft()
        while self._unjudged and self._judge_snapshot(self._unjudged[0]):
            self._unjudged.popleft()

    @property
    def unfinished(self) -> str:
        """What is still to come; empty where nothing is."""
        ends = dict(enumerate(self.truth.ends))
        unread = {p: end for p, end in self._tally.ends.items() if ends[p] < end}
        if unread:
            return f"outcomes were delivered up to {unread}, those that are there end at {ends}"
        behind = {
            place: f"{positions[-1]} of {end}"
            for place, (positions, end) in enumerate(
                zip(self._positions.values(), self.truth.ends, strict=True)
            )
            if positions[-1] != end
        }
        if behind:
            return f"partitions aren't learned to their end: {behind}"
        if self.epochs != self._tally.epochs:
            return f"the specs in force are {self.epochs}, those applied {self._tally.epochs}"
        parts = list(self.letters.unfinished)
        records = sum(map(len, self._waiting.values()))
        for what, count in (("records", records), ("snapshots", len(self._unjudged))):
            if count:
                parts.append(f"{count} {what} speak of what isn't there")
        return "; ".join(parts + self._unlearned() + self._unpublished())

    @property
    def epochs(self) -> dict[str, int]:
        """The epoch of each bandit."""
        return {bandit: in_force.epoch for bandit, in_force in self.in_force.items()}

    @property
    def pointers(self) -> dict[str, str]:
        """The version that each bandit's pointer names."""
        return dict(self._pointers)

    def close_round(self) -> None:
        """Check that state and positions never disagreed, and that all that can be was learned.

        Raises
        ------
        DifferenceError
            If they did, or a bandit learned more or less than there is for it.
        """
        for (epoch, partition), sums in self._sums.items():
            if foreign := {(partition, offset) for offset in sums} - self._committed:
                raise DifferenceError(
                    f"sums of epoch {epoch} stand at {sorted(foreign)} (partition, offset), where "
                    "no position was committed"
                )
            if epoch in self.epochs.values():
                self._hold_between(epoch, partition, sums)
        for bandit, in_force in self.in_force.items():
            wanted, found = self._tally.outcomes(in_force), self.truth.total(in_force).outcomes
            if wanted != found:
                raise DifferenceError(f"{bandit!r} learned {found} outcomes of {wanted}")
        for positions in self._positions.values():
            del positions[:-1]
        for sums in self._sums.values():
            for offset in list(sums)[:-1]:
                del sums[offset]
        self.truth.forget()

    def _hold_between(self, epoch: int, partition: int, sums: dict[int, Statistics]) -> None:
        """Check that sums not written with a position are those that were written before."""
        positions = self._positions[partition]
        for start, stop in pairwise([*sums, positions[-1] + 1]):
            last = positions[bisect.bisect_left(positions, stop) - 1]
            if start < last:
                now = _content(self.truth.at(partition, self._epochs[epoch], last))
                if now != _content(sums[start]):
                    raise DifferenceError(
                        f"partition {partition} stands at {last}, but sums of epoch {epoch} are "
                        f"those of {start}: {_content(sums[start])}; they must be {now}"
                    )

    def _follow(self, partition: int, record: Record) -> None:
        if record.offset != self._next[partition]:
            raise DifferenceError(
                f"{self.outcomes}/{partition}: offset {record.offset} comes instead of "
                f"{self._next[partition]}"
            )
        self._next[partition] += 1

    def _spec(self, record: Record) -> None:
        assert record.value is not None
        fields = _WIRE.loads("spec", record.value)
        spec = Spec.from_canonical(fields["spec"])
        starts = tuple(Start(**start) for start in fields["starts"])
        in_force = InForce(spec, record.offset, starts=starts)
        self._epochs[record.offset] = self.in_force[spec.bandit] = in_force
        self.truth.follow(self.in_force)

    def _judge_state(self, partition: int, record: Record) -> bool:
        """Judge a record of learner-state; False where it must wait."""
        key = record.key or b""
        if is_position(key):
            return self._judge_position(key, record.value or b"")
        if record.value is None:
            self._table(partition).take(key, None)
            return True
        head = _WIRE.loads("learner_state", record.value)
        known = head["epoch"] in self._epochs
        if not known or head["next_offset"] > self.truth.ends[head["partition"]]:
            return False
        table = self._table(partition)
        place = table.take(key, record.value)
        if place is not None:
            self._judge_sums(table.sums(place, self._epochs[head["epoch"]].spec))
        return True

    def _table(self, partition: int) -> SumsTable:
        return self._tables.setdefault(partition, SumsTable(_WIRE))

    def _judge_position(self, key: bytes, value: bytes) -> bool:
        keys = {position_key(LANE, p): p for p in range(self._partitions)}
        partition, position = keys[key], position_of(value, _WIRE)
        if position.next_offset > self.truth.ends[partition]:
            return False
        before = self._positions[partition]
        if position.next_offset < before[-1]:
            raise DifferenceError(
                f"partition {partition} steps back from {before[-1]} to {position.next_offset}"
            )
        wanted = self.truth.position(partition, position.next_offset)
        if position != wanted:
            raise DifferenceError(f"partition {partition}: {position}; it must be {wanted}")
        self.counts["positions"] += 1
        before.append(position.next_offset)
        self._committed.add((partition, position.next_offset))
        return True

    def _judge_sums(self, sums: PartitionSums) -> None:
        """Compare sums with those of the pure core at their offset."""
        epoch, partition, offset = sums.epoch, sums.partition, sums.next_offset
        wanted = _content(self.truth.at(partition, self._epochs[epoch], offset))
        found = _content(sums.statistics)
        whose = f"sums of {sums.statistics.spec.bandit!r}, epoch {epoch}, partition {partition}"
        if found != wanted:
            raise DifferenceError(f"{whose} at {offset}: {found}; they must be {wanted}")
        before = self._sums.setdefault((epoch, partition), {})
        if before and offset < (last := next(reversed(before))):
            raise DifferenceError(f"{whose} step back from {last} to {offset}")
        self.counts["sums"] += 1
        before[offset] = sums.statistics

    def _snapshot(self, record: Record) -> None:
        bandit, _, version = (record.key or b"").decode().partition("|")
        if not version:
            self._point(bandit, _WIRE.loads("snapshot_pointer", record.value or b"")["version"])
        elif record.value is None:
            if self._pointers.get(bandit) == version:
                raise DifferenceError(f"the current snapshot {bandit}|{version} was deleted")
            self._kept.discard((bandit, version))
        else:
            digest = sha256(record.value).digest()
            if self._artifacts.setdefault((bandit, version), digest) != digest:
                raise DifferenceError(f"snapshot {bandit}|{version} has two contents")
            self._kept.add((bandit, version))
            self._unjudged.append(_WIRE.loads("snapshot", record.value))
            if artifact_key(bandit, self._unjudged[-1]["version"]) != record.key:
                raise DifferenceError(f"snapshot {record.key!r} has another version in it")

    def _point(self, bandit: str, version: str) -> None:
        before = self._pointers.get(bandit, "")
        if before and _rank(version) < _rank(before):
            raise DifferenceError(f"the pointer of {bandit!r} steps back: {before}, {version}")
        if (bandit, version) not in self._kept:
            raise DifferenceError(f"the pointer of {bandit!r} names {version}, which isn't there")
        self.counts["pointers"] += 1
        self.counts["pointers repeated"] += version == before
        self._pointers[bandit] = version

    def _judge_snapshot(self, snapshot: dict[str, Any]) -> bool:
        """Compare a snapshot with what the pure core has at its offsets; False: it must wait."""
        epoch = snapshot["epoch"]
        in_force = self._epochs.get(epoch)
        offsets = {int(p): offset for p, offset in snapshot["source_offsets"].items()}
        parts = [self._sums.get((epoch, p), {}).get(at) for p, at in sorted(offsets.items())]
        known = [part for part in parts if part is not None]
        if in_force is None or len(known) < len(parts):
            return False
        total = merged(in_force, known)
        wanted = version_of(in_force, total), total.outcomes, total.digest(), total.newest
        found = tuple(snapshot[name] for name in ("version", "outcomes", "digest", "newest"))
        if found != wanted:
            raise DifferenceError(
                f"snapshot of {snapshot['bandit']!r} at {offsets}: {found}; it must be {wanted}"
            )
        self.counts["snapshots"] += 1
        return True

    def _unlearned(self) -> list[str]:
        """Name sums that aren't there, or are there although nobody needs them."""
        found = {
            (place.bandit, table.epoch(place), place.partition)
            for table in self._tables.values()
            for place in table.places()
        }
        wanted = {
            (bandit, epoch, p)
            for bandit, epoch in self.epochs.items()
            for p in range(self._partitions)
        }
        return [
            f"{len(which)} sums {what}, e.g. {min(which)}"
            for what, which in (("are missing", wanted - found), ("are stale", found - wanted))
            if which
        ]

    def _unpublished(self) -> list[str]:
        found = self.pointers
        return [
            f"the pointer of {bandit!r} names {found.get(bandit)}, not yet {version}"
            for bandit, version in self.versions().items()
            if found.get(bandit) != version
        ]

    def versions(self) -> dict[str, str]:
        """Give the version that each bandit must have once all outcomes are learned."""
        return {
            bandit: version_of(in_force, self.truth.total(in_force))
            for bandit, in_force in self.in_force.items()
        }


def _content(statistics: Statistics) -> tuple[str, int]:
    """Give what must be equal, also where a spec went on with the sums of the one before it."""
    return statistics.digest(), statistics.outcomes


def version_of(in_force: InForce, statistics: Statistics) -> str:
    """Name what was learned, as a snapshot of it must be named."""
    return f"{in_force.epoch}-{statistics.outcomes}-{statistics.digest()[:16]}"


def _rank(version: str) -> tuple[int, int]:
    epoch, outcomes, _ = version.split("-")
    return int(epoch), int(outcomes)
