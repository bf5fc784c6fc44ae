"""Nested Arrow columns as flat numpy arrays; hides offsets, and that a column may be a slice."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "entries",
    "equal",
    "flat",
    "groups",
    "mask",
    "numbers",
    "offsets",
    "room",
    "rows_of",
    "sizes",
]

Ints = npt.NDArray[np.int64]

LARGE: Final = 2**17
"""Bytes from which the C library asks the system for memory."""

_EQUAL: Final = pc.get_function("equal")


def mask(column: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    """Give a column of truth values without nulls as bool[n]."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)


def equal(column: pa.StringArray, text: str) -> pa.BooleanArray:
    """Tell which texts of a column are this one."""
    return _EQUAL.call([column, _scalar(text)])


@lru_cache(maxsize=1024)
def _scalar(text: str) -> pa.StringScalar:
    return pa.scalar(text)


def room(shape: tuple[int, ...], kind: type[np.floating[Any]]) -> npt.NDArray[Any]:
    """Give an array without content; a large one in memory of Arrow's pool.

    The pool keeps its pages for the next batch. The C library gives those of large arrays back, and
    getting them anew takes twice as long as all that is computed in them.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    if size < LARGE:
        return np.empty(shape, kind)
    return np.frombuffer(pa.allocate_buffer(size), kind).reshape(shape)


def offsets(column: pa.ListArray | pa.MapArray) -> Ints:
    """Give where the entries of each row begin among the column's children, and the last end."""
    return np.asarray(column.offsets.to_numpy())


def sizes(places: Ints) -> Ints:
    """Give the number of entries in each row of a column with these `offsets`."""
    return places[1:] - places[:-1]


def rows_of(places: Ints) -> Ints:
    """Give, for each entry of a column with these `offsets`, the row that it is in.

    Examples
    --------
    >>> rows_of(offsets(pa.array([[5], [], [6, 7]]))).tolist()
    [0, 2, 2]
    """
    return np.arange(len(places) - 1).repeat(sizes(places))


def flat(places: Ints, children: pa.Array) -> pa.Array:
    """Give the entries of all rows, one after the other.

    Parameters
    ----------
    places
        The `offsets` of a column of lists or maps.
    children
        Its ``values``, ``keys`` or ``items``, which hold more where the column is a slice.
    """
    first, last = int(places[0]), int(places[-1])
    return children if last - first == len(children) else children.slice(first, last - first)


def groups(rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Give the distinct numbers among ascending ones, where each begins and how often it is there.

    Examples
    --------
    >>> groups(np.array([0, 2, 2, 5]))
    (array([0, 2, 5]), array([0, 1, 3]), array([1, 2, 1]))
    """
    begins = np.ones(len(rows) + 1, dtype=bool)
    np.not_equal(rows[1:], rows[:-1], out=begins[1:-1])
    bounds = begins.nonzero()[0]
    starts = bounds[:-1]
    return rows[starts], starts, bounds[1:] - starts


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
    places = offsets(column)
    keys = flat(places, column.keys).dictionary_encode()
    names = keys.dictionary.to_pylist()
    return rows_of(places), names, keys.indices.to_numpy(), flat(places, column.items)


def numbers(column: pa.MapArray, key: str, absent: float | None = None) -> npt.NDArray[np.float64]:
    """Give the value of one key in each row, float64[n].

    Where it isn't there, `absent`, or not-a-number. Of a key that stands twice the last counts.

    Examples
    --------
    >>> kind = pa.map_(pa.string(), pa.float64())
    >>> maps = pa.array([[("a", 1.0), ("a", 2.0)], [("b", 3.0)]], kind)
    >>> numbers(maps, "a"), numbers(maps, "a", absent=7.0)
    (array([ 2., nan]), array([2., 7.]))
    """
    found = pc.map_lookup(column, pa.scalar(key, column.type.key_type), "last")
    filled = found.fill_null(np.nan if absent is None else absent)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.float64)
