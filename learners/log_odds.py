"""Log-odds of rewards: the mode to which an outcome moves them, and what they let expect."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bandstand.learners.triangles import Floats

__all__ = ["expected", "expecting", "mode_of"]

_MOST_STEPS: Final = 100
"""More than halving needs, from the widest bracket to the last bit."""


def expected(mean: Floats, deviation: Floats) -> Floats:
    """Give the reward that is expected of Gaussian log-odds.

    By MacKay's ``sigmoid(mean / sqrt(1 + pi * v / 8))``, v their variance, but at most
    ``exp(mean + v / 2)``; so also of failures.

    Parameters
    ----------
    mean, deviation
        Of the log-odds, float64[k].

    Returns
    -------
    float64[k], 0 to 1.

    Examples
    --------
    >>> expected(np.array([0.0, -6.0]), np.array([1.0, 2.0])).round(4)
    array([0.5   , 0.0183])
    """
    variance = deviation * deviation
    away = -np.abs(mean)
    odds = away / np.sqrt(1.0 + math.pi / 8.0 * variance)
    most = np.exp(np.minimum(away + 0.5 * variance, 0.0))
    rarer = np.minimum(0.5 + 0.5 * np.tanh(0.5 * odds), most)
    return np.asarray(np.where(mean < 0.0, rarer, 1.0 - rarer))


def expecting(share: Floats, variance: Floats) -> Floats:
    """Give the mean log-odds whose `expected` is a share, 0 to 1 without the ends."""
    rarer = np.minimum(share, 1.0 - share)
    odds = np.log(rarer / (1.0 - rarer)) * np.sqrt(1.0 + math.pi / 8.0 * variance)
    away = np.maximum(odds, np.log(rarer) - 0.5 * variance)
    return np.asarray(np.where(share <= 0.5, away, -away))


def mode_of(mean: float, variance: float, reward: float, weight: float) -> tuple[float, float]:
    """Find the mode of N(mean, variance) times a Bernoulli likelihood to a power, over log-odds z.

    ``z = mean + variance * weight * (reward - sigmoid(z))`` has one root, since its right side
    falls; it lies between the values of that side at sigmoids of 1 and 0. Newton's steps, halved
    where they leave what is known of the root.

    Returns
    -------
    gain
        ``weight * (reward - sigmoid(z))``, so that ``z = mean + variance * gain``.
    curvature
        ``weight * sigmoid(z) * (1 - sigmoid(z))``.
    """
    variance *= weight
    low, high = mean + variance * (reward - 1.0), mean + variance * reward
    z = min(max(mean, low), high)
    for _ in range(_MOST_STEPS):
        share = _sigmoid(z)
        excess = z - mean - variance * (reward - share)
        if excess > 0.0:
            high = z
        else:
            low = z
        ahead = z - excess / (1.0 + variance * share * (1.0 - share))
        if not low < ahead < high:
            ahead = 0.5 * (low + high)
        if abs(ahead - z) <= 1e-14 * (1.0 + abs(z)):
            break
        z = ahead
    share = _sigmoid(z)
    return weight * (reward - share), weight * share * (1.0 - share)


def _sigmoid(z: float) -> float:
    if z >= 0.0:
        return 1.0 / (1.0 + math.exp(-z)) if z < 700.0 else 1.0
    return math.exp(z) / (1.0 + math.exp(z)) if z > -700.0 else 0.0
