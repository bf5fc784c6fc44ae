"""Reward functions: from all raw rewards of an outcome to one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bandstand.learners.arrow import equal, flat, groups, mask, rows_of
from bandstand.schemas.spec import Reward

__all__ = ["reduce"]

Floats = npt.NDArray[np.float64]


def reduce(reward: Reward, rewards: pa.ListArray) -> tuple[Floats, dict[str, int]]:
    """Apply a reward function to a column of outcomes.

    Rewards of other names don't count. Where none counts, the result is the default.

    Parameters
    ----------
    reward
        The spec's reward function.
    rewards
        The column ``rewards`` of n outcomes.

    Returns
    -------
    values
        float64[n] in [low, high]; not-a-number where a reward that counts isn't finite.
    counters
        ``clipped_reward``: results that were cut to the range; only if there were any.

    Examples
    --------
    >>> entries = [[{"name": "buy", "value": 2.0}, {"name": "buy", "value": 9.0}], []]
    >>> spec = Reward(name="buy", aggregate="sum", low=0, high=10, default=1)
    >>> reduce(spec, pa.array(entries))
    (array([10.,  1.]), {'clipped_reward': 1})
    """
    count = len(rewards)
    entries = flat(rewards, rewards.values)
    counting = mask(equal(entries.field("name"), reward.name))
    rows, raw = rows_of(rewards)[counting], entries.field("value").to_numpy()[counting]

    values = np.full(count, reward.default)
    found, starts, sizes = groups(rows)
    if len(found):
        values[found] = _AGGREGATES[reward.aggregate](raw, starts, sizes)
    cut = np.clip(values, reward.low, reward.high)
    cut[rows[~np.isfinite(raw)]] = np.nan
    clipped = int(np.count_nonzero((cut != values) & ~np.isnan(cut)))
    return cut, {"clipped_reward": clipped} if clipped else {}


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
