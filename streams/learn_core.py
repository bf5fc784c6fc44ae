"""The learner of one outcome partition: records in, sums and a position out, nothing else.

What it holds is a function of the records before its position and of the specs in force: how they
are cut into batches, and where it was stopped and restored, changes no bit. A spec whose outcomes
may have been passed already is learned from those that are retained by a second core, which this
one then adopts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.errors import EventError, LogGapError, StateError
from bandstand.learners.inherit import inherited, only
from bandstand.learners.reading import likeness
from bandstand.learners.statistics import Statistics, update_together
from bandstand.schemas.columns import columns
from bandstand.schemas.wire import Wire
from bandstand.streams.in_force import InForce
from bandstand.streams.join_types import Record, parse_tail
from bandstand.streams.learner_records import (
    PartitionSums,
    Position,
    position_key,
    position_record,
    sums_keys,
    sums_records,
)

__all__ = ["LearnCore", "Learned", "Refused", "Write"]


class Refused(NamedTuple):
    """A record that is neither an outcome nor a progress record."""

    record: Record
    error: EventError


class Learned(NamedTuple):
    """What a batch was made of.

    Parameters
    ----------
    outcomes
        Outcomes by what became of them: ``learned``, ``rejected`` (by the statistics, which keep
        the reasons as counters), ``later`` (of a bandit that is still being built from the start),
        ``unclaimed`` (of a bandit without a spec in this lane, or of a decision from before it
        came), ``oversize``, ``repeat``, ``refused``.
    counters
        By how much the statistics' counters have grown, over all bandits.
    refused
        The refused ones.
    """

    outcomes: Counter[str]
    counters: Counter[str]
    refused: list[Refused]


class Write(NamedTuple):
    """A record for ``learner-state``; `owner` says by which name its partition is chosen."""

    owner: bytes
    key: bytes
    value: bytes | None


class LearnCore:
    """What one outcome partition has taught, and how far it has been read.

    Parameters
    ----------
    lane, partition
        Which outcome partition.
    wire
        How outcomes, sums and positions are framed.
    position
        Where to go on.
    held
        The sums of the epochs in force, as they were at that position.
    stale
        Keys in ``learner-state`` that hold sums of epochs gone by, with their bandit.
    """

    def __init__(
        self,
        lane: str,
        partition: int,
        wire: Wire,
        position: Position,
        held: Iterable[PartitionSums] = (),
        stale: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        self.lane = lane
        self.partition = partition
        self.position = position
        self._wire = wire
        self._held = {sums.statistics.spec.bandit: sums for sums in held}
        self._in_force: dict[str, InForce] = {}
        self._stale = {key: bandit for bandit, key in stale}
        self._changed: set[str] = set()
        self._firsts: dict[str, int] = {}
        """Decision offsets from which on bandits count that came after the largest taken."""
        self._last_first = -1
        self.newest: int | None = None
        """Newest decision time that was learned from, ms since 1970."""
        self._note_newest(self._held.values())
        self._written = position

    @property
    def held(self) -> Mapping[str, PartitionSums]:
        """The sums, by bandit."""
        return self._held

    @property
    def missing(self) -> dict[str, InForce]:
        """Specs in force in this lane that have no sums yet: `open` them, or `adopt` a rebuild.

        Where older sums go on, only the actions that are new are missing. A bandit none of whose
        decisions can have been passed isn't: `follow` has opened it.
        """
        missing = {}
        for bandit, in_force in self._in_force.items():
            held = self._held.get(bandit)
            if held is None:
                missing[bandit] = in_force
            elif held.epoch != in_force.epoch:
                added = set(in_force.spec.actions).difference(in_force.kept(held.epoch))
                spec, starts = only(in_force.spec, added), in_force.starts
                missing[bandit] = InForce(spec, in_force.epoch, starts=starts)
        return missing

    @property
    def full(self) -> frozenset[str]:
        """Bandits that learn nothing more here, see `Statistics.full`."""
        return frozenset(b for b, sums in self._held.items() if sums.statistics.full)

    @property
    def unwritten(self) -> bool:
        """Whether there is anything that `writes` would give."""
        return bool(self._changed or self._stale) or self.position != self._written

    def follow(self, specs: Mapping[str, InForce]) -> None:
        """Take the specs in force.

        Sums that another spec can't go on with are dropped. Where it can, they become its own, at
        once if it has no new actions; otherwise they go on being learned until those are, too.

        Parameters
        ----------
        specs
            All of them, by bandit.
        """
        self._in_force = {b: f for b, f in specs.items() if f.spec.lane == self.lane}
        for bandit, sums in list(self._held.items()):
            in_force = self._in_force.get(bandit)
            if in_force is None or not _goes_on(sums, in_force):
                self._drop(bandit)
            elif (
                sums.epoch != in_force.epoch and in_force.kept(sums.epoch) == in_force.spec.actions
            ):
                self._settle(bandit, None)
        firsts = {b: f.start(self.partition).decision for b, f in self._in_force.items()}
        taken = self.position.source_offset
        self._firsts = {bandit: first for bandit, first in firsts.items() if first > taken}
        self._last_first = max(self._firsts.values(), default=-1)
        for bandit in self._firsts.keys() - self._held.keys():
            self._settle(bandit, Statistics.empty(self._in_force[bandit].spec))

    def open(self) -> None:
        """Begin what is `missing` with empty sums: right where nothing retained was passed over."""
        for bandit, in_force in self.missing.items():
            self._settle(bandit, Statistics.empty(in_force.spec))

    def adopt(self, rebuilt: LearnCore) -> None:
        """Take over sums that another core has built up to this position.

        Raises
        ------
        StateError
            If it stands elsewhere.
        """
        mine = (self.lane, self.partition, self.position.next_offset)
        theirs = (rebuilt.lane, rebuilt.partition, rebuilt.position.next_offset)
        if mine != theirs:
            raise StateError(f"sums built up to {theirs} can't be added at {mine}")
        for bandit, in_force in self.missing.items():
            sums = rebuilt.held.get(bandit)
            if sums is not None and _is_of(sums, in_force):
                self._settle(bandit, sums.statistics)

    def learn(self, records: Sequence[Record]) -> Learned:
        """Read on.

        Parameters
        ----------
        records
            The next records of the partition; those read before are passed over.

        Raises
        ------
        LogGapError
            If offsets are missing.
        """
        records = self._fresh(records)
        if not records:
            return Learned(Counter(), Counter(), [])
        refused: list[Refused] = []
        complete = [self.position.complete_to, *self._progress(records, refused)]
        rows = [record for record in records if record.value is not None]
        batch = columns("outcome", [record.value for record in rows], self._wire)
        refused += [Refused(rows[bad.index], bad.error) for bad in batch.bad]
        table, source_offset = _increasing(batch.table, self.position.source_offset)
        counts = Counter(repeat=batch.table.num_rows - table.num_rows, refused=len(refused))
        counting = self._counting(table)
        counts["unclaimed"] += table.num_rows - counting.num_rows
        counters = self._update(counting, counts)
        complete.append(pc.max(table["before"].cast(pa.int64())).as_py())
        self.position = Position(
            records[-1].offset + 1,
            source_offset,
            max((time for time in complete if time is not None), default=None),
        )
        return Learned(+counts, +counters, refused)

    def writes(self) -> Iterator[Write]:
        """Give all that has changed since `written`: for one transaction."""
        live: set[bytes] = set()
        for bandit in sorted(self._changed):
            sums = replace(self._held[bandit], next_offset=self.position.next_offset)
            for key, value in sums_records(sums, self._wire):
                live.add(key)
                yield Write(bandit.encode(), key, value)
        for bandit, sums in self._held.items():
            if self._stale and bandit not in self._changed:
                live.update(sums_keys(sums))
        for key, bandit in self._stale.items():
            if key not in live:
                yield Write(bandit.encode(), key, None)
        key = position_key(self.lane, self.partition)
        yield Write(key, key, position_record(self.lane, self.partition, self.position, self._wire))

    def written(self) -> None:
        """Note that the transaction with `writes` was committed."""
        self._changed.clear()
        self._stale.clear()
        self._written = self.position

    def _settle(self, bandit: str, learned: Statistics | None) -> None:
        """Hold sums of the epoch in force: older ones that go on, and what was `missing`."""
        in_force, old = self._in_force[bandit], self._held.get(bandit)
        statistics = learned
        if old is not None:
            kept = in_force.kept(old.epoch)
            statistics = inherited(in_force.spec, old.statistics, kept, learned)
            self._drop(bandit)
        assert statistics is not None
        place = (self.lane, self.partition, in_force.epoch, self.position.next_offset)
        sums = self._held[bandit] = PartitionSums(*place, statistics)
        self._changed.add(bandit)
        self._note_newest([sums])

    def _drop(self, bandit: str) -> None:
        self._stale.update(dict.fromkeys(sums_keys(self._held[bandit]), bandit))
        self._changed.discard(bandit)
        del self._held[bandit]

    def _fresh(self, records: Sequence[Record]) -> list[Record]:
        expected = self.position.next_offset
        fresh: list[Record] = []
        for record in records:
            if record.offset > expected:
                raise LogGapError(
                    f"outcomes of lane {self.lane!r}, partition {self.partition}, jump: expected "
                    f"offset {expected}, got {record.offset}; records were deleted before they "
                    "were learned; nothing is skipped silently"
                )
            if record.offset == expected:
                fresh.append(record)
                expected += 1
        return fresh

    def _progress(self, records: Sequence[Record], refused: list[Refused]) -> Iterator[int | None]:
        for record in records:
            if record.value is None:
                try:
                    yield parse_tail(record, self._wire).before
                except StateError as error:
                    refused.append(Refused(record, EventError("progress", str(error))))

    def _counting(self, table: pa.RecordBatch) -> pa.RecordBatch:
        """Drop the outcomes of decisions that came before their bandit."""
        if self._last_first <= self.position.source_offset:
            return table
        bandits = pc.struct_field(table["decision"], "bandit").dictionary_encode()
        names = bandits.dictionary.to_pylist()
        first = np.array([*(self._firsts.get(name, 0) for name in names), 0])
        codes = bandits.indices.fill_null(len(names)).to_numpy()
        return table.filter(pa.array(table["source_offset"].to_numpy() >= first[codes]))

    def _update(self, table: pa.RecordBatch, counts: Counter[str]) -> Counter[str]:
        bandits = pc.struct_field(table["decision"], "bandit")
        counts["oversize"] += bandits.null_count
        updated: dict[str, PartitionSums] = {}
        counters: Counter[str] = Counter()
        for names, edges, part in self._alike(
            table.select(["rewards", "decision"]), bandits, counts
        ):
            held = [self._held[name] for name in names]
            grown = update_together([sums.statistics for sums in held], edges, part)
            for name, sums, after in zip(names, held, grown, strict=True):
                updated[name] = replace(sums, statistics=after)
                if after.counters is not sums.statistics.counters:
                    counters.update(after.counters)
                    counters.subtract(sums.statistics.counters)
            learned = sum(
                a.outcomes - s.statistics.outcomes for a, s in zip(grown, held, strict=True)
            )
            counts["learned"] += learned
            counts["rejected"] += part.num_rows - learned
        self._held.update(updated)
        self._changed.update(updated)
        self._note_newest(updated.values())
        return counters

    def _alike(
        self, table: pa.RecordBatch, bandits: pa.StringArray, counts: Counter[str]
    ) -> Iterator[tuple[list[str], npt.NDArray[np.int64], pa.RecordBatch]]:
        """Give bandits that are read together, where the rows of each begin, and their rows.

        Rows keep their order within a bandit. Those of bandits without sums are counted, and those
        without a bandit left out.
        """
        encoded = bandits.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = encoded.indices.fill_null(len(names)).to_numpy()
        sizes = np.bincount(codes, minlength=len(names) + 1)
        groups: dict[str, list[int]] = {}
        for code, name in enumerate(names):
            if name in self._held:
                alike = likeness(self._held[name].statistics.spec)
                groups.setdefault(alike, []).append(code)
            else:
                counts["later" if name in self._in_force else "unclaimed"] += int(sizes[code])
        ranked = [code for group in groups.values() for code in group]
        ranks = np.full(len(names) + 1, len(ranked))
        ranks[ranked] = np.arange(len(ranked))
        edges = np.concatenate([[0], sizes[ranked].cumsum()])
        if len(ranked) > 1 or edges[-1] < table.num_rows:
            order = np.argsort(ranks[codes], kind="stable")[: edges[-1]]
            table = table.take(pa.array(order))
        first = 0
        for group in groups.values():
            bounds = edges[first : first + len(group) + 1]
            first += len(group)
            part = table.slice(bounds[0], bounds[-1] - bounds[0])
            yield [names[code] for code in group], bounds - bounds[0], part

    def _note_newest(self, changed: Iterable[PartitionSums]) -> None:
        times = [self.newest, *(sums.statistics.newest for sums in changed)]
        self.newest = max((time for time in times if time is not None), default=None)


def _goes_on(sums: PartitionSums, in_force: InForce) -> bool:
    return sums.epoch == in_force.epoch or in_force.ancestor(sums.epoch) is not None


def _is_of(sums: PartitionSums, in_force: InForce) -> bool:
    return sums.epoch == in_force.epoch and sums.statistics.spec == in_force.spec


def _increasing(table: pa.RecordBatch, largest: int) -> tuple[pa.RecordBatch, int]:
    """Drop the outcomes that don't increase the source offset; give the largest one too."""
    offsets = table["source_offset"].to_numpy()
    reached = np.maximum.accumulate(np.concatenate([[largest], offsets]))
    fresh = offsets > reached[:-1]
    return (table if fresh.all() else table.filter(pa.array(fresh))), int(reached[-1])
