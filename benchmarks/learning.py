"""Learning: the exact sums of linear Thompson from Arrow columns, against plain float64 sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.learners.grid import STEPS
from bandstand.learners.protocols import AdditiveLearner, Rows
from bandstand.learners.registry import learner_of
from bandstand.learners.statistics import Statistics
from benchmarks.events import ACTIONS, outcomes, spec
from benchmarks.measure import CPU, WALL, Benchmark, Contestant, Ratio, Size, per_item

CHUNK = 1024
CHUNKS = 16
REPEATS = 8

Floats = npt.NDArray[np.float64]


class _Sums(NamedTuple):
    """X'X and X'y of each action."""

    squares: Floats
    targets: Floats

    @classmethod
    def zero(cls, dimension: int) -> _Sums:
        count = len(ACTIONS)
        return cls(np.zeros((count, dimension, dimension)), np.zeros((count, dimension)))

    def add(self, action: int, x: Floats, y: Floats) -> None:
        self.squares[action] += x.T @ x
        self.targets[action] += x.T @ y


class _Block(NamedTuple):
    action: int
    x: Floats
    y: Floats


@contextmanager
def prepare(size: Size) -> Iterator[Benchmark]:
    """Make chunks of outcomes, and check that all contestants come to the same sums."""
    bandit = spec()
    dimension = len(bandit.feature_names)
    tables = outcomes(max(2, size.of(CHUNKS)), CHUNK)
    blocks = [block for table in tables for block in _blocks(table, dimension)]
    ready = [_rows(table, dimension) for table in tables]
    learner = learner_of(bandit)
    assert isinstance(learner, AdditiveLearner)
    repeats = size.of(REPEATS)
    chunks = len(tables) * repeats

    def ours() -> Statistics:
        total = Statistics.empty(bandit)
        for _ in range(repeats):
            for table in tables:
                total = total.update(table)
        return total

    def by_hand() -> _Sums:
        total = _Sums.zero(dimension)
        for _ in range(repeats):
            for table in tables:
                for block in _blocks(table, dimension):
                    total.add(*block)
        return total

    def bare() -> list[tuple[Floats, Floats]]:
        return [(x.T @ x, x.T @ y) for _ in range(repeats) for _, x, y in blocks]

    def sums() -> None:
        for _ in range(repeats):
            for each in ready:
                learner.sums(bandit, each)

    _check(ours(), by_hand())
    mine, alone, hand, blas = "Statistics.update", "its sums alone", "numpy by hand", "bare BLAS"
    yield Benchmark(
        "learning",
        "Linear Thompson, 20 features, ten actions, from decoded outcomes with logged vectors. "
        "Statistics.update goes from Arrow columns to exact int64 sums: features and rewards are "
        "checked, put on the grid, summed up by action and added with the headroom checked. Its "
        "sums alone: from arrays that are on the grid to int64 sums. Bare BLAS: only x.T @ x and "
        "x.T @ y of each action on float64 blocks that were sorted out beforehand, results thrown "
        "away. numpy by hand: from the same columns to float sums, without any check. Ours and by "
        "hand give equal sums.",
        "chunk",
        {"outcomes a chunk": CHUNK, "features": dimension, "actions": len(ACTIONS)},
        [
            Contestant(mine, lambda: per_item(ours, chunks)),
            Contestant(alone, lambda: per_item(sums, chunks)),
            Contestant(blas, lambda: per_item(bare, chunks)),
            Contestant(hand, lambda: per_item(by_hand, chunks)),
        ],
        [
            Ratio(WALL, mine, blas, "2 or less"),
            Ratio(CPU, mine, blas),
            Ratio(WALL, alone, blas),
            Ratio(CPU, alone, blas),
            Ratio(WALL, mine, hand),
        ],
    )


def _blocks(table: pa.RecordBatch, dimension: int) -> Sequence[_Block]:
    """Sort a chunk's rows by action, as one writes it who trusts the data."""
    x, y, actions = _columns(table, dimension)
    chosen = [actions == action for action in range(len(ACTIONS))]
    return [_Block(action, x[rows], y[rows]) for action, rows in enumerate(chosen)]


def _rows(table: pa.RecordBatch, dimension: int) -> Rows:
    """Give a chunk as the learner takes it; the values made up here are on its grid."""
    x, y, actions = _columns(table, dimension)
    return Rows(actions, np.column_stack([x, y]) * STEPS, np.ones(len(actions)))


def _columns(table: pa.RecordBatch, dimension: int) -> tuple[Floats, Floats, npt.NDArray[np.int32]]:
    decisions, rewards = table["decision"], table["rewards"]
    x = decisions.field("features").flatten().to_numpy().reshape(-1, dimension).astype(np.float64)
    y = np.zeros(len(x))
    parents = rewards.value_parent_indices().to_numpy()
    y[parents] = rewards.flatten().field("value").to_numpy()
    actions = pc.index_in(decisions.field("action"), pa.array(ACTIONS)).to_numpy()
    return x, y, actions


def _check(ours: Statistics, theirs: _Sums) -> None:
    width = theirs.targets.shape[1] + 1
    rows, at = np.triu_indices(width)
    joined = np.zeros((len(ACTIONS), width, width))
    joined[:, :-1, :-1], joined[:, :-1, -1] = theirs.squares, theirs.targets
    products = ours.arrays()["products"] / (STEPS * STEPS)
    inner = (rows < width - 1) & (rows <= at)
    assert np.array_equal(products[:, inner], joined[:, rows, at][:, inner])
