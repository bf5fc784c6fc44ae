"""Reward functions: from all raw rewards of an outcome to one number, and what it weighs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.learners.arrow import equal, flat, groups, mask, numbers, rows_of
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
        Reason to the rows (bool[n]) that can't be used for it.
    counters
        How many values were cut, by name; only where there were any.
    """

    values: Floats
    rejected: Mapping[str, Bools]
    counters: Mapping[str, int] = field(default_factory=dict)


def activated(name: str, rewards: pa.ListArray) -> Bools:
    """Tell which of n outcomes have a reward of a name, whatever its value.

    Examples
    --------
    >>> activated("open", pa.array([[{"name": "open", "value": 0.0}], []])).tolist()
    [True, False]
    """
    entries = flat(rewards, rewards.values)
    found = np.zeros(len(rewards), dtype=bool)
    found[rows_of(rewards)[mask(equal(entries.field("name"), name))]] = True
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
    >>> earned.values, earned.counters
    (array([10.,  1.]), {'clipped_reward': 1})
    """
    entries = flat(rewards, rewards.values)
    rows, names = rows_of(rewards), entries.field("name")
    raw = entries.field("value").to_numpy()
    own, *others = reward.addends
    with np.errstate(over="ignore", invalid="ignore"):
        whole = _part(own, len(rewards), rows, raw, mask(equal(names, own.name)))
        for other in others:
            whole += _part(other, len(rewards), rows, raw, mask(equal(names, other.name)))
        rejected = {"reward_not_finite": np.isnan(whole)}
        if reward.cost is not None:
            cost = _cost(reward.cost, decisions)
            rejected["cost"] = ~np.isfinite(cost)
            whole -= np.where(rejected["cost"], 0.0, cost)
    values = np.clip(whole, reward.low, reward.high)
    clipped = int(np.count_nonzero((values != whole) & ~rejected["reward_not_finite"]))
    return Earned(values, rejected, {"clipped_reward": clipped} if clipped else {})


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
    clipped = int(np.count_nonzero(small))
    counters = {"clipped_keep_probability": clipped} if clipped else {}
    return Earned(1.0 / used, {"keep_probability": ~good}, counters)


def _part(
    part: Addend, count: int, rows: npt.NDArray[np.int64], raw: Floats, counting: Bools
) -> Floats:
    """Weighted aggregate of the rewards that count; not-a-number where one isn't finite."""
    rows, raw = rows[counting], raw[counting]
    values = np.full(count, part.default)
    found, starts, sizes = groups(rows)
    if len(found):
        values[found] = _AGGREGATES[part.aggregate](raw, starts, sizes)
    values *= part.weight
    values[rows[~np.isfinite(raw)]] = np.nan
    return values


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
    entries, rows = flat(listed, listed.values), rows_of(listed)
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
