"""Whether the rewards of an action have changed: river's detectors on a series of its means.

The series is a part of the statistics: outcomes and rewards of each action in each step of time,
added up over partitions, so what is found is the same at any number of workers. A point is the mean
m of at least n outcomes; a detector sees ``1/2 + (m - 1/2) * sqrt(n)``. That varies at most as a
single reward in [0, 1] would (Hoeffding's lemma), which is what the detectors' bounds are about.
When a detector strikes, the change began where the points since the last one differ most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, NamedTuple

import numpy as np

from bandstand.durations import milliseconds
from bandstand.errors import StateError
from bandstand.learners.blocks import INDEX, Blocks
from bandstand.learners.grid import STEPS
from bandstand.learners.protocols import Rows, Whole
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_drift import Drift, Widened, moment, moment_ms

__all__ = ["PREFIX", "Change", "acted", "changes", "look", "series_blocks", "series_sums"]

PREFIX: Final = "drift."
"""Of the names of the series' arrays in a state."""

SERIES_STEPS: Final = 256
"""Steps that are kept."""

SHORTEST_MS: Final = 8_000
"""Half-lives aren't shortened below this."""


class Change(NamedTuple):
    """A change of an action's rewards.

    Parameters
    ----------
    action
        Which one.
    began, found
        When the new rewards began, as far as is known, and the end of the point at which that was
        found: decision times, ms since 1970.
    before, after
        Mean scaled rewards up to the change and from it on.
    """

    action: str
    began: int
    found: int
    before: float
    after: float


class _Point(NamedTuple):
    start: int
    end: int
    outcomes: float
    mean: float


def series_blocks(drift: Drift) -> Blocks:
    """Give the blocks of a series: one a step, all of one width."""
    return Blocks(milliseconds(drift.step), SERIES_STEPS, 1, None)


def series_sums(spec: Spec, rows: Rows) -> Whole:
    """Sum up outcomes and rewards (in 2**-12) of each action."""
    count = len(spec.actions)
    return {
        "outcomes": np.bincount(rows.actions, minlength=count),
        "reward": np.bincount(rows.actions, rows.steps[:, -1], count).astype(np.int64),
    }


def changes(spec: Spec, sums: Whole) -> list[Change]:
    """Look for changes in a bandit's series, from its start, up to its newest whole step.

    Parameters
    ----------
    spec
        With a section ``drift``.
    sums
        Of its statistics.

    Returns
    -------
    list[Change]
        The newest change of each action that has one.

    Raises
    ------
    StateError
        If river isn't installed.
    """
    drift = spec.drift
    assert drift is not None
    series = {n.removeprefix(PREFIX): a for n, a in sums.items() if n.startswith(PREFIX)}
    found = []
    for index, action in enumerate(spec.actions):
        points = list(_points(drift, series, index))
        change = _newest(drift, action, points)
        if change is not None:
            found.append(change)
    return found


def look(spec: Spec, sums: Whole, newest: int | None, last: int) -> tuple[int, list[Change]]:
    """Look for changes whenever a step is over; give those that weren't there the last time.

    Parameters
    ----------
    spec
        Any; without a section ``drift`` nothing is looked for.
    sums
        Of its statistics.
    newest
        Newest decision time among the outcomes, ms since 1970; None before the first.
    last
        The step in which it was looked last under this spec; -1 if never.

    Returns
    -------
    step
        What is to be given as `last` the next time.
    changes
        As of `changes`.

    Raises
    ------
    StateError
        If river isn't installed.
    """
    if spec.drift is None or newest is None:
        return last, []
    width = milliseconds(spec.drift.step)
    step = newest // width
    if step == last:
        return last, []
    return step, [change for change in changes(spec, sums) if change.found > last * width]


def acted(spec: Spec, change: Change) -> Spec:
    """Give the spec that a change leads to; itself where it only alerts."""
    drift = spec.drift
    assert drift is not None
    fields: dict[str, Any] = spec.model_dump(mode="json")
    fields["drift"]["since"] = moment(change.began)
    match drift.act:
        case "alert":
            return spec
        case "explore":
            assert drift.widen is not None
            assert drift.floor is not None
            until = moment(change.found) + drift.widen
            fields["widened"] = Widened(floor=drift.floor, until=until).model_dump()
        case "half_life":
            assert spec.forget is not None
            assert spec.forget.half_life is not None
            now = milliseconds(spec.forget.half_life)
            fields["forget"] = {"half_life": f"{min(now, max(now // 2, SHORTEST_MS))}ms"}
        case "epoch":
            fields["since"] = moment(change.began)
    return Spec.model_validate(fields)


def _points(drift: Drift, series: Whole, action: int) -> Iterator[_Point]:
    """Give an action's points, oldest first; the newest step isn't whole yet."""
    width, first = milliseconds(drift.step), moment_ms(drift.since) if drift.since else 0
    indexes = series[INDEX]
    order = np.argsort(indexes)[:-1]
    outcomes, reward, start = 0, 0, None
    for slot in order[indexes[order] * width >= first].tolist():
        if indexes[slot] < 0:
            continue
        start = int(indexes[slot]) * width if start is None else start
        outcomes += int(series["outcomes"][slot, action])
        reward += int(series["reward"][slot, action])
        if outcomes >= drift.outcomes:
            end = (int(indexes[slot]) + 1) * width
            yield _Point(start, end, outcomes, reward / STEPS / outcomes)
            outcomes, reward, start = 0, 0, None


def _newest(drift: Drift, action: str, points: list[_Point]) -> Change | None:
    detector, start = _detector(drift), 0
    change = None
    for number, point in enumerate(points):
        detector.update(0.5 + (point.mean - 0.5) * math.sqrt(drift.outcomes))
        if detector.drift_detected and number > start:
            split = start + _split(points[start : number + 1])
            before, after = _mean(points[start:split]), _mean(points[split : number + 1])
            change = Change(action, points[split].start, point.end, before, after)
            start = split
    return change


def _split(points: list[_Point]) -> int:
    """Give where points are best cut in two: the largest difference, in standard deviations."""
    outcomes = np.array([point.outcomes for point in points])
    rewards = outcomes * np.array([point.mean for point in points])
    left, sums = outcomes.cumsum()[:-1], rewards.cumsum()[:-1]
    right = outcomes.sum() - left
    difference = np.abs(sums / left - (rewards.sum() - sums) / right)
    return 1 + int((difference * np.sqrt(left * right)).argmax())


def _mean(points: list[_Point]) -> float:
    total = sum(point.outcomes for point in points)
    return sum(point.outcomes * point.mean for point in points) / total


def _detector(drift: Drift) -> Any:
    try:
        river: Any = import_module("river.drift")
    except ImportError as error:
        raise StateError(
            "a spec has a section drift, which needs river: pip install 'bandstand[drift]'"
        ) from error
    if drift.detector == "adwin":
        return river.ADWIN(delta=0.1, clock=1, grace_period=5, min_window_length=3)
    return river.PageHinkley(min_instances=10, delta=0.2, threshold=8.0)
