"""How what a learner keeps grows, merges and is solved: sums, chains, and blocks that fade.

A keeper works on one spec's arrays, by name, all int64: a state is never changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from bandstand.errors import StateError
from bandstand.learners.blocks import Blocks
from bandstand.learners.drift import PREFIX, series_blocks, series_sums
from bandstand.learners.grid import refuse_overflow
from bandstand.learners.protocols import AdditiveLearner, ChainedLearner, Rows, Whole
from bandstand.learners.registry import learner_of
from bandstand.schemas.spec import Spec

__all__ = ["BEGIN_ANEW", "Keeper", "keeper_of"]

BEGIN_ANEW: Final = (
    "apply its spec with `since` at a later moment, such as now: it then learns anew, from"
    " decisions after that; a changed floor, prior or list of actions goes on with these sums"
)

SPECS: Final = 4096
"""Specs whose keepers are remembered."""

Ints = npt.NDArray[np.int64]


class Keeper(Protocol):
    """Grows, merges and gives what is to be solved."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names of the arrays, and their shapes."""

    def start(self) -> Whole:
        """Give the state before any outcome."""

    def learn(self, state: Whole, rows: Rows, times: Ints) -> Whole:
        """Give the state after some more outcomes, decided at `times` in ms since 1970."""

    def merge(self, first: Whole, second: Whole) -> Whole:
        """Give what two partitions that have outcomes know together, in their order."""

    def subtract(self, minuend: Whole, subtrahend: Whole) -> Whole:
        """Take away outcomes, or say why that can't be done."""

    def refuse_lost(self, state: Whole, unseen: int = 0) -> None:
        """Raise a StateError if a number can't be relied on, or couldn't `unseen` outcomes ago."""

    def solvable(self, state: Whole) -> Mapping[str, npt.NDArray[Any]]:
        """Give what the learner solves: its sums, in their usual steps, or a chain's numbers."""


@lru_cache(maxsize=SPECS)
def keeper_of(spec: Spec) -> Keeper:
    """Give the keeper of a spec's arrays."""
    learner = learner_of(spec)
    keeper: Keeper
    if isinstance(learner, ChainedLearner):
        keeper = _Chain(spec, learner)
    else:
        keeper = _FadingSums(spec, learner) if spec.forget else _Sums(spec, learner)
    return _Watched(spec, keeper) if spec.drift else keeper


class _Sums:
    """Whole numbers that add."""

    def __init__(self, spec: Spec, learner: AdditiveLearner) -> None:
        self._spec = spec
        self._learner = learner
        self._finer: Mapping[str, int] = {}
        if spec.reward.keep_probability is not None:
            self._finer = getattr(learner, "weighted", {})

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._learner.shapes(self._spec)

    def start(self) -> Whole:
        return {name: np.zeros(shape, np.int64) for name, shape in self.shapes.items()}

    def learn(self, state: Whole, rows: Rows, times: Ints) -> Whole:  # noqa: ARG002 - one for all
        return self.merge(state, self._learner.sums(self._spec, rows))

    def merge(self, first: Whole, second: Whole) -> Whole:
        # Both are below 2**62, so their sum is below 2**63 and can't wrap before it is checked.
        return {name: array + second[name] for name, array in first.items()}

    def subtract(self, minuend: Whole, subtrahend: Whole) -> Whole:
        return {name: array - subtrahend[name] for name, array in minuend.items()}

    def refuse_lost(self, state: Whole, unseen: int = 0) -> None:
        for name, array in state.items():
            try:
                refuse_overflow(array, unseen)
            except OverflowError as error:
                raise _lost(f"{name} of bandit {self._spec.bandit!r}: {error}") from error

    def solvable(self, state: Whole) -> Mapping[str, npt.NDArray[Any]]:
        finer = self._finer
        return {n: (array / finer[n] if n in finer else array) for n, array in state.items()}


class _FadingSums(_Sums):
    """Sums of blocks of time, which weigh less the older they are, or end with the window."""

    def __init__(self, spec: Spec, learner: AdditiveLearner) -> None:
        super().__init__(spec, learner)
        assert spec.forget is not None
        self._blocks = Blocks.of(spec.forget)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._blocks.shapes(self._learner.shapes(self._spec))

    def start(self) -> Whole:
        return self._blocks.start(self.shapes)

    def learn(self, state: Whole, rows: Rows, times: Ints) -> Whole:
        return self._blocks.learn(
            state, rows, times, lambda part: self._learner.sums(self._spec, part)
        )

    def merge(self, first: Whole, second: Whole) -> Whole:
        return self._blocks.merge(first, second)

    def subtract(self, minuend: Whole, subtrahend: Whole) -> Whole:  # noqa: ARG002 - refused
        raise StateError(
            f"statistics of {self._spec.bandit!r} can't be subtracted: it forgets, and what an"
            " older state still held may be gone; learn anew from the outcomes that are to count"
        )

    def solvable(self, state: Whole) -> Mapping[str, npt.NDArray[Any]]:
        return super().solvable(self._blocks.faded(state))


