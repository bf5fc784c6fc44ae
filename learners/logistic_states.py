"""Logistic posteriors put together, taken apart from their prior, and begun anew with another one.

What the outcomes behind a posterior ``N(m, P)`` said, if it began with ``N(m0, P0)``, is four
things: how many they were, the place m, and there the slope ``P0 (m - m0)`` and the curvature
``A = P - P0`` of their log-likelihood. Nothing of the prior is in it, and its mode is where it was:
the slope and the curvature hold at m whatever it begins with. To count them as a share f of so many
outcomes is to raise the likelihood to the power f, so that slope and curvature are multiplied by
it. To begin with them under another prior is to look for the mode as
`bandstand.learners.logistic_merge` does, with slopes that follow the sigmoid. Under the same
prior, with all of it, that is m again.

Kept are ``outcomes``, ``place`` (outcomes times m), ``slope`` and ``curvature``, all in proportion
to the number of outcomes, as sums are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bandstand.learners.logistic_merge import Part, joined
from bandstand.learners.protocols import Arrays
from bandstand.learners.triangles import Floats, symmetric_of, triangle

__all__ = [
    "begun",
    "diagonal_begun",
    "diagonal_product",
    "diagonal_said",
    "product",
    "said",
]


def product(states: Sequence[Arrays], mean: Floats, precision: Floats) -> Arrays:
    """Put together posteriors that all hold a prior of that mean and precision.

    Parameters
    ----------
    states
        Each ``mean``, float64[k, d], and ``covariance``, float64[k, d * (d + 1) / 2].
    mean, precision
        float64[k, d].

    Returns
    -------
    Arrays
        The same of all.
    """
    curvatures = [_curvature(state, precision) for state in states]
    parts = [_part(*pair) for pair in zip((s["mean"] for s in states), curvatures, strict=True)]
    return _posterior(parts, mean, precision)


def said(state: Arrays, mean: Floats, precision: Floats) -> Arrays:
    """Give ``place``, ``slope`` and ``curvature`` (lower triangle, row by row) of a posterior."""
    curvature = triangle(_curvature(state, precision))
    return {**_slope(state, mean, precision), "curvature": curvature}


def begun(evidence: Arrays, mean: Floats, precision: Floats) -> Arrays:
    """Give the posterior of a prior and of what was `said`, of actions that have had outcomes."""
    curvature = symmetric_of(evidence["curvature"], mean.shape[1])
    return _posterior([_part(_place(evidence), curvature)], mean, precision, evidence["slope"])


def diagonal_product(states: Sequence[Arrays], mean: Floats, precision: Floats) -> Arrays:
    """Put together posteriors that all hold a prior of that mean and precision.

    Parameters
    ----------
    states
        Each ``mean``, ``precision`` and ``pull``, the sum of curvatures times features.
    mean, precision
        float64[k, d], as all arrays.

    Returns
    -------
    Arrays
        The same of all.
    """
    pulls = [state["pull"] for state in states]
    parts = [
        _diagonal_part(state["mean"], state["precision"] - precision, state["pull"])
        for state in states
    ]
    return _diagonal_posterior(parts, pulls, mean, precision)


def diagonal_said(state: Arrays, mean: Floats, precision: Floats) -> Arrays:
    """Give ``place``, ``slope``, ``curvature`` and ``pull`` of a posterior, float64[k, d]."""
    curvature = state["precision"] - precision
    return {**_slope(state, mean, precision), "curvature": curvature, "pull": state["pull"]}


def diagonal_begun(evidence: Arrays, mean: Floats, precision: Floats) -> Arrays:
    """As `begun`, of what was `diagonal_said`."""
    pull = evidence["pull"]
    part = _diagonal_part(_place(evidence), evidence["curvature"], pull)
    return _diagonal_posterior([part], [pull], mean, precision, evidence["slope"])


def _slope(state: Arrays, mean: Floats, precision: Floats) -> Arrays:
    return {
        "place": state["mean"] * state["outcomes"][:, np.newaxis],
        "slope": precision * (state["mean"] - mean),
    }


def _place(evidence: Arrays) -> Floats:
    return np.asarray(evidence["place"] / evidence["outcomes"][:, np.newaxis])


def _curvature(state: Arrays, precision: Floats) -> Floats:
    dimension = precision.shape[1]
    before = np.eye(dimension) * precision[:, :, np.newaxis]
    curvature = np.linalg.inv(symmetric_of(state["covariance"], dimension)) - before
    return np.asarray((curvature + curvature.swapaxes(1, 2)) / 2)


def _part(mean: Floats, curvature: Floats) -> Part:
    return Part(mean, curvature, _middle(curvature[:, 0], curvature[:, 0, 0]))


def _diagonal_part(mean: Floats, curvature: Floats, pull: Floats) -> Part:
    return Part(mean, curvature, _middle(pull, curvature[:, 0]))


def _posterior(
    parts: Sequence[Part], mean: Floats, precision: Floats, slope: Floats | None = None
) -> Arrays:
    weights, ratios = joined(parts, mean, precision, slope)
    total = np.eye(mean.shape[1]) * precision[:, :, np.newaxis]
    for part, ratio in zip(parts, ratios, strict=True):
        total = total + ratio[:, np.newaxis, np.newaxis] * part.curvature
    covariance = np.linalg.inv(total)
    return {
        "mean": weights,
        "covariance": triangle((covariance + covariance.swapaxes(1, 2)) / 2),
    }


def _diagonal_posterior(
    parts: Sequence[Part],
    pulls: Sequence[Floats],
    mean: Floats,
    precision: Floats,
    slope: Floats | None = None,
) -> Arrays:
    weights, ratios = joined(parts, mean, precision, slope)
    total, pull = precision, np.zeros_like(precision)
    for part, own, ratio in zip(parts, pulls, ratios, strict=True):
        total = total + ratio[:, np.newaxis] * part.curvature
        pull += ratio[:, np.newaxis] * own
    return {"mean": weights, "precision": total, "pull": pull}


def _middle(pull: Floats, weight: Floats) -> Floats:
    """Give the mean of the features, weighed by curvature; the intercept's where there is none."""
    middle = np.zeros_like(pull)
    middle[:, 0] = 1.0
    some = weight > 0.0
    middle[some] = pull[some] / weight[some, np.newaxis]
    return middle
