"""Symmetric and triangular matrices as the numbers of their triangles, row by row."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "lower_of", "symmetric_of", "triangle"]

Floats = npt.NDArray[np.float64]


def triangle(squares: Floats) -> Floats:
    """Give the lower triangles of squares, float64[..., d, d], as float64[..., d * (d + 1) / 2].

    Examples
    --------
    >>> triangle(np.array([[1.0, 9.0], [2.0, 3.0]]))
    array([1., 2., 3.])
    """
    dimension = squares.shape[-1]
    flat = squares.reshape(*squares.shape[:-2], dimension * dimension)
    return np.asarray(flat.take(_lower(dimension), axis=-1))


def lower_of(triangles: Floats, dimension: int) -> Floats:
    """Give the lower triangular squares, float64[..., d, d], whose `triangle` is given.

    Examples
    --------
    >>> lower_of(np.array([1.0, 2.0, 3.0]), 2).tolist()
    [[1.0, 0.0], [2.0, 3.0]]
    """
    rows, columns = np.tril_indices(dimension)
    squares = np.zeros((*triangles.shape[:-1], dimension, dimension))
    squares[..., rows, columns] = triangles
    return squares


def symmetric_of(triangles: Floats, dimension: int) -> Floats:
    """Give the symmetric squares, float64[..., d, d], whose `triangle` is given.

    Examples
    --------
    >>> symmetric_of(np.array([1.0, 2.0, 3.0]), 2).tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    rows, columns = np.tril_indices(dimension)
    squares = np.empty((*triangles.shape[:-1], dimension, dimension))
    squares[..., rows, columns] = triangles
    squares[..., columns, rows] = triangles
    return squares


@cache
def _lower(dimension: int) -> npt.NDArray[np.intp]:
    """Positions of the lower triangle in a flattened square."""
    rows, columns = np.tril_indices(dimension)
    return np.asarray(rows * dimension + columns)
