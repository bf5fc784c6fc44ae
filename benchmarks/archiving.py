"""Archiving: from a file's records to its bytes, against pyarrow writing the same table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from bandstand.archive import parquet
from bandstand.archive.objects import Cut, object_name
from bandstand.archive.writer import build
from bandstand.settings import LaneSettings
from bandstand.streams.join_types import Record, Rules
from benchmarks.events import START_MS, WIRE, decision, sized, tick
from benchmarks.measure import CPU, WALL, Benchmark, Contestant, Ratio, Size, per_item

RECORDS = 30_000
BYTES = 700
TICK_EVERY = 1000
TOPIC = "default.decisions"


@contextmanager
def prepare(size: Size) -> Iterator[Benchmark]:
    """Make the records of one file."""
    cut = Cut(0, _records(size.of(RECORDS)))
    count = len(cut.records)
    file = build(("decision",), TOPIC, 0, cut, object_name(TOPIC, 0, cut), WIRE)

    def whole() -> bytes:
        return build(("decision",), TOPIC, 0, cut, file.name, WIRE).body

    def bytes_only() -> bytes:
        return parquet.to_bytes(file.table, file.span)

    def defaults() -> bytes:
        return _pyarrow(file.table, "snappy", None)

    def zstd() -> bytes:
        return _pyarrow(file.table, "zstd", 1)

    ours, last = "archive: records to file", "archive: table to file"
    plain, same = "pyarrow, its defaults", "pyarrow, zstd 1"
    sides = {ours: whole, plain: defaults, same: zstd, last: bytes_only}
    for body in (side() for side in sides.values()):
        assert pq.read_table(pa.BufferReader(body)).equals(file.table)
    yield Benchmark(
        "archiving",
        "One file of decisions with ten actions and a tick every thousand records. The archive "
        "decodes the records' Avro, lays out the columns (the event's, and the record as it was) "
        "and writes Parquet; storage is left out. pyarrow has the finished table in memory and "
        "only writes it: with its defaults (snappy), and with the archive's compression. All four "
        "read back equal.",
        "record",
        {
            "records": count,
            "bytes a decision": BYTES,
            **{f"file bytes, {name}": len(side()) for name, side in sides.items()},
        },
        [
            Contestant(name, lambda side=side: per_item(side, count))  # type: ignore[misc]
            for name, side in sides.items()
        ],
        [
            Ratio(WALL, ours, plain, "2 or less"),
            Ratio(WALL, ours, same, "2 or less"),
            Ratio(CPU, ours, same),
            Ratio(WALL, last, same),
        ],
    )


def _pyarrow(table: pa.Table, compression: str, level: int | None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=compression, compression_level=level)
    return bytes(sink.getvalue())


def _records(count: int) -> list[Record]:
    random = Random(2)
    rules = Rules.from_settings(LaneSettings.model_validate({}))
    records = []
    for offset in range(count):
        time = START_MS + offset
        if offset % TICK_EVERY == 0:
            records.append(tick(offset, time, rules))
            continue
        event = decision(random, time, eligible=10, features=True)
        records.append(Record(offset, time, event["decision_id"].encode(), sized(event, BYTES), ()))
    return records
