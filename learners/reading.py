"""From outcomes as Arrow columns to rows on the grid: of one bandit, or of many that are alike.

What can't be learned is left out and counted under its first reason. A batch has few rows of each
bandit where there are thousands; so those whose specs differ in nothing but names and policies are
read at once, and their rows taken apart after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.learners.arrow import room
from bandstand.learners.features import Features
from bandstand.learners.grid import STEPS, weigh
from bandstand.learners.protocols import Rows
from bandstand.learners.rewards import activated, earn, weights
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_drift import moment_ms

__all__ = ["Read", "likeness", "read", "read_together"]

_SPECS: Final = 4096
"""Specs of which is kept what only depends on them."""

_INDEX_IN: Final = pc.get_function("index_in")

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Counted = dict[str, npt.NDArray[Any]]
"""How often each row of a batch counts, by the counter's name: bool[n] or int64[n]."""


class Read(NamedTuple):
    """What can be learned from outcomes.

    Parameters
    ----------
    rows
        The outcomes that can be learned.
    times
        When they were decided, int64[m], ms since 1970, >= 0.
    counters
        What was left out, cut or absent, by name; see `Statistics.update`.
    """

    rows: Rows
    times: Ints
    counters: Mapping[str, int]


def read(spec: Spec, batch: pa.RecordBatch) -> Read:
    """Read outcomes of one bandit, at most `grid.CHUNK` of them."""
    whole = _read(spec, batch, _among(spec, batch.column("decision")))
    counters = {name: int(times.sum()) for name, times in whole.counted.items()}
    return Read(whole.rows, whole.times, counters)


@lru_cache(maxsize=_SPECS)
def likeness(spec: Spec) -> str:
    """Give the same text for bandits whose outcomes can be read together.

    Their actions may differ, and so may their policies as far as they don't matter here.
    """
    features = f"{spec.features_hash} {spec.policy.contextual} {spec.policy.needs_propensity}"
    return f"{features} {spec.since} {spec.reward.model_dump_json()}"


def read_together(specs: Sequence[Spec], edges: Ints, batch: pa.RecordBatch) -> Iterator[Read]:
    """Read outcomes of several bandits.

    Parameters
    ----------
    specs
        One for each, all of one `likeness`.
    edges
        Where the rows of each begin, and the end of the last, int64[len(specs) + 1].
    batch
        Their outcomes, one bandit's after the other's, at most `grid.CHUNK`.

    Yields
    ------
    Read
        As `read` gives it of each bandit's own rows.
    """
    if len(specs) == 1:
        yield read(specs[0], batch)
        return
    whole = _read(specs[0], batch, _among_several(specs, edges, batch.column("decision")))
    counters = [dict[str, int]() for _ in specs]
    for name, times in whole.counted.items():
        for number, total in enumerate(_totals(times, edges)):
            if total:
                counters[number][name] = total
    good = edges if whole.good is None else _before(whole.good, edges)
    for counted, (start, end) in zip(counters, pairwise(good.tolist()), strict=True):
        yield Read(whole.rows.pick(slice(start, end)), whole.times[start:end], counted)


class _Whole(NamedTuple):
    rows: Rows
    times: Ints
    counted: Counted
    good: Bools | None
    """Which rows of the batch can be learned; None: all."""


