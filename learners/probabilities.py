"""The exact probability that each of several independent posteriors gives the largest value.

Thompson sampling draws one value an action and takes the largest. The probability that this is
action k is an integral over one number, ::

    P(k) = integral of pdf_k(x) * product over j != k of cdf_j(x) dx

which is computed here for all k at once, on one grid: with C the cdfs, G their product and w the
weights of the quadrature, ``P = (pdf / C) @ (w * G)``. No value is drawn.

The grid starts at L, the largest of the actions' lowest plausible values (5.5 standard deviations
below the mean): left of it the leader's cdf, and with it the product, is below 2e-8. Actions whose
highest plausible value is below L can't win and get 0. From L the spacing grows exponentially,
since whatever is narrow lies near L in units of its own width.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import (
    betainc,
    betaincc,
    betaincinv,
    betaln,
    expit,
    log_expit,
    logit,
    ndtr,
    poch,
    polygamma,
    stdtr,
    stdtrit,
)

from bandstand.learners.panels import largest_by_panels

__all__ = ["beta_best", "gaussian_best", "shared_best", "student_best", "with_floor"]

Floats = npt.NDArray[np.float64]

REACH: Final = 5.5
"""Standard deviations from the mean that count as plausible."""

TAIL: Final = float(ndtr(-REACH))
"""Probability beyond that, 1.9e-8."""

NARROWEST: Final = 1e-12
"""Least standard deviation, in parts of the greatest, for which nodes are precomputed."""

LEAST_DEVIATION: Final = 1e-150
"""Standard deviation that is none; its square, and what is divided by it, are still numbers."""

DENSITY: Final = ((10, 16), (20, 20), (200, 32), (10**9, 40))
"""Nodes per unit of t, where x = L + delta * (e**t - 1), for up to that many actions.

