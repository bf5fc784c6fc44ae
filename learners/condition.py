"""How near a posterior is to one that can't be solved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpocon

from bandstand.learners.triangles import Floats, lower_of

__all__ = ["condition_number"]


def condition_number(snapshot: Mapping[str, Any]) -> float | None:
    """Estimate the largest condition number of the actions' posteriors.

    It is that of an action's covariance of the weights, and of its inverse, the precision, in the
    1-norm, as LAPACK estimates it. Above 1e12 the last digits of what was solved mean little.

    Parameters
    ----------
    snapshot
        A record of the snapshot schema.

    Returns
    -------
    float or None
        None where the snapshot has no ``factor``: float64[K, d * (d + 1) / 2], lower triangles F,
        row by row, of which ``F'F`` is the covariance. A learner's own array of that name, in
        another shape, is none.

    Examples
    --------
    >>> data = np.array([[1.0, 0.0, 1.0], [0.5, 0.0, 2.0]]).tobytes()
    >>> condition_number({"arrays": [{"name": "factor", "shape": [2, 3], "data": data}]})
    16.0
    """
    for array in snapshot["arrays"]:
        if array["name"] == "factor" and (dimension := _dimension(array["shape"])):
            triangles = np.frombuffer(array["data"], "<f8").reshape(array["shape"])
            return max(map(_condition, lower_of(triangles, dimension)))
    return None


def _dimension(shape: Sequence[int]) -> int:
    """Give the width of the triangles that an array of a shape holds, 0 if it holds none."""
    if len(shape) != 2 or not all(shape):
        return 0
    dimension = (math.isqrt(8 * shape[1] + 1) - 1) // 2
    return dimension if dimension * (dimension + 1) // 2 == shape[1] else 0


def _condition(factor: Floats) -> float:
    norm = np.abs(factor.T @ factor).sum(axis=0).max()
    # Both axes turned round, the transpose is lower triangular: a Cholesky factor.
    reciprocal, _ = dpocon(factor.T[::-1, ::-1], norm, uplo="L")
    return float(1 / reciprocal) if reciprocal else math.inf
