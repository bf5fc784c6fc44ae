"""Reward functions: from all raw rewards of an outcome to one number, and what it weighs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.learners.arrow import equal, flat, groups, mask, numbers, offsets, rows_of
from bandstand.schemas.spec_reward import Addend, Cost, KeepProbability, Reward

__all__ = ["Earned", "activated", "earn", "weights"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Earned:
    """Numbers that n outcomes gave.

    Parameters
    ----------
    values
        float64[n]; of use where no reason rejects the row.
    rejected
        Reason to the rows (bool[n]) that can't be used for it; where there are any.
    counted
        Rows whose value was cut (bool[n]), by the counter's name; those that were found at all.
    """

    values: Floats
    rejected: Mapping[str, Bools] = field(default_factory=dict)
    counted: Mapping[str, Bools] = field(default_factory=dict)


def activated(name: str, rewards: pa.ListArray) -> Bools:
    """Tell which of n outcomes have a reward of a name, whatever its value.

    Examples
    --------
    >>> activated("open", pa.array([[{"name": "open", "value": 0.0}], []])).tolist()
    [True, False]
    """
    places = offsets(rewards)
    names = flat(places, rewards.values).field("name")
    found = np.zeros(len(rewards), dtype=bool)
    found[rows_of(places)[mask(equal(names, name))]] = True
    return found


def earn(reward: Reward, rewards: pa.ListArray, decisions: pa.StructArray) -> Earned:
    """Apply a reward function to n outcomes.

    Rewards of names that it doesn't have don't count.

    Parameters
    ----------
    reward
        The spec's reward function.
    rewards
        The column ``rewards``.
    decisions
        The column ``decision``, without nulls.

    Returns
    -------
    Earned
        Values in [low, high]. Rejected for ``reward_not_finite``: a reward that counts isn't, or
        their sum isn't a number; ``cost``: an attribute isn't finite, or absent where it must be
        there. ``clipped_reward`` counts values that were cut to the range.

    Examples
    --------
    >>> entries = [[{"name": "buy", "value": 2.0}, {"name": "buy", "value": 9.0}], []]
    >>> reward = Reward(name="buy", aggregate="sum", low=0, high=10, default=1)
    >>> earned = earn(reward, pa.array(entries), pa.array([{}, {}]))
    >>> earned.values, earned.counted
    (array([10.,  1.]), {'clipped_reward': array([ True, False])})
    """
    places = offsets(rewards)
    entries = flat(places, rewards.values)
    rows, names = rows_of(places), entries.field("name")
    raw = entries.field("value").to_numpy()
    own, *others = reward.addends
    unknown = None
    with np.errstate(over="ignore", invalid="ignore"):
        whole = _part(own, len(rewards), rows, raw, equal(names, own.name))
        for other in others:
            whole += _part(other, len(rewards), rows, raw, equal(names, other.name))
        if reward.cost is not None:
            cost = _cost(reward.cost, decisions)
            unknown = ~np.isfinite(cost)
            whole -= np.where(unknown, 0.0, cost)
    values, lost, clipped = _in_range(whole, reward.low, reward.high)
    rejected = {"reward_not_finite": lost, "cost": unknown}
    return Earned(values, _found(rejected), _found({"clipped_reward": clipped}))


def weights(keep: KeepProbability, decisions: pa.StructArray) -> Earned:
    """Give what n outcomes weigh: 1 / the probability with which the service logged each.

    Returns
    -------
    Earned
        Values in [1, 1 / least]; rejected for ``keep_probability``: not above 0 and up to 1, or
        absent where it must be there. ``clipped_keep_probability`` counts those below the least.

    Examples
    --------
    >>> kept = pa.map_(pa.string(), pa.float64())
    >>> maps = pa.array([[("kept", 0.5)], [("kept", 1e-6)]], kept)
    >>> decisions = pa.StructArray.from_arrays([maps], names=["subject_numeric"])
    >>> weights(KeepProbability(attribute="kept", least=0.1), decisions).values
    array([ 2., 10.])
    """
    probability = numbers(decisions.field("subject_numeric"), keep.attribute, keep.absent)
    good = (probability > 0) & (probability <= 1)
    small = good & (probability < keep.least)
    used = np.where(good, np.maximum(probability, keep.least), 1.0)
    counted = _found({"clipped_keep_probability": small})
    return Earned(1.0 / used, _found({"keep_probability": ~good}), counted)


def _part(
    part: Addend, count: int, rows: npt.NDArray[np.int64], raw: Floats, counting: pa.BooleanArray
) -> Floats:
    """Weighted aggregate of the rewards that count; not-a-number where one isn't finite."""
    if counting.true_count < len(raw):
        mine = mask(counting)
        rows, raw = rows[mine], raw[mine]
    values = np.full(count, part.default * part.weight)
    if len(rows):
        found, starts, sizes = groups(rows)
        values[found] = _AGGREGATES[part.aggregate](raw, starts, sizes) * part.weight
        odd = ~np.isfinite(raw)
        if odd.any():
            values[rows[odd]] = np.nan
    return values


