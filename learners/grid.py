"""The grid that makes sums exact: why any order, split or machine gives the same bits.

Every feature and every scaled reward is put on whole steps of ``1 / STEPS = 2**-12`` and cut at
``LIMIT = 32``, so it is a whole number of at most ``32 * 2**12 = 2**17`` steps. From there:

1. A product of two has at most ``2**34`` steps of ``2**-24``.
2. A sum over a chunk of ``CHUNK = 2**16`` rows, and every part of that sum, in whatever order and
   with whatever blocking or fused multiply-add a BLAS kernel takes it, is a whole number of at most
   ``2**16 * 2**34 = 2**50`` steps. Float64 holds every whole number up to ``2**53``, so nothing is
   ever rounded: all orders give the same bits.
3. Chunks are added as int64. A total is refused before it reaches ``HEADROOM = 2**62`` steps, which
   no fewer than ``2**62 / 2**34 = 268 million`` rows at the very limit can do, or 67 million in a
   sum without products, to which a row adds up to ``ROW_MOST = 2**36``.

Integers under addition are a commutative group; so are the statistics made of them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bandstand.learners.arrow import room

__all__ = [
    "CHUNK",
    "HEADROOM",
    "LIMIT",
    "PLAIN_LIMIT",
    "ROW_MOST",
    "STEPS",
    "refuse_overflow",
    "to_steps",
    "weigh",
    "whole",
]

STEPS: Final = 4096
"""Steps of the grid in 1."""

LIMIT: Final = 32
"""Magnitude at which a value is cut before it enters a product."""

PLAIN_LIMIT: Final = 2**24
"""Magnitude at which a value that enters no product is cut: a chunk of them sums up to 2**52."""

ROW_MOST: Final = PLAIN_LIMIT * STEPS
"""Most steps by which one row moves a total."""

CHUNK: Final = 65_536
"""Most rows whose products are summed in float64."""

HEADROOM: Final = 2**62
"""Magnitude that no total may reach."""


def to_steps(
    values: npt.ArrayLike,
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_] | None]:
    """Put values on the grid.

    Parameters
    ----------
    values
        Any shape; finite or infinite.

    Returns
    -------
    steps
        Whole numbers of at most ``LIMIT * STEPS`` steps; halves go to the even step. Float32 for
        values in float32, which holds them as well, else float64. Not-a-number stays what it is.
    cut
        Which values were cut, or are no numbers, in the same shape; None where none was.

    Examples
    --------
    >>> to_steps([0.5, 1 / 4096 + 1e-9, -33.0])
    (array([ 2.04800e+03,  1.00000e+00, -1.31072e+05]), array([False, False,  True]))
    >>> to_steps([0.5])
    (array([2048.]), None)
    """
    values = np.asarray(values)
    kind = np.float32 if values.dtype == np.float32 else np.float64
    steps = room(values.shape, kind)
    if values.size == 0:
        return steps, None
    if max(np.maximum.reduce(values, None), -np.minimum.reduce(values, None)) <= LIMIT:
        np.multiply(values, kind(STEPS), out=steps, dtype=kind)
        return np.rint(steps, out=steps), None
    with np.errstate(over="ignore"):
        np.multiply(values, kind(STEPS), out=steps, dtype=kind)
    np.rint(steps, out=steps)
    most = float(LIMIT * STEPS)
    cut = ~(np.abs(steps) <= most)
    return np.clip(steps, -most, most, out=steps), (cut if cut.any() else None)


def weigh(
    steps: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
    """Multiply rows by the square root of their weight, so that their products have the weight.

    Parameters
    ----------
    steps
        float64[n, d], whole steps.
    weights
        float64[n], 0 to 1000.

    Returns
    -------
    steps
        float64[n, d], whole steps, cut as by `to_steps`.
    roots
        float64[n], the square roots, in whole steps: what a column of ones became.
    cut
        Which values were cut, bool[n, d]; None where none was.

    Examples
    --------
    >>> weigh(np.array([[4096.0, 100.0], [1.0, 3e5]]), np.array([4.0, 2.0]))[:2]
    (array([[8.19200e+03, 2.00000e+02],
           [1.00000e+00, 1.31072e+05]]), array([8192., 5793.]))
    """
    roots: npt.NDArray[np.float64] = np.sqrt(weights)
    rows, cut = to_steps(steps / STEPS * roots[:, None])
    return rows.astype(np.float64), np.rint(roots * STEPS), cut


def whole(steps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round values that are in steps already, and that enter no product, to whole steps.

    Parameters
    ----------
    steps
        float64[n], finite; cut at ``PLAIN_LIMIT * STEPS``.

    Examples
    --------
    >>> whole(np.array([2.4, -2.6, 1e30])).tolist()
    [2.0, -3.0, 68719476736.0]
    """
    most = float(PLAIN_LIMIT * STEPS)
    return np.clip(np.rint(steps), -most, most)


def refuse_overflow(totals: npt.NDArray[np.int64], unseen: int = 0) -> int:
    """Give the largest magnitude among totals.

    Parameters
    ----------
    totals
        Any shape.
    unseen
        Rows that may be taken away again: none of the totals on the way may be too large, either.

    Raises
    ------
    OverflowError
        If it has reached `HEADROOM`, or may have done so on the way.
    """
    if totals.size == 0:
        return 0
    largest = max(int(np.maximum.reduce(totals, None)), -int(np.minimum.reduce(totals, None)))
    if largest + unseen * ROW_MOST >= HEADROOM:
        raise OverflowError(f"a total has {largest} steps; allowed: less than {HEADROOM}")
    return largest
