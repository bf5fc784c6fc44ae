"""How the posteriors of logistic models that several partitions have learned are put together.

A posterior ``N(m, P)``, P its precision, that began with the prior ``N(m0, P0)`` says of its
outcomes: the slope of their log-likelihood at m is ``P0 (m - m0)``, its curvature ``A = P - P0``.
To multiply such Gaussians is to go on with that slope and curvature as far as the mode of all,
which for rare rewards can be many times too far: where a partition has had one success or none, its
own curvature is that of rates much lower than the common one. So the slope follows the sigmoid
instead, along the mean of the features, ``x = A[:, 0] / A[0, 0]``, weighed as the curvature is; the
first feature is always 1. Elsewhere at w, with ``e = x @ m`` and ``h = x @ (w - m)``::

    slope(w) = P0 (m - m0) - s A (w - m),  s = (sigmoid(e + h) - sigmoid(e)) / (h sigmoid'(e))
    curvature(w) = r A,                    r = sigmoid'(e + h) / sigmoid'(e)

Without features this is exact for outcomes of one common rate. The mode is where the slopes of both
and that of the prior add up to 0, found by Newton's steps of at most 1 in log-odds. There the
result's own slope is ``P0 (m - m0)`` again, so that more partitions can follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from bandstand.learners.triangles import Floats

__all__ = ["Part", "joined"]

_MOST_STEPS: Final = 100
_NEAR: Final = 1e-4
"""Log-odds below which ratios are taken from their series, right to 1e-12."""


class Part(NamedTuple):
    """What one partition knows of k actions.

    Parameters
    ----------
    mean
        Modes m, float64[k, d].
    curvature
        A, float64[k, d, d]; or its diagonal, float64[k, d], where weights are independent.
    middle
        x, float64[k, d].
    """

    mean: Floats
    curvature: Floats
    middle: Floats


def joined(
    parts: Sequence[Part], mean: Floats, precision: Floats, slope: Floats | None = None
) -> tuple[Floats, list[Floats]]:
    """Find the common mode of parts and a prior.

    Each action's is found apart from all others.

    Parameters
    ----------
    parts
        One or more.
    mean, precision
        The prior's, float64[k, d].
    slope
        Those of all parts' log-likelihoods, each at its own mode, added up, float64[k, d]; None
        where the modes are those of parts that began with this prior.

    Returns
    -------
    mean
        float64[k, d].
    ratios
        r of each part, float64[k]: the precision of all is the prior's and ``r A`` of each part.

    Examples
    --------
    Two partitions with 1 and 3 successes of 100, from a prior far above:

    >>> prior, rates = np.array([[0.0]]), np.array([[0.01], [0.03]])
    >>> odds = np.log(rates / (1 - rates))
    >>> parts = [Part(m[None], np.array([[[100 * p * (1 - p)]]]), np.ones((1, 1)))
    ...          for m, p in zip(odds, rates[:, 0])]
    >>> together, _ = joined(parts, prior, np.array([[1e-9]]))
    >>> round(float(1 / (1 + np.exp(-together[0, 0]))), 6)
    0.02
    """
    if slope is None:
        slope = precision * np.sum([part.mean - mean for part in parts], axis=0)
    weights = _first(parts, precision)
    open_ = np.ones(len(mean), dtype=bool)
    for _ in range(_MOST_STEPS):
        gap = slope - precision * (weights - mean)
        matrix, turns = _on_diagonal(precision, parts[0].curvature), []
        for part in parts:
            secant, _, turn = _ratios(part, weights)
            moved = _times(part.curvature, weights - part.mean)
            gap -= secant[:, None] * moved
            matrix = matrix + _scaled(secant, part.curvature)
            turns.append((moved * turn[:, None], part.middle))
        step = _solved(matrix, gap, turns)
        far = np.max([abs(np.einsum("kd,kd->k", part.middle, step)) for part in parts], axis=0)
        step /= np.maximum(far, 1.0)[:, None]
        weights = np.where(open_[:, None], weights + step, weights)
        open_ &= abs(step).max(axis=1) > 1e-13 * (1.0 + abs(weights).max(axis=1))
        if not open_.any():
            break
    return weights, [_ratios(part, weights)[1] for part in parts]


def _first(parts: Sequence[Part], precision: Floats) -> Floats:
    """Give the mean of the parts' modes, weighed by their precisions: where to begin."""
    own = [_on_diagonal(precision, part.curvature) + part.curvature for part in parts]
    pulls = [_times(each, part.mean) for each, part in zip(own, parts, strict=True)]
    return _solved(np.sum(own, axis=0), np.sum(pulls, axis=0), [])


def _ratios(part: Part, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Give s, r, and the derivative of s by h."""
    at = np.einsum("kd,kd->k", part.middle, part.mean)
    ahead = np.einsum("kd,kd->k", part.middle, weights) - at
    up, down = (_log_sigmoid(sign * (at + ahead)) - _log_sigmoid(sign * at) for sign in (1.0, -1.0))
    near = abs(ahead) < _NEAR
    safe = np.where(near, 1.0, ahead)
    # (sigmoid(e + h) - sigmoid(e)) / sigmoid'(e), without cancelling, from the side that is small
    gained = np.exp(np.where(safe > 0.0, up, down))
    secant = -np.expm1(-abs(safe)) * gained / abs(safe)
    curve = np.exp(up + down)
    turn = (curve - secant) / safe
    share = np.exp(_log_sigmoid(at))
    lean, bend = (1.0 - 2.0 * share) / 2.0, (1.0 - 6.0 * share + 6.0 * share * share) / 6.0
    secant = np.where(near, 1.0 + ahead * (lean + ahead * bend), secant)
    return secant, curve, np.where(near, lean + 2.0 * ahead * bend, turn)


def _log_sigmoid(odds: Floats) -> Floats:
    """Give logarithms, for sigmoids far out are too small for a number of their own."""
    return np.asarray(-np.logaddexp(0.0, -odds))


def _on_diagonal(precision: Floats, like: Floats) -> Floats:
    """Give precisions as matrices, or as they are where matrices are kept as their diagonals."""
    if like.ndim == 2:
        return precision
    return np.asarray(np.eye(precision.shape[1]) * precision[:, :, None])


def _scaled(factor: Floats, matrices: Floats) -> Floats:
    return factor.reshape(-1, *[1] * (matrices.ndim - 1)) * matrices


def _times(matrices: Floats, vectors: Floats) -> Floats:
    if matrices.ndim == 2:
        return matrices * vectors
    return np.asarray(np.einsum("kij,kj->ki", matrices, vectors))


def _divided(matrices: Floats, columns: Floats) -> Floats:
    if matrices.ndim == 2:
        return np.asarray(columns / matrices[:, :, None])
    return np.asarray(np.linalg.solve(matrices, columns))


def _solved(matrices: Floats, right: Floats, turns: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Solve ``(matrix + sum of u v') x = right`` for each action, by Woodbury's identity."""
    left = [u for u, _ in turns]
    found = _divided(matrices, np.stack([right, *left], axis=2))
    if not turns:
        return np.asarray(found[:, :, 0])
    rows = np.stack([v for _, v in turns], axis=1) @ found
    small = np.eye(len(turns)) + rows[:, :, 1:]
    share = np.linalg.solve(small, rows[:, :, :1])
    return np.asarray((found[:, :, :1] - found[:, :, 1:] @ share)[:, :, 0])
