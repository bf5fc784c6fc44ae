"""Which of several independent variables is the largest, by panels that are halved until right.

With probability::

    P(k) = integral of pdf_k(x) * product over j != k of cdf_j(x) dx

it is k. The integrands of all k add up to the derivative of G, the product of all cdfs. So in any
panel the probabilities of all k must add up to what G gains from its left end to its right one,
whatever the variables are: what the nodes step over lacks in the sum, but not in the gain. A panel
in which they differ is halved. As errors of two variables could cancel in the sum, each density,
too, must integrate to what its own cdf gains, as far as the others let it win there.

So the first panels needn't be good, only few. They are graded: from the mean of a narrow variable
outwards, each as wide as a multiple of the distance. Nodes are kept as offsets from that mean, its
anchor; otherwise floating point could not tell them apart where scales differ by more than 1e6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["largest_by_panels"]

Floats = npt.NDArray[np.float64]

TOLERANCE: Final = 1e-10
"""Probability by which sums and gains of a panel may differ."""

FIRST_RATIO: Final = 16.0
"""Distance of a first panel's far end from the anchor, in that of its near end."""

FAR: Final = 1e5
"""Scales between a mean and the nearest anchor from which on it is an anchor, too."""

BLOCK: Final = 2**18
"""Cells, actions times nodes, that are computed at once."""


def _lobatto(count: int) -> tuple[Floats, Floats]:
    """Nodes from 0 to 1, both included, and weights that are exact up to degree 2 count - 3.

    Abramowitz and Stegun, Handbook of mathematical functions (1964), 25.4.32.
    """
    legendre = np.polynomial.Legendre.basis(count - 1)
    nodes = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    return (nodes + 1.0) / 2.0, 1.0 / (count * (count - 1) * legendre(nodes) ** 2)


NODES, WEIGHTS = _lobatto(16)


def largest_by_panels(
    mean: Floats,
    scale: Floats,
    lowest: float,
    highest: float,
    standard: Callable[[Floats], tuple[Floats, Floats]],
) -> Floats:
    """Probability of each of k variables ``mean + scale * z`` to be the largest.

    Parameters
    ----------
    mean
        float64[k], finite: where each density is, and is smooth on both sides.
    scale
        float64[k], > 0: on what length it changes there; further off, on that of the distance.
    lowest, highest
        Where to integrate; what lies outside doesn't count.
    standard
        From z, float64[k, panels, nodes], to the cdfs and the densities of the k variables z there.

    Returns
    -------
    float64[k], >= 0, sum 1.

    Examples
    --------
    Two logistic variables, one with a thousandth of the other's scale:

    >>> from scipy.special import expit
    >>> def logistic(z):
    ...     return expit(z), expit(z) * expit(-z)
    >>> mean, scale = np.array([0.0, 2.0]), np.array([1.0, 0.001])
    >>> largest_by_panels(mean, scale, -50.0, 50.0, logistic).round(6)
    array([0.119203, 0.880797])
    """
    mean, scale = mean[:, None, None], scale[:, None, None]
    panels = _first(mean.ravel(), scale.ravel(), lowest, highest)
    block = max(1, BLOCK // (len(mean) * len(NODES)))
    result = np.zeros(len(mean))
    while panels.size:
        anchor, left, width = panels[:, -block:, None]
        panels = panels[:, :-block]
        z = ((anchor - mean) + (left + width * NODES)) / scale
        below, density = standard(z)
        density *= width / scale
        # Left out of the product of all, an action's own cdf may be 0, so it is left out before.
        others = _products_of_others(below)
        share = (density * others) @ WEIGHTS
        gain = np.diff(below[0, :, [0, -1]] * others[0, :, [0, -1]], axis=0)[0]
        own = (density @ WEIGHTS - (below[..., -1] - below[..., 0])) * others[..., -1]
        error = np.maximum(np.abs(share.sum(axis=0) - gain), np.abs(own).max(axis=0))
        wrong = error > TOLERANCE
        result += share[:, ~wrong].sum(axis=1)
        anchor, left, half = anchor[wrong, 0], left[wrong, 0], width[wrong, 0] / 2.0
        panels = np.hstack([panels, [anchor, left, half], [anchor, left + half, half]])
    return np.asarray(result / result.sum())


def _first(mean: Floats, scale: Floats, lowest: float, highest: float) -> Floats:
    """Panels graded around each anchor: rows of anchors, left ends (from the anchor), widths."""
    anchors: dict[float, float] = {}
    for position, width in sorted(zip(mean, scale, strict=True), key=lambda pair: pair[1]):
        if all(abs(position - anchor) > FAR * width for anchor in anchors):
            anchors[position] = width
    places = np.array(sorted(anchors))
    between = [lowest, *(places[:-1] + np.diff(places) / 2.0), highest]
    panels = []
    for anchor, start, end in zip(places, between[:-1], between[1:], strict=True):
        first, last, width = start - anchor, end - anchor, anchors[anchor]
        count = int(np.log(max(-first, last, width) / width) / np.log(FIRST_RATIO)) + 1
        graded = width * FIRST_RATIO ** np.arange(count)
        edges = np.concatenate([-graded[::-1], [0.0], graded])
        edges = np.concatenate([[first], edges[(first < edges) & (edges < last)], [last]])
        panels.append([np.full(len(edges) - 1, anchor), edges[:-1], np.diff(edges)])
    return np.hstack(panels)


def _products_of_others(factors: Floats) -> Floats:
    """Give, for each row, the product of all other rows."""
    before, after = np.ones_like(factors), np.ones_like(factors)
    np.cumprod(factors[:-1], axis=0, out=before[1:])
    after[:-1] = np.cumprod(factors[:0:-1], axis=0)[::-1]
    return before * after