The largest of many equal variables has a narrow density, far from L, where nodes stand apart.
"""


class _Nodes:
    """e**t - 1, and e**t with the first halved (the trapezoid's weights), on evenly spaced t."""

    def __init__(self, density: int) -> None:
        self.density = density
        t = np.arange(0, 40 * density) / density
        self.expm1 = np.expm1(t)
        self.weights = np.exp(t)
        self.weights[0] = 0.5


_NODES = tuple(_Nodes(density) for _, density in DENSITY)


def _nodes(actions: int) -> _Nodes:
    return _NODES[bisect_left(DENSITY, (actions,))]


def gaussian_best(mean: Floats, deviation: Floats) -> Floats:
    """Probability of each of k independent normal variables to be the largest.

    Parameters
    ----------
    mean
        float64[k], finite.
    deviation
        float64[k], standard deviations, >= 0. One below 1e-12 of the greatest counts as that
        much. If all are below 1e-150, the greatest mean wins, and equal ones share.

    Returns
    -------
    float64[k], >= 0, sum 1; each within 1e-7 of the integral.

    Examples
    --------
    A difference of 3 with standard deviation 5 is positive with probability cdf(0.6):

    >>> gaussian_best(np.array([3.0, 0.0]), np.array([3.0, 4.0])).round(6)
    array([0.725747, 0.274253])
    """
    if len(mean) == 1:
        return np.ones(1)
    widest = float(np.maximum.reduce(deviation))
    if widest < LEAST_DEVIATION:
        return shared_best(mean)
    deviation = np.maximum(deviation, NARROWEST * widest)
    if len(mean) == 2:
        spread = math.hypot(deviation[0], deviation[1])
        first = float(ndtr((mean[0] - mean[1]) / spread))
        return np.array([first, 1.0 - first])
    margin = REACH * deviation
    highest = mean + margin
    lowest, end = np.maximum.reduce(mean - margin), np.maximum.reduce(highest)
    if np.minimum.reduce(highest) >= lowest:
        return _gaussian_integral(mean, deviation, lowest, end)
    able = highest >= lowest
    result = np.zeros(len(mean))
    result[able] = _gaussian_integral(mean[able], deviation[able], lowest, end)
    return result


def _gaussian_integral(mean: Floats, deviation: Floats, lowest: float, highest: float) -> Floats:
    nodes = _nodes(len(mean))
    delta = 2.0 * float(np.minimum.reduce(deviation))
    count = math.ceil(math.log1p((highest - lowest) / delta) * nodes.density) + 2
    narrowness = (1.0 / deviation)[:, None]
    z = (lowest - mean)[:, None] + delta * nodes.expm1[:count]
    z *= narrowness
    below = ndtr(z)
    weights = np.multiply.reduce(below, axis=0)
    weights *= nodes.weights[:count]
    np.square(z, out=z)
    z *= -0.5
    np.exp(z, out=z)
    z /= below
    z *= narrowness
    result = z @ weights
    result /= np.add.reduce(result)
    return np.asarray(result)


def shared_best(scores: Floats) -> Floats:
    """Give the largest score all the probability; equal ones share it.

    Parameters
    ----------
    scores
        float64[k], finite.

    Examples
    --------
    >>> shared_best(np.array([2.0, 1.0, 2.0])).tolist()
    [0.5, 0.0, 0.5]
    """
    best = scores == scores.max()
    return np.asarray(best / best.sum())


WIDEST_STEP: Final = 4.0
"""Spacing of the grid over log-odds, per unit of t, where it stops growing."""


def beta_best(successes: Floats, failures: Floats) -> Floats:
    """Probability of each of k independent beta variables to be the largest.

    The integral runs over the log-odds, in which even a beta variable with tiny parameters has a
    smooth density.

    Parameters
    ----------
    successes, failures
        float64[k], the parameters of each, at least 0.1.

    Returns
    -------
    float64[k], >= 0, sum 1; each within 1e-6 of the integral.

    Examples
    --------
    Against a uniform variable, one with mean 0.6 wins with probability 0.6:

    >>> beta_best(np.array([3.0, 1.0]), np.array([2.0, 1.0])).round(6)
    array([0.6, 0.4])
    """
    if len(successes) == 1:
        return np.ones(1)
    low = logit(betaincinv(successes, failures, TAIL))
    high = -logit(betaincinv(failures, successes, TAIL))
    able = high >= low.max()
    a, b = successes[able], failures[able]
    width = np.sqrt(polygamma(1, a) + polygamma(1, b))
    delta, density = 2.0 * min(1.0, float(width.min())), _nodes(len(a)).density
    x, weights = _graded(float(low.max()), float(high.max()), delta, density)
    a, b = a[:, None], b[:, None]
    below = np.where(x < 0, betainc(a, b, expit(x)), betaincc(b, a, expit(-x)))
    density = np.exp(a * log_expit(x) + b * log_expit(-x) - betaln(a, b))
    result = np.zeros(len(successes))
    result[able] = (density / below) @ (weights * below.prod(axis=0))
    return np.asarray(result / result.sum())


STUDENT_TAIL: Final = 1e-9
"""Probability that is left out on either side, of the action that reaches furthest up there."""


def student_best(mean: Floats, scale: Floats, freedom: Floats) -> Floats:
    """Probability of each of k independent Student-t variables to be the largest.

    Their tails are too heavy for the Gaussian's grid: a wide one may win from far below a narrow
    one, or from far above. So the integral is taken on panels that are halved until they add up
    (`learners/panels.py`), wherever the densities lie.

    Parameters
    ----------
    mean
        float64[k], finite: the locations.
    scale
        float64[k], > 0.
    freedom
        float64[k], degrees of freedom, at least 0.2.

    Returns
    -------
    float64[k], >= 0, sum 1; each within 1e-7 of the integral.

    Examples
    --------
    Two Cauchy variables (one degree of freedom) differ by a Cauchy variable with both scales:

    >>> student_best(np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.ones(2)).round(6)
    array([0.75, 0.25])
    """
    if len(mean) == 1:
        return np.ones(1)
    reach = -scale * stdtrit(freedom, STUDENT_TAIL)
    lowest, highest = float((mean - reach).max()), float((mean + reach).max())
    able = mean + reach >= lowest
    degrees = freedom[able][:, None, None]
    # gamma((f + 1) / 2) / gamma(f / 2), without a difference of logarithms
    norm = poch(degrees / 2.0, 0.5) / np.sqrt(np.pi * degrees)

    def standard(z: Floats) -> tuple[Floats, Floats]:
        power = -(degrees + 1.0) / 2.0 * np.log1p(z * z / degrees)
        return stdtr(degrees, z), norm * np.exp(power)

    result = np.zeros(len(mean))
    result[able] = largest_by_panels(mean[able], scale[able], lowest, highest, standard)
    return result


def _graded(lowest: float, highest: float, delta: float, density: int) -> tuple[Floats, Floats]:
    """Nodes and trapezoid weights from lowest to highest, in smoothly growing steps.

    ``dx/dt = delta * e**t / (1 + r * e**t)`` with ``r = delta / WIDEST_STEP``: exponential where
    x is near the lowest, then linear.
    """
    ratio = delta / WIDEST_STEP
    span = (highest - lowest) / WIDEST_STEP
    end = span + math.log1p(ratio - math.exp(-span)) - math.log(ratio)
    t = np.arange(math.ceil(end * density) + 2) / density
    # log((1 + r e^t) / (1 + r)), without overflow for large t
    grown = np.logaddexp(0.0, t + math.log(ratio)) - math.log1p(ratio)
    weights = WIDEST_STEP / density * expit(t + math.log(ratio))
    weights[0] /= 2.0
    return lowest + WIDEST_STEP * grown, weights


def with_floor(probabilities: Floats, floor: float) -> Floats:
    """Mix with the uniform distribution so that no probability is below the floor.

    ``floor + (1 - k * floor) * p`` for k actions; all equal where k * floor reaches 1.

    Examples
    --------
    >>> with_floor(np.array([1.0, 0.0]), 0.25)
    array([0.75, 0.25])
    """
    if floor <= 0.0:
        return probabilities
    room = max(0.0, 1.0 - len(probabilities) * floor)
    return (
        floor + room * probabilities
        if room
        else np.full_like(probabilities, 1 / len(probabilities))
    )
