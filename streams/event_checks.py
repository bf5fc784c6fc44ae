"""What makes a record whose bytes can be read an event of its log: key, timestamp, value, time.

The join refuses by these checks, and whoever brings refused records back asks them first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.errors import EventError

__all__ = ["mismatches", "wrong_clock"]

_SHOWN = 100
"""Bytes or characters of a key that a message shows."""


def mismatches(
    keys: Sequence[bytes | None],
    timestamps: Sequence[int] | npt.NDArray[np.int64],
    table: pa.RecordBatch,
) -> dict[int, EventError]:
    """Give the rows whose key or timestamp disagrees with their bytes, or with no finite value.

    Parameters
    ----------
    keys, timestamps
        Of the Kafka records, as many as the table has rows; timestamps in milliseconds.
    table
        Decisions or rewards, as `columns` gives them.

    Examples
    --------
    >>> row = {"decision_id": "a", "ts": 5}
    >>> schema = pa.schema({"decision_id": pa.string(), "ts": pa.timestamp("ms")})
    >>> table = pa.RecordBatch.from_pylist([row, row], schema=schema)
    >>> {at: error.reason for at, error in mismatches([b"a", b"b"], [5, 5], table).items()}
    {1: 'key'}
    """
    problems: dict[int, EventError] = {}
    if not len(keys):
        return problems
    ids = table["decision_id"].cast(pa.binary())
    times = table["ts"].cast(pa.int64()).to_numpy(zero_copy_only=False)
    stamps = np.asarray(timestamps, np.int64)
    if "value" in table.schema.names:
        values = table["value"].to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(~np.isfinite(values)).tolist():
            problems[row] = EventError("value", f"value is {values[row]}; allowed: finite numbers")
    for row in np.flatnonzero(times != stamps).tolist():
        problems[row] = EventError(
            "timestamp",
            f"Kafka timestamp {stamps[row]} differs from the event time {times[row]} in its bytes",
        )
    same = pc.fill_null(pc.equal(pa.array(keys, pa.binary()), ids), False)
    for row in np.flatnonzero(~same.to_numpy(zero_copy_only=False)).tolist():
        key, decision_id = (keys[row] or b"")[:_SHOWN], ids[row].as_py()[:_SHOWN]
        problems[row] = EventError("key", f"key {key!r} differs from decision_id {decision_id!r}")
    return problems


def wrong_clock(ts: int, earliest: int | None, latest: int) -> EventError:
    """Give the error of an event whose time lies outside what the log's ticks allow.

    Parameters
    ----------
    ts
        The event's time, milliseconds.
    earliest, latest
        What is allowed, both ends included; None: no lower bound.
    """
    lower = "any" if earliest is None else str(earliest)
    return EventError(
        "clock", f"event time {ts} is off; allowed by the log's ticks: {lower} to {latest}"
    )
