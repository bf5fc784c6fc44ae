"""Whether a map has a key twice; hides how that is seen for a whole batch at once.

Avro lets it pass, and then readers disagree: a dict keeps the last value, DuckDB finds the first,
and fails where the map is fetched, with all that is fetched with it. So it is refused.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["repeat_a_key"]


def repeat_a_key(array: pa.Array) -> bool:
    """Tell whether any map in a column, at any depth, has a key twice; the column is no slice.

    Examples
    --------
    >>> kind = pa.map_(pa.string(), pa.int64())
    >>> repeat_a_key(pa.array([[("a", 1), ("b", 2)], [("a", 3)]], kind))
    False
    >>> repeat_a_key(pa.array([[("a", 1), ("b", 2)], [("a", 3), ("a", 3)]], kind))
    True
    """
    if pa.types.is_map(array.type):
        lengths = np.diff(array.offsets.to_numpy())
        return _repeats(array.keys, lengths) or repeat_a_key(array.items)
    if pa.types.is_list(array.type):
        return repeat_a_key(array.values)
    if pa.types.is_struct(array.type):
        return any(repeat_a_key(array.field(at)) for at in range(array.type.num_fields))
    return False


def _repeats(keys: pa.Array, lengths: npt.NDArray[np.int32]) -> bool:
    width = int(lengths.max(initial=0))
    if width <= 1:
        return False
    if _alike(keys, lengths[lengths > 0], width):
        return len(keys[:width].unique()) < width
    codes = keys.dictionary_encode().indices.to_numpy().astype(np.int64)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    marks = np.sort(owners * len(keys) + codes)
    return bool((marks[1:] == marks[:-1]).any())


def _alike(keys: pa.Array, lengths: npt.NDArray[np.int32], width: int) -> bool:
    """Tell whether all maps have the same keys in the same order, as one service's mostly have."""
    if (lengths != width).any():
        return False
    return bool(pc.all(pc.equal(keys[width:], keys[: len(keys) - width])).as_py())
