"""Which rows every reader of Parquet takes; pure.

Avro's times reach further than a database's. One such row would make a query over the whole file
fail, in DuckDB for one.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["unreadable_rows"]

_FARTHEST_MS = 253_402_300_799_999
"""End of the year 9999; as far on the other side of 1970."""


def unreadable_rows(batch: pa.RecordBatch) -> list[int]:
    """Give the rows, ascending, with a time, at any depth, that some reader would stumble over.

    Examples
    --------
    >>> times = pa.array([0, 2**62], pa.timestamp("ms"))
    >>> unreadable_rows(pa.record_batch({"ts": times}))
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
    if pa.types.is_timestamp(array.type):
        span = pc.min_max(array.view(pa.int64())).as_py()
        return span["min"] is None or -_FARTHEST_MS <= span["min"] <= span["max"] <= _FARTHEST_MS
    if pa.types.is_struct(array.type):
        return all(_is_readable(child) for child in array.flatten())
    if pa.types.is_list(array.type) and pa.types.is_nested(array.type.value_type):
        return _is_readable(array.flatten())
    return True