def _read(spec: Spec, batch: pa.RecordBatch, actions: npt.NDArray[np.int16]) -> _Whole:
    """Read a batch.

    Parameters
    ----------
    spec
        The spec, or one of those that are alike.
    batch
        Outcomes.
    actions
        The index of each outcome's action in its own spec, -1 if it isn't there. A spec has at
        most 10,000 actions, so it fits.
    """
    counted: Counted = {}
    counting = _counting(spec, batch, counted)
    if counting is not None:
        batch, actions = batch.filter(pa.array(counting)), actions[counting]
    decisions = batch.column("decision")
    built = _features(spec).matrix(decisions)
    earned = earn(spec.reward, batch.column("rewards"), decisions)
    found: Counted = {**built.counted, **earned.counted}
    times = decisions.field("ts").view(pa.int64()).to_numpy()
    reasons = {"action": actions < 0, "time": times < 0, **built.rejected, **earned.rejected}
    propensities = np.ones(len(actions))
    if spec.policy.needs_propensity:
        propensities = decisions.field("propensity").to_numpy(zero_copy_only=False)
        reasons["propensity"] = ~((propensities > 0) & (propensities <= 1))
    low, high = spec.reward.low, spec.reward.high
    steps, roots = room((len(actions), built.steps.shape[1] + 1), np.float64), None
    steps[:, :-1] = built.steps
    steps[:, -1] = np.rint((earned.values - low) / (high - low) * STEPS)
    if spec.reward.keep_probability is not None:
        weighed = weights(spec.reward.keep_probability, decisions)
        reasons.update(weighed.rejected)
        steps, roots, cut = weigh(steps, weighed.values)
        found.update(weighed.counted)
        if cut is not None:
            found["clipped_weighted"] = cut.sum(axis=1)
    good = _reject(found, reasons)
    rows = Rows(actions, steps, propensities, roots)
    if good is not None:
        rows, times = rows.pick(good), times[good]
    if counting is None:
        return _Whole(rows, times, found, good)
    places = counting.nonzero()[0]
    for name, each in found.items():
        counted[name] = np.zeros(len(counting), each.dtype)
        counted[name][places] = each
    if good is not None:
        counting[places[~good]] = False
    return _Whole(rows, times, counted, counting)


def _counting(spec: Spec, batch: pa.RecordBatch, counted: Counted) -> Bools | None:
    """Leave out, and count, outcomes of which nothing else matters; None if all matter."""
    reward, decisions = spec.reward, batch.column("decision")
    apart: Counted = {}
    if decisions.null_count:
        apart["rejected_no_decision"] = decisions.is_null().to_numpy(zero_copy_only=False)
    if spec.since is not None:
        times = decisions.field("ts").view(pa.int64()).fill_null(0).to_numpy()
        apart["before_since"] = times < moment_ms(spec.since)
    if reward.activation is not None:
        apart["not_activated"] = ~activated(reward.activation, batch.column("rewards"))
    return _reject(counted, apart, prefix="")


def _among(spec: Spec, decisions: pa.StructArray) -> npt.NDArray[np.int16]:
    """Give the index of each outcome's action in a spec, -1 if it isn't there."""
    found = _INDEX_IN.call([decisions.field("action")], _lookup(spec))
    return np.asarray((found.fill_null(-1) if found.null_count else found).to_numpy(), np.int16)


def _among_several(
    specs: Sequence[Spec], edges: Ints, decisions: pa.StructArray
) -> npt.NDArray[np.int16]:
    """Give the index of each outcome's action in the spec of its bandit."""
    if all(spec.actions == specs[0].actions for spec in specs):
        return _among(specs[0], decisions)
    encoded = decisions.field("action").dictionary_encode()
    names = [*encoded.dictionary.to_pylist(), None]
    codes = encoded.indices.fill_null(len(names) - 1).to_numpy()
    owners = np.arange(len(specs)).repeat(edges[1:] - edges[:-1])
    pairs, which = np.unique(owners * len(names) + codes, return_inverse=True)
    index = [
        _places(specs[pair // len(names)]).get(names[pair % len(names)], -1)
        for pair in pairs.tolist()
    ]
    return np.array(index, np.int16)[which]


@lru_cache(maxsize=_SPECS)
def _lookup(spec: Spec) -> pc.SetLookupOptions:
    return pc.SetLookupOptions(pa.array(spec.actions))


@lru_cache(maxsize=_SPECS)
def _places(spec: Spec) -> Mapping[str | None, int]:
    return {action: index for index, action in enumerate(spec.actions)}


@lru_cache(maxsize=_SPECS)
def _features(spec: Spec) -> Features:
    return Features(spec)


def _reject(
    counted: Counted, reasons: Mapping[str, Bools], prefix: str = "rejected_"
) -> Bools | None:
    """Count rows under the first reason that each has, and give the others; None if all."""
    good: Bools | None = None
    for reason, bad in reasons.items():
        if bad.any():
            counted[prefix + reason] = bad if good is None else bad & good
            good = ~bad if good is None else good & ~bad
    return good


def _before(times: npt.NDArray[Any], edges: Ints) -> Ints:
    """Give the total before each edge."""
    return np.concatenate([[0], times.cumsum()])[edges]


def _totals(times: npt.NDArray[Any], edges: Ints) -> list[int]:
    """Give the total between each edge and the next."""
    totals: list[int] = np.diff(_before(times, edges)).tolist()
    return totals
