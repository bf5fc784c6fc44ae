"""Blocks of time with sums of their own, so that old outcomes can be weighed less, or dropped.

Time is cut into steps; the newest outcome's decision is at step T. Blocks are aligned intervals of
``2**level`` steps, the wider the older: a step i belongs to the smallest level at which its block
is less than `SLOTS` blocks behind T's, ``(T >> level) - (i >> level) < SLOTS``. As T grows, a block
moves as a whole into one of the next level, or is dropped behind the last. So which steps share a
block, and what is dropped, depends on T alone, not on when or in which order outcomes came: the
state is a function of the outcomes, and late ones fall into the block of their time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bandstand.durations import milliseconds
from bandstand.learners.protocols import Rows, Whole
from bandstand.schemas.spec_forget import Forget

__all__ = ["INDEX", "Blocks"]

INDEX: Final = "block.index"
"""int64[B]: each block's position on its level, so it begins at ``index << level``; -1 if empty."""

OUTCOMES: Final = "block.outcomes"
"""int64[B]: number of outcomes."""

STEPS: Final = "block.steps"
"""int64[B]: sum of the steps of the outcomes since the block's beginning."""

_OWN: Final = (INDEX, OUTCOMES, STEPS)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Blocks:
    """The blocks of one spec, ``B = levels * slots`` of them.

    Parameters
    ----------
    step_ms
        Length of a step.
    slots
        Blocks a level.
    levels
        1 for a window, all of whose blocks are one step wide.
    half_life
        Steps in which a weight halves; none for a window, in which all weigh 1.
    """

    step_ms: int
    slots: int
    levels: int
    half_life: float | None

    @classmethod
    def of(cls, forget: Forget) -> Blocks:
        """Give the blocks of a spec.

        A window is 32 steps of whole milliseconds, rounded up, so that they cover it. A half-life
        is 8 steps, and 6 levels of 8 blocks reach back 32 of them, where an outcome weighs 2e-10.
        """
        if forget.window is not None:
            return cls(-(-milliseconds(forget.window) // 32), 32, 1, None)
        assert forget.half_life is not None
        step = max(milliseconds(forget.half_life) // 8, 1)
        return cls(step, 8, 6, milliseconds(forget.half_life) / step)

    @property
    def count(self) -> int:
        """Number of blocks."""
        return self.levels * self.slots

    def shapes(self, sums: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, ...]]:
        """Give the shapes of a state: each sum for every block, and what is known of blocks."""
        own = dict.fromkeys(_OWN, (self.count,))
        return {**own, **{name: (self.count, *shape) for name, shape in sums.items()}}

    def start(self, shapes: Mapping[str, tuple[int, ...]]) -> Whole:
        """Give a state without blocks."""
        state = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
        return {**state, INDEX: np.full(self.count, -1)}

    def learn(self, state: Whole, rows: Rows, times: Ints, sums: Callable[[Rows], Whole]) -> Whole:
        """Add outcomes to the blocks of their times.

        Parameters
        ----------
        state
            The blocks so far.
        rows, times
            Outcomes, and when they were decided, ms since 1970, at least one.
        sums
            Sums up some of the rows.
        """
        steps = times // self.step_ms
        grown = self._at(state, max(int(steps.max()), self._newest(state)))
        newest = self._newest(grown, int(steps.max()))
        levels = self._levels(steps, 0, newest)
        for level in np.unique(levels[levels < self.levels]).tolist():
            indexes = steps >> level
            for index in np.unique(indexes[levels == level]).tolist():
                mine = (levels == level) & (indexes == index)
                slot = self._slot(level, index)
                part = rows if mine.all() else rows.pick(mine)
                grown[INDEX][slot] = index
                grown[OUTCOMES][slot] += len(part.actions)
                grown[STEPS][slot] += int((steps[mine] - (index << level)).sum())
                for name, array in sums(part).items():
                    grown[name][slot] += array
        return grown

    def merge(self, first: Whole, second: Whole) -> Whole:
        """Add two states, each moved to the time of the newer one."""
        newest = max(self._newest(first), self._newest(second))
        merged, other = self._at(first, newest), self._at(second, newest)
        for name, array in other.items():
            if name == INDEX:
                np.maximum(merged[name], array, out=merged[name])
            else:
                merged[name] += array
        return merged

    def faded(self, state: Whole) -> Whole:
        """Give the sums of all blocks together, float64, each block with its weight.

        A block weighs what an outcome of its mean time does, so weights of even outcomes are off
        by less than 0.3 % together. Where all outcomes of an action lie at one end of a block of n
        steps and those of others at the other end, its weights are off by a factor of
        ``2**((n - 1) / 8)``: by 9.1 % up to an age of 1.75 half-lives, where n is 2, by 30 % up to
        3.5, by 84 % up to 7, by 3.7 times up to 14, and by 15 times beyond, where an outcome weighs
        less than 1e-4.
        """
        found = np.flatnonzero(state[OUTCOMES])
        weights = np.ones(len(found))
        if self.half_life is not None:
            levels = found // self.slots
            mean = state[STEPS][found] / state[OUTCOMES][found]
            age = self._newest(state) - (state[INDEX][found] << levels) - mean
            weights = np.exp2(-age / self.half_life)
        return {
            name: np.tensordot(weights, array[found].astype(np.float64), axes=1)
            for name, array in state.items()
            if name not in _OWN
        }

    def _newest(self, state: Whole, least: int = -1) -> int:
        """Give T: the newest block of level 0 always holds it."""
        return max(int(state[INDEX][: self.slots].max()), least)

    def _slot(self, level: int, index: int) -> int:
        return level * self.slots + index % self.slots

    def _levels(self, indexes: Ints, level: int, newest: int) -> Ints:
        """Give the level of blocks that are on one so far, or the number of levels if dropped."""
        found = np.full(len(indexes), self.levels)
        for above in reversed(range(level, self.levels)):
            near = (newest >> above) - (indexes >> (above - level)) < self.slots
            found[near] = above
        return found

    def _at(self, state: Whole, newest: int) -> Whole:
        """Copy a state, its blocks moved to where they belong once T is `newest`."""
        if newest == self._newest(state):
            return {name: array.copy() for name, array in state.items()}
        moved = self.start({name: array.shape for name, array in state.items()})
        for level in range(self.levels):
            slots = np.arange(level * self.slots, (level + 1) * self.slots)
            slots = slots[state[INDEX][slots] >= 0]
            indexes = state[INDEX][slots]
            above = self._levels(indexes, level, newest)
            for slot, index, to in zip(
                slots.tolist(), indexes.tolist(), above.tolist(), strict=True
            ):
                if to < self.levels:
                    wider = index >> (to - level)
                    target = self._slot(to, wider)
                    moved[INDEX][target] = wider
                    began = (index << level) - (wider << to)
                    moved[STEPS][target] += state[STEPS][slot] + began * state[OUTCOMES][slot]
                    for name in state.keys() - {INDEX, STEPS}:
                        moved[name][target] += state[name][slot]
        return moved
