"""What all contestants learn from, and how their turns are timed; needs nothing but numpy.

Contestants live in two processes, ours and the peers', each with the packages of its own
environment. A process answers one line of JSON with another: so turns of both can alternate.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import cycle
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BATCHES", "CASES", "Case", "Contestant", "Rows", "batches", "rows", "serve"]

Floats = npt.NDArray[np.float64]
Step = Callable[[], int]
"""Learns the next batch; gives its number of rows."""


class Case(NamedTuple):
    """How wide and how many."""

    dimension: int
    actions: int

    def __str__(self) -> str:
        return f"{self.dimension} features, {self.actions} actions"


CASES = (Case(20, 10), Case(100, 50))
BATCHES = (1, 100, 1_000, 10_000)

_GRID = 4096
_MOST_ROWS = 10_000
_DISTINCT = 200
_REWARDED = 0.3
_LEARNED = 5_000


class Rows(NamedTuple):
    """Outcomes as arrays."""

    x: Floats
    """float64[n, d] on the learner's grid, so that sums can be compared; the first column is 1."""
    actions: npt.NDArray[np.int64]
    rewards: Floats

    def part(self, start: int, stop: int) -> Rows:
        """Give some of them."""
        return Rows(self.x[start:stop], self.actions[start:stop], self.rewards[start:stop])


class Contestant(Protocol):
    """One way to learn."""

    name: str
    says: str
    """What it does, for whoever reads the table."""
    batches: Sequence[int]
    """Sizes of batches that it is measured at."""
    probabilities: bool
    """Whether its decision comes with the probability of each action."""

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        """Prepare to learn these batches, again and again."""

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object] | None:
        """Prepare to decide, after some rows; None where that isn't its matter."""


def rows(case: Case, count: int) -> Rows:
    """Make outcomes up: the same at each call."""
    random = np.random.default_rng(20)
    x = random.integers(-_GRID, _GRID + 1, (count, case.dimension)) / _GRID
    x[:, 0] = 1.0
    actions = random.integers(0, case.actions, count)
    return Rows(x, actions, (random.random(count) < _REWARDED).astype(np.float64))


@lru_cache(maxsize=1)
def batches(case: Case, size: int) -> Sequence[Rows]:
    """Give batches of a size: different ones, as far as there is room for them."""
    count = max(1, min(_MOST_ROWS // size, _DISTINCT))
    whole = rows(case, count * size)
    return [whole.part(start, start + size) for start in range(0, count * size, size)]


class _Runner:
    """Keeps what was prepared for one case and size, and lets contestants take turns at it."""

    def __init__(self, contestants: Sequence[Contestant]) -> None:
        self._contestants = {each.name: each for each in contestants}
        self._at: object = None
        self._steps: dict[str, Step] = {}
        self._deciders: dict[str, Callable[[int], object] | None] = {}

    def about(self, **_: object) -> dict[str, Any]:
        return {
            name: {
                "says": each.says,
                "batches": list(each.batches),
                "probabilities": each.probabilities,
            }
            for name, each in self._contestants.items()
        }

    def update(self, name: str, case: Sequence[int], batch: int, seconds: float) -> dict[str, Any]:
        """Learn for about so many CPU seconds, one batch at least."""
        self._go_to((*case, batch))
        if name not in self._steps:
            where = Case(*case)
            self._steps[name] = self._contestants[name].learner(where, batches(where, batch))
            self._steps[name]()
        step, taken, learned = self._steps[name], 0.0, 0
        with _collector_off():
            while taken < seconds or not learned:
                begun = time.process_time()
                for _ in range(max(1, 100 // batch)):
                    learned += step()
                taken += time.process_time() - begun
        return {"rows_per_second": learned / taken}

    def decide(self, name: str, case: Sequence[int], calls: int) -> dict[str, Any]:
        """Decide so many times; gives percentiles of the time on the wall in microseconds."""
        self._go_to(tuple(case))
        if name not in self._deciders:
            where = Case(*case)
            self._deciders[name] = self._contestants[name].decider(where, rows(where, _LEARNED))
        call = self._deciders[name]
        if call is None:
            return {}
        taken = np.empty(calls)
        with _collector_off():
            for number in range(calls):
                begun = time.perf_counter()
                call(number)
                taken[number] = time.perf_counter() - begun
        p50, p99 = np.percentile(taken, [50, 99]) * 1e6
        return {"p50_us": float(p50), "p99_us": float(p99)}

    def _go_to(self, place: tuple[int, ...]) -> None:
        if place != self._at:
            self._at = place
            self._steps.clear()
            self._deciders.clear()


class _collector_off:  # noqa: N801 - reads as a context manager
    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()


def serve(contestants: Sequence[Contestant], **more: Callable[..., dict[str, Any]]) -> None:
    """Answer lines of JSON, ``{"do": …, …}``, until there are no more.

    Parameters
    ----------
    contestants
        Who lives in this process.
    more
        What this process can do besides.
    """
    runner = _Runner(contestants)
    own: dict[str, Callable[..., dict[str, Any]]] = {
        "about": runner.about,
        "update": runner.update,
        "decide": runner.decide,
    }
    known = {**own, **more}
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(known[asked.pop("do")](**asked)), file=answers, flush=True)


def in_turns(parts: Sequence[Rows], learn: Callable[[Rows], object]) -> Step:
    """Give a step that learns one batch after the other, and begins anew after the last."""
    following: Iterator[Rows] = cycle(parts)

    def step() -> int:
        part = next(following)
        learn(part)
        return len(part.actions)

    return step
