"""What the learner's pure core makes of an outcome topic alone, at any of its offsets."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bandstand.learners.statistics import Statistics
from bandstand.schemas.wire import Wire
from bandstand.streams.in_force import InForce
from bandstand.streams.join_types import Record
from bandstand.streams.learn_core import LearnCore, Refused
from bandstand.streams.learner_records import PartitionSums, Position

__all__ = ["Truth", "merged"]

_WIRE = Wire.single_object()


class _State(NamedTuple):
    """What one core has come to."""

    position: Position
    held: Mapping[str, PartitionSums]


class _Generation(NamedTuple):
    """The specs in force at one time, and the states of their cores by partition, ascending."""

    specs: Mapping[str, InForce]
    states: list[list[_State]]


class Truth:
    """The outcome topic as it grows, and one core a partition, made anew where asked for.

    Parameters
    ----------
    lane, partitions
        Whose outcomes.
    """

    def __init__(self, lane: str, partitions: int) -> None:
        self._lane = lane
        self._records: list[list[Record]] = [[] for _ in range(partitions)]
        self._bare = [LearnCore(lane, p, _WIRE, Position(0)) for p in range(partitions)]
        self._generations = [_Generation({}, [[_State(Position(0), {})] for _ in self._records])]

    def add(self, partition: int, records: Sequence[Record]) -> list[Refused]:
        """Take the next records of a partition; give those that must have a letter."""
        self._records[partition] += records
        return self._bare[partition].learn(records).refused

    def follow(self, specs: Mapping[str, InForce]) -> None:
        """Take the specs in force; those before may still be asked for."""
        before = [states[0] for states in self._generations[-1].states]
        states = [[self._under(specs, p, state)] for p, state in enumerate(before)]
        self._generations.append(_Generation(dict(specs), states))

    @property
    def ends(self) -> list[int]:
        """The offset after the last record of each partition."""
        return [len(records) for records in self._records]

    def position(self, partition: int, offset: int) -> Position:
        """Give the position after all records before an offset."""
        return self._state(self._generations[-1], partition, offset).position

    def at(self, partition: int, in_force: InForce, offset: int) -> Statistics:
        """Give what a bandit has learned, under a spec, from all records before an offset.

        The offset is not before the ends at the last `forget`.
        """
        bandit = in_force.spec.bandit
        found = next(g for g in reversed(self._generations) if g.specs.get(bandit) == in_force)
        return self._state(found, partition, offset).held[bandit].statistics

    def total(self, in_force: InForce) -> Statistics:
        """Give what a bandit has learned, under a spec, from the whole topic."""
        return merged(in_force, (self.at(p, in_force, end) for p, end in enumerate(self.ends)))

    def forget(self) -> None:
        """Keep what all has come to: nobody asks for what was before."""
        newest = self._generations[-1]
        ends = [[self._state(newest, p, end)] for p, end in enumerate(self.ends)]
        self._generations = [_Generation(newest.specs, ends)]

    def _state(self, generation: _Generation, partition: int, offset: int) -> _State:
        states = generation.states[partition]
        at = bisect.bisect_right(states, offset, key=lambda state: state.position.next_offset)
        before = states[at - 1]
        if before.position.next_offset != offset:
            core = self._core(generation.specs, partition, before)
            core.learn(self._records[partition][before.position.next_offset : offset])
            states.insert(at, _State(core.position, dict(core.held)))
            return states[at]
        return before

    def _under(self, specs: Mapping[str, InForce], partition: int, before: _State) -> _State:
        """Give the same state as others specs have it: what is new in them is learned anew."""
        core = self._core(specs, partition, before)
        if core.missing:
            fresh = self._core(core.missing, partition, _State(Position(0), {}))
            fresh.open()
            fresh.learn(self._records[partition][: before.position.next_offset])
            core.adopt(fresh)
        return _State(before.position, dict(core.held))

    def _core(self, specs: Mapping[str, InForce], partition: int, before: _State) -> LearnCore:
        held = before.held.values()
        core = LearnCore(self._lane, partition, _WIRE, before.position, held)
        core.follow(specs)
        return core


def merged(in_force: InForce, parts: Iterable[Statistics]) -> Statistics:
    """Add up what partitions have taught."""
    total = Statistics.empty(in_force.spec)
    for part in parts:
        total = total.merge(part)
    return total