class _Chain:
    """The bits of the numbers that each outcome moves in turn."""

    def __init__(self, spec: Spec, learner: ChainedLearner) -> None:
        self._spec = spec
        self._learner = learner

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._learner.shapes(self._spec)

    def start(self) -> Whole:
        return self._learner.start(self._spec)

    def learn(self, state: Whole, rows: Rows, times: Ints) -> Whole:  # noqa: ARG002 - in order
        return self._learner.advance(self._spec, state, rows)

    def merge(self, first: Whole, second: Whole) -> Whole:
        return self._learner.merge(self._spec, first, second)

    def subtract(self, minuend: Whole, subtrahend: Whole) -> Whole:  # noqa: ARG002 - refused
        raise StateError(
            f"statistics of {self._spec.bandit!r} can't be subtracted: policy"
            f" {self._spec.policy.name!r} keeps a chain, in which each outcome builds on those"
            " before it; learn anew from the outcomes that are to count"
        )

    def refuse_lost(self, state: Whole, unseen: int = 0) -> None:  # noqa: ARG002 - it stays so
        for name, array in state.items():
            if not np.isfinite(array.view(np.float64)).all():
                raise _lost(f"{name} of bandit {self._spec.bandit!r} isn't finite")

    def solvable(self, state: Whole) -> Mapping[str, npt.NDArray[Any]]:
        return {name: array.view(np.float64) for name, array in state.items()}


class _Watched:
    """What another keeper keeps, and beside it the series in which drift is looked for."""

    def __init__(self, spec: Spec, inner: Keeper) -> None:
        assert spec.drift is not None
        self._spec = spec
        self._inner = inner
        self._blocks = series_blocks(spec.drift)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        actions = (len(self._spec.actions),)
        series = self._blocks.shapes({"outcomes": actions, "reward": actions})
        return {**self._inner.shapes, **_marked(series)}

    def start(self) -> Whole:
        series = {n.removeprefix(PREFIX): s for n, s in self.shapes.items() if _is_series(n)}
        return {**self._inner.start(), **_marked(self._blocks.start(series))}

    def learn(self, state: Whole, rows: Rows, times: Ints) -> Whole:
        own, series = _parted(state)
        grown = self._blocks.learn(series, rows, times, lambda part: series_sums(self._spec, part))
        return {**self._inner.learn(own, rows, times), **_marked(grown)}

    def merge(self, first: Whole, second: Whole) -> Whole:
        (one, its_series), (two, other_series) = _parted(first), _parted(second)
        series = self._blocks.merge(its_series, other_series)
        return {**self._inner.merge(one, two), **_marked(series)}

    def subtract(self, minuend: Whole, subtrahend: Whole) -> Whole:  # noqa: ARG002 - refused
        raise StateError(
            f"statistics of {self._spec.bandit!r} can't be subtracted: it watches for drift, and"
            " of that series old steps may be gone; learn anew from the outcomes that are to count"
        )

    def refuse_lost(self, state: Whole, unseen: int = 0) -> None:
        self._inner.refuse_lost(_parted(state)[0], unseen)

    def solvable(self, state: Whole) -> Mapping[str, npt.NDArray[Any]]:
        return self._inner.solvable(_parted(state)[0])


def _is_series(name: str) -> bool:
    return name.startswith(PREFIX)


_T = TypeVar("_T")


def _marked(series: Mapping[str, _T]) -> dict[str, _T]:
    return {PREFIX + name: each for name, each in series.items()}


def _parted(state: Whole) -> tuple[Whole, Whole]:
    """Give a keeper's own arrays, and those of the series without their prefix."""
    own = {name: array for name, array in state.items() if not _is_series(name)}
    series = {n.removeprefix(PREFIX): a for n, a in state.items() if _is_series(n)}
    return own, series


def _lost(what: str) -> StateError:
    return StateError(f"{what}; {BEGIN_ANEW}")
