"""Whether a map has a key twice; hides how that is seen for a whole batch at once.

Avro lets it pass, and then readers disagree: a dict keeps the last value, DuckDB finds the first,
and fails where the map is fetched, with all that is fetched with it. So it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Steps", "maps_of", "repeat_a_key"]

Steps = tuple[int | str, ...]
"""From a batch to one of its columns of maps: fields by number, ``values`` of a list, ``items``."""


def maps_of(schema: pa.Schema) -> tuple[Steps, ...]:
    """Find all maps in the columns of a schema, at any depth.

    Examples
    --------
    >>> kind = pa.map_(pa.string(), pa.int64())
    >>> maps_of(pa.schema({"a": pa.int64(), "b": pa.list_(kind)}))
    ((1, 'values'),)
    """
    kinds = enumerate(schema.types)
    return tuple((number, *steps) for number, kind in kinds for steps in _maps_in(kind))


def repeat_a_key(table: pa.RecordBatch, maps: Sequence[Steps]) -> bool:
    """Tell whether any of these maps has a key twice in any row; the batch is no slice.

    Examples
    --------
    >>> kind = pa.map_(pa.string(), pa.int64())
    >>> def repeats(*rows):
    ...     table = pa.RecordBatch.from_arrays([pa.array(rows, kind)], ["a"])
    ...     return repeat_a_key(table, [(0,)])
    >>> repeats([("a", 1), ("b", 2)], [("a", 3)])
    False
    >>> repeats([("a", 1), ("b", 2)], [("a", 3), ("a", 3)])
    True
    """
    return any(_repeats(_reached(table, steps)) for steps in maps)


def _maps_in(kind: pa.DataType) -> Iterator[Steps]:
    if pa.types.is_map(kind):
        yield ()
        yield from (("items", *steps) for steps in _maps_in(kind.item_type))
    elif pa.types.is_list(kind):
        yield from (("values", *steps) for steps in _maps_in(kind.value_type))
    elif pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from ((number, *steps) for steps in _maps_in(kind.field(number).type))


def _reached(table: pa.RecordBatch, steps: Steps) -> pa.MapArray:
    first, *more = steps
    array = table.column(first)
    for step in more:
        array = array.field(step) if isinstance(step, int) else getattr(array, step)
    return array


def _repeats(maps: pa.MapArray) -> bool:
    offsets = maps.offsets.to_numpy()
    lengths = offsets[1:] - offsets[:-1]
    width = int(lengths.max(initial=0))
    if width <= 1:
        return False
    keys = maps.keys
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
