"""Avro to columns: `schemas.columns`, all its checks on, against fastavro and pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from random import Random

import fastavro
import pyarrow as pa
import pyruhvro

from bandstand.schemas.codec import current, schema_json
from bandstand.schemas.columns import arrow_schema, columns
from benchmarks.events import START_MS, WIRE, decision, sized
from benchmarks.measure import CPU, WALL, Benchmark, Contestant, Ratio, Size, per_item

BATCH = 8192
BYTES = 700


@contextmanager
def prepare(size: Size) -> Iterator[Benchmark]:
    """Make a batch of decisions, and check that all contestants read the same from it."""
    random = Random(1)
    rows = size.of(BATCH)
    values: list[bytes | None] = [
        sized(decision(random, START_MS + row, eligible=10, features=True), BYTES)
        for row in range(rows)
    ]
    bodies = [value[len(WIRE.header("decision")) :] for value in values if value is not None]

    def ours() -> pa.RecordBatch:
        return columns("decision", values, WIRE).table

    def peer() -> pa.RecordBatch:
        return _fastavro_and_pyarrow(bodies)

    def bare() -> pa.RecordBatch:
        return pyruhvro.deserialize_array(bodies, schema_json("decision"))

    assert ours().equals(peer())
    assert ours().equals(bare())
    mine, theirs, rust = "schemas.columns", "fastavro + from_pylist", "pyruhvro alone"
    yield Benchmark(
        "codec",
        "A batch of decisions with ten actions, from Kafka values to Arrow columns. "
        "schemas.columns reads headers, refuses trailing bytes, wrong text and repeated keys, "
        "and keeps bad rows apart. The peer gets bodies without headers and leaves times as "
        "numbers, which favours it. pyruhvro alone: what the checks cost. All three give equal "
        "columns.",
        "decision",
        {"decisions a batch": rows, "bytes a decision": sum(map(len, filter(None, values))) / rows},
        [
            Contestant(mine, lambda: per_item(ours, rows)),
            Contestant(theirs, lambda: per_item(peer, rows)),
            Contestant(rust, lambda: per_item(bare, rows)),
        ],
        [
            Ratio(WALL, theirs, mine, "10 or more"),
            Ratio(CPU, theirs, mine),
            Ratio(WALL, mine, rust),
        ],
    )


def _fastavro_and_pyarrow(bodies: list[bytes]) -> pa.RecordBatch:
    schema = current("decision").parsed
    records = [fastavro.schemaless_reader(BytesIO(body), schema, None) for body in bodies]
    return pa.RecordBatch.from_pylist(records, schema=arrow_schema("decision"))