def _in_range(whole: Floats, low: float, high: float) -> tuple[Floats, Bools | None, Bools | None]:
    """Cut values to a range; tell which are no numbers, and which of the others were cut."""
    if not len(whole) or (np.minimum.reduce(whole) >= low and np.maximum.reduce(whole) <= high):
        return whole, None, None
    values = np.clip(whole, low, high)
    lost = np.isnan(whole)
    return values, lost, (values != whole) & ~lost


def _found(named: Mapping[str, Bools | None]) -> dict[str, Bools]:
    """Leave out what no row has."""
    return {name: rows for name, rows in named.items() if rows is not None and rows.any()}


def _cost(cost: Cost, decisions: pa.StructArray) -> Floats:
    """Give what each decision costs; not finite where that isn't known."""
    total = np.zeros(len(decisions))
    if cost.actions:
        index = pc.index_in(decisions.field("action"), pa.array(list(cost.actions)))
        prices = np.array([*cost.actions.values(), 0.0])
        total += prices[index.fill_null(-1).to_numpy(zero_copy_only=False)]
    if cost.action_attribute is not None:
        total += _of_chosen(decisions, cost.action_attribute, cost.absent)
    if cost.subject_attribute is not None:
        maps = decisions.field("subject_numeric")
        total += numbers(maps, cost.subject_attribute, cost.absent)
    return total


def _of_chosen(decisions: pa.StructArray, name: str, absent: float | None) -> Floats:
    """Give an attribute of each chosen action; of one that is listed twice, the first one's."""
    listed = decisions.field("actions")
    places = offsets(listed)
    entries, rows = flat(places, listed.values), rows_of(places)
    chosen = pc.equal(entries.field("action"), decisions.field("action").take(pa.array(rows)))
    values = np.full(len(decisions), np.nan if absent is None else absent)
    found = numbers(entries.filter(chosen).field("numeric"), name, absent)
    values[rows[mask(chosen)][::-1]] = found[::-1]
    return values


def _sum(raw: Floats, starts: npt.NDArray[np.intp], sizes: npt.NDArray[np.intp]) -> Floats:
    # bincount adds one by one in the order of the rewards' log, so its rounding is the same
    # everywhere, which np.add.reduceat doesn't promise.
    groups = np.repeat(np.arange(len(starts)), sizes)
    return np.asarray(np.bincount(groups, weights=raw), dtype=np.float64)


_AGGREGATES: Mapping[
    str, Callable[[Floats, npt.NDArray[np.intp], npt.NDArray[np.intp]], Floats]
] = {
    "first": lambda raw, starts, _: raw[starts],
    "last": lambda raw, starts, sizes: raw[starts + sizes - 1],
    "sum": _sum,
    "mean": lambda raw, starts, sizes: _sum(raw, starts, sizes) / sizes,
    "max": lambda raw, starts, _: np.maximum.reduceat(raw, starts),
    "min": lambda raw, starts, _: np.minimum.reduceat(raw, starts),
    "count": lambda _raw, _starts, sizes: sizes.astype(np.float64),
}
