"""Records to columns, to Parquet and back."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.archive.columns import file_schema, records, table
from bandstand.archive.parquet import Span, from_bytes, span, to_bytes
from bandstand.archive.readable import unreadable_rows
from bandstand.schemas.codec import encode
from bandstand.streams.join_types import Record
from tests.archive.given import (
    MIDNIGHT,
    WIRE,
    decision,
    outcome,
    pointer,
    reward,
    snapshot,
    tick,
)

SPAN = Span("t", 0, 0, 9)
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.integers(0, 9).map(decision),
    st.integers(0, 9).map(reward),
    st.integers(0, 9).map(lambda number: decision(number)[:-5]),
)


def query(sql: str) -> list[tuple[object, ...]]:
    """Ask DuckDB."""
    found: list[tuple[object, ...]] = duckdb.connect().execute(sql).fetchall()
    return found


def rows(*values: bytes | None) -> list[Record]:
    """Give records with these values."""
    return [Record(offset, MIDNIGHT, b"k", value, ()) for offset, value in enumerate(values)]


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=30))
def test_the_very_records_come_back(values: list[bytes | None]) -> None:
    """Events, ticks, noise and other topics' events: a row each, and byte for byte the same."""
    log = [
        Record(offset, MIDNIGHT, b"k", value, () if value else [("tick", b"{}"), ("x", b"")])
        for offset, value in enumerate(values)
    ]
    made = table(("decision",), 0, log, WIRE)
    assert records(from_bytes("n", to_bytes(made, SPAN))) == log
    assert made.schema == file_schema(("decision",))
    for row, value in zip(made.to_pylist(), values, strict=True):
        read = row["_schema"] is not None
        assert read == (row["decision_id"] is not None)
        assert (row["_error"] is not None) == (not read and value is not None)


def test_each_record_says_what_it_is() -> None:
    """An event has its schema's name, a tick neither that nor an error, noise its reason."""
    log = [tick(0), *rows(reward(1), b"", b"noise", decision(1))[0:4]]
    made = table(("reward",), 3, log, WIRE)
    assert made["_schema"].to_pylist() == [None, "reward", None, None, None]
    reasons = [error and error.split(":")[0] for error in made["_error"].to_pylist()]
    assert reasons == [None, None, "empty", "magic", "schema"]
    assert made["_partition"].to_pylist() == [3] * 5


def test_snapshots_and_pointers_share_a_table() -> None:
    """Each row has the columns of its own schema; what they have in common is one column."""
    log = rows(snapshot("1-2-x"), pointer("1-2-x"), None, snapshot("1-2-x")[:-3], pointer("1-3-y"))
    made = table(("snapshot", "snapshot_pointer"), 0, log, WIRE).to_pylist()
    kinds = ["snapshot", "snapshot_pointer", None, None, "snapshot_pointer"]
    assert [row["_schema"] for row in made] == kinds
    assert [row["version"] for row in made] == ["1-2-x", "1-2-x", None, None, "1-3-y"]
    assert [row["reason"] for row in made] == [None, "published", None, None, "published"]
    assert [row["epoch"] for row in made] == [1, None, None, None, None]
    assert [bool(row["_error"]) for row in made] == [False, False, False, True, False]


def test_the_same_records_give_the_same_bytes() -> None:
    """A file is a function of its offsets: written twice it is equal, footer and all."""
    log = [tick(0), *rows(*map(decision, range(500)))]
    first, second = (to_bytes(table(("decision",), 0, log, WIRE), SPAN) for _ in range(2))
    assert first == second
    assert span("n", from_bytes("n", first)) == SPAN


def test_duckdb_reads_every_topic_as_it_lies(tmp_path: Path) -> None:
    """Lists, maps, structs, times, bytes and all encodings mean the same to another reader."""
    for names, value in (
        (("decision",), decision(7, MIDNIGHT)),
        (("reward",), reward(7)),
        (("outcome",), outcome(7)),
        (("snapshot", "snapshot_pointer"), snapshot("1-2-x")),
    ):
        path = tmp_path / f"{names[0]}.parquet"
        made = table(names, 0, [tick(0), *rows(value, b"noise")], WIRE)
        path.write_bytes(to_bytes(made, SPAN))
        theirs = query(f"select * from '{path}'")
        ours = [
            tuple(row.values()) for row in pq.read_table(path).to_pylist(maps_as_pydicts="strict")
        ]
        assert theirs == ours


def test_a_row_that_other_readers_refuse_costs_only_itself(tmp_path: Path) -> None:
    """A time beyond the calendar, or a key twice in a map, would fail a query over the file."""
    body = encode("reward", WIRE.loads("reward", reward(1)) | {"metadata": {"k": "v"}})
    entry = b"\x02k\x02v"
    twice = WIRE.frame("reward", body.replace(b"\x02" + entry, b"\x04" + entry + entry))
    log = rows(reward(0), twice, reward(2), reward(3, ts=2**62), reward(4))
    path = tmp_path / "t.parquet"
    path.write_bytes(to_bytes(table(("reward",), 0, log, WIRE), SPAN))
    found = query(f"select decision_id, split_part(_error, ':', 1), metadata, ts from '{path}'")
    assert [row[:2] for row in found] == [
        ("d-0", None),
        (None, "invalid"),
        ("d-2", None),
        (None, "unreadable"),
        ("d-4", None),
    ]
    assert query(f"select _value from '{path}'")[1] == (twice,)


def test_unreadable_rows_are_found_at_any_depth() -> None:
    """In lists of structs and in slices, too."""
    kind = pa.list_(pa.struct([("name", pa.string()), ("t", pa.timestamp("ms"))]))
    good: object = [{"name": "a", "t": MIDNIGHT}, {"name": None, "t": None}]
    late: object = [{"name": "a", "t": 0}, {"name": "b", "t": 2**60}]
    early: object = [{"name": "a", "t": -(2**60)}]
    batch = pa.record_batch({"x": pa.array([good, late, None, good, early, good], kind)})
    assert unreadable_rows(batch) == [1, 4]
    assert unreadable_rows(batch.slice(1, 3)) == [0]
