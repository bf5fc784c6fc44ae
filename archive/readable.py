"""Which rows every reader of Parquet takes; pure.

Avro allows what others don't: a map with a key twice, a time beyond what a database can hold. One
such row would make a query over the whole file fail, in DuckDB for one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["unreadable_rows"]

_FARTHEST_MS = 253_402_300_799_999
"""End of the year 9999; as far on the other side of 1970."""
_TABLE_CELLS = 1 << 26


def unreadable_rows(batch: pa.RecordBatch) -> list[int]:
    """Give the rows, ascending, that some reader would stumble over.

    Examples
    --------
    >>> maps = pa.array([[("a", 1)], [("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64()))
    >>> unreadable_rows(pa.record_batch({"m": maps}))
    [1]
    """
    if all(_is_readable(column) for column in batch.columns):
        return []
    if batch.num_rows == 1:
        return [0]
    half = batch.num_rows // 2
    rest = unreadable_rows(batch.slice(half))
    return [*unreadable_rows(batch.slice(0, half)), *(half + row for row in rest)]


def _is_readable(array: pa.Array) -> bool:
    kind = array.type
    if pa.types.is_timestamp(kind):
        span = pc.min_max(array.view(pa.int64())).as_py()
        return span["min"] is None or -_FARTHEST_MS <= span["min"] <= span["max"] <= _FARTHEST_MS
    if pa.types.is_struct(kind):
        return all(_is_readable(child) for child in array.flatten())
    if pa.types.is_list(kind):
        return not pa.types.is_nested(kind.value_type) or _is_readable(array.flatten())
    if pa.types.is_map(kind):
        return not _has_repeated_keys(array)
    return True


def _has_repeated_keys(array: pa.MapArray) -> bool:
    offsets = np.asarray(array.offsets)
    keys = array.keys[int(offsets[0]) : int(offsets[-1])]
    if not len(keys):
        return False
    encoded = keys.dictionary_encode()
    count = len(encoded.dictionary)
    owners = np.repeat(np.arange(len(array), dtype=np.int64), np.diff(offsets))
    cells = owners * count + np.asarray(encoded.indices)
    return _distinct(cells, len(array) * count) < len(keys)


def _distinct(cells: npt.NDArray[np.int64], size: int) -> int:
    if size > _TABLE_CELLS:
        return len(np.unique(cells))
    seen = np.zeros(size, dtype=bool)
    seen[cells] = True
    return int(np.count_nonzero(seen))
