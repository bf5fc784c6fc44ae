"""From decisions that are due and their rewards to outcomes, many at once."""

from __future__ import annotations

from operator import add

from bandstand.schemas.wire import Wire
from bandstand.streams import splice
from bandstand.streams.due_queue import Line
from bandstand.streams.join_types import Output
from bandstand.streams.reward_index import RewardIndex

__all__ = ["Emitter"]

_AROUND_BYTES = 64
"""More than an outcome without rewards has besides its rules and its decision."""


class Emitter:
    """Writes the outcomes of one partition.

    Parameters
    ----------
    wire
        How events are framed.
    max_outcome_bytes
        Outcomes whose key and value have more become stubs.
    index
        Where rewards wait.
    """

    def __init__(self, wire: Wire, max_outcome_bytes: int, index: RewardIndex) -> None:
        self._header = wire.header("outcome")
        self._skip = len(wire.header("decision"))
        self._max_outcome_bytes = max_outcome_bytes
        self._index = index

    def pass_by(self, line: Line, start: int, end: int) -> None:
        """Judge rewards by decisions whose outcomes are there from an owner before."""
        for row in self._index.awaiting(line.decisions.keys[start:end]):
            self._index.take(*line.judged(start + row), None)

    def emit(self, line: Line, start: int, end: int, output: Output) -> None:
        """Add the outcomes of a line's rows, from `start` up to, not including, `end`."""
        if start == end:
            return
        rows, header, skip = line.decisions.cut(start, end), self._header, self._skip
        values = splice.defaulted(rows.offsets, line.rules, rows.frames, skip, header)
        joined = set()
        # No key is longer than the decision that has it.
        longest = 2 * int(rows.sizes.max()) + len(line.rules) + _AROUND_BYTES
        for row in self._index.awaiting(rows.keys):
            rewards = self._index.take(*line.judged(start + row), output.rewards)
            if rewards:
                joined.add(row)
                decided = int(rows.times[row])
                output.delays.extend([reward.ts - decided for reward in rewards])
                offset, decision = int(rows.offsets[row]), rows.frames[row][skip:]
                parts = [reward.part for reward in rewards]
                values[row] = splice.joined(offset, line.rules, parts, decision, header)
                longest = max(longest, len(rows.keys[row]) + len(values[row]))
        oversize = self._too_large(rows.keys, values) if longest > self._max_outcome_bytes else ()
        for row in oversize:
            values[row] = splice.oversize(int(rows.offsets[row]), line.rules, header)
        for state, many in (
            ("oversize", len(oversize)),
            ("joined", len(joined.difference(oversize))),
            ("defaulted", len(values) - len(joined.union(oversize))),
        ):
            if many:
                output.decisions[state] += many
        output.emissions.keys.extend(rows.keys)
        output.emissions.timestamps.extend(rows.times.tolist())
        output.emissions.values.extend(values)

    def _too_large(self, keys: list[bytes], values: list[bytes]) -> set[int]:
        sizes = map(add, map(len, keys), map(len, values))
        return {row for row, size in enumerate(sizes) if size > self._max_outcome_bytes}
