"""Named arrays as a snapshot stores them: a shape and little-endian bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bandstand.errors import StateError
from bandstand.learners.protocols import Arrays

__all__ = ["read", "stored"]


def stored(arrays: Arrays) -> list[dict[str, Any]]:
    r"""Give arrays as records of the snapshot schema, in the order of their names.

    Examples
    --------
    >>> stored({"mean": np.array([0.5])})
    [{'name': 'mean', 'shape': [1], 'data': b'\x00\x00\x00\x00\x00\x00\xe0?'}]
    """
    return [
        {
            "name": name,
            "shape": list(array.shape),
            "data": array.astype("<f8", copy=False).tobytes(),
        }
        for name, array in sorted(arrays.items())
    ]


def read(records: Iterable[Mapping[str, Any]]) -> dict[str, npt.NDArray[np.float64]]:
    """Give the arrays of such records.

    Raises
    ------
    StateError
        If bytes and shape of one don't agree, e.g. because it was cut short.
    """
    return {record["name"]: _array(record) for record in records}


def _array(record: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    shape = tuple(record["shape"])
    if len(record["data"]) != 8 * math.prod(shape):
        raise StateError(
            f"array {record['name']!r} has {len(record['data'])} bytes; its shape {shape} asks for"
            f" {8 * math.prod(shape)}"
        )
    return np.frombuffer(record["data"], dtype="<f8").reshape(shape).astype(np.float64)
