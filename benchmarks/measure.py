"""How contestants take turns and what a turn costs; hides the clocks, the order and the pairing.

In each round every contestant takes one turn, in the order given, so whatever else the machine does
meets all of them alike. A ratio is taken within each round, and only then the median over rounds.
Garbage is collected between turns, and what was prepared is hidden from Python's collector: during
a turn it walks only what the contestant itself made.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = [
    "FULL",
    "TINY",
    "Benchmark",
    "Contestant",
    "Ratio",
    "Result",
    "Size",
    "Spread",
    "latencies",
    "per_item",
    "run",
]

Figures = Mapping[str, float]

WALL, CPU = "us", "CPU us"
P50, P99 = "p50 us", "p99 us"


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    share: float
    """Part of the full amount of work in a turn, in (0, 1]."""

    def of(self, full: int) -> int:
        """Give the amount for a full one; at least 1."""
        return max(1, round(full * self.share))


FULL = Size(rounds=11, share=1.0)
TINY = Size(rounds=2, share=0.02)


class Contestant(NamedTuple):
    """One way to do the work."""

    name: str
    turn: Callable[[], Figures]
    """Does it once, measured; gives figures by name."""


class Ratio(NamedTuple):
    """A figure of one contestant over the same of another."""

    figure: str
    over: str
    under: str
    wanted: str = ""
    """What the design asks for, for the reader; nothing fails by it."""


class Benchmark(NamedTuple):
    """Contestants at one piece of work."""

    name: str
    compared: str
    """What exactly each side does, for whoever reads the table."""
    unit: str
    """What the figures are of: one decision, one chunk."""
    facts: Mapping[str, float | str]
    contestants: Sequence[Contestant]
    ratios: Sequence[Ratio]


class Spread(NamedTuple):
    """A figure over all rounds."""

    median: float
    least: float
    most: float
    rounds: list[float]

    @classmethod
    def over(cls, rounds: Sequence[float]) -> Spread:
        """Sum up rounds, at least one."""
        return cls(statistics.median(rounds), min(rounds), max(rounds), list(rounds))


class Result(NamedTuple):
    """What was measured."""

    figures: dict[str, dict[str, Spread]]
    """By contestant, then by figure."""
    ratios: list[tuple[Ratio, Spread]]


def run(benchmark: Benchmark, rounds: int, on_round: Callable[[int], None]) -> Result:
    """Let the contestants take turns, after a round that isn't counted.

    Parameters
    ----------
    benchmark
        Who does what.
    rounds
        Rounds that count, at least 1.
    on_round
        Called with the number of rounds done.
    """
    found: dict[str, dict[str, list[float]]] = {c.name: {} for c in benchmark.contestants}
    gc.collect()
    gc.freeze()
    try:
        for done in range(rounds + 1):
            for contestant in benchmark.contestants:
                gc.collect()
                figures = contestant.turn()
                for name, value in figures.items() if done else ():
                    found[contestant.name].setdefault(name, []).append(value)
            on_round(done)
    finally:
        gc.unfreeze()
    return Result(
        {who: {k: Spread.over(v) for k, v in mine.items()} for who, mine in found.items()},
        [(ratio, _paired(ratio, found)) for ratio in benchmark.ratios],
    )


def _paired(ratio: Ratio, found: Mapping[str, Mapping[str, Sequence[float]]]) -> Spread:
    over, under = found[ratio.over][ratio.figure], found[ratio.under][ratio.figure]
    return Spread.over([a / b for a, b in zip(over, under, strict=True)])


def per_item(work: Callable[[], object], items: int) -> Figures:
    """Do some work, and give the microseconds an item took: on the wall, and of all cores' time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {WALL: wall / items * 1e6, CPU: cpu / items * 1e6}


def latencies(call: Callable[[int], object], calls: int) -> Figures:
    """Time each of many calls, which get their number, and give percentiles in microseconds."""
    taken = np.empty(calls, np.int64)
    clock = time.perf_counter_ns
    cpu = time.process_time()
    for number in range(calls):
        before = clock()
        call(number)
        taken[number] = clock() - before
    cpu = time.process_time() - cpu
    p50, p99 = np.percentile(taken, [50, 99]) / 1e3
    return {P50: float(p50), P99: float(p99), CPU: cpu / calls * 1e6}
