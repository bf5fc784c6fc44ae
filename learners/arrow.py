"""Nested Arrow columns as flat numpy arrays; hides offsets, and that a column may be a slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["entries", "flat", "mask", "rows_of", "sizes"]

Ints = npt.NDArray[np.int64]


def mask(column: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    """Give a column of truth values without nulls as bool[n]."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)


def sizes(column: pa.ListArray | pa.MapArray) -> Ints:
    """Give the number of entries in each row, int64[n]."""
    return np.asarray(np.diff(column.offsets.to_numpy()), dtype=np.int64)


def rows_of(column: pa.ListArray | pa.MapArray) -> Ints:
    """Give, for each entry, the row that it is in.

    Examples
    --------
    >>> rows_of(pa.array([[5], [], [6, 7]])).tolist()
    [0, 2, 2]
    """
    return np.repeat(np.arange(len(column)), sizes(column))


def flat(column: pa.ListArray | pa.MapArray, children: pa.Array) -> pa.Array:
    """Give the entries of all rows, one after the other.

    Parameters
    ----------
    column
        Lists or maps.
    children
        Its ``values``, ``keys`` or ``items``, which hold more where the column is a slice.
    """
    offsets = column.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    return children.slice(first, last - first)


def entries(column: pa.MapArray) -> tuple[Ints, list[str], npt.NDArray[Any], pa.Array]:
    """Give, for each entry of a map column, its row, its key as a code, and its item.

    Returns
    -------
    rows
        int64[m], the row of each entry.
    names
        The distinct keys.
    codes
        int[m], index of each entry's key among the names.
    items
        The m items.
    """
    keys = flat(column, column.keys).dictionary_encode()
    names = keys.dictionary.to_pylist()
    return rows_of(column), names, keys.indices.to_numpy(), flat(column, column.items)
