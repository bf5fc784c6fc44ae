"""Where files begin and end, and what they are called."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandstand.archive.objects import Buffer, Cut, object_name, parse_name
from bandstand.errors import StorageError
from bandstand.streams.join_types import Record

HOUR_MS = 3_600_000
MAX_ROWS = 5
MAX_BYTES = 60


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Give logs with gaps, late records, large ones and empty ones."""
    offset = draw(st.integers(0, 3))
    log = []
    for _ in range(draw(st.integers(1, 40))):
        timestamp = draw(st.integers(0, 3 * HOUR_MS))
        value = draw(st.none() | st.binary(max_size=80))
        headers = draw(st.sampled_from([(), [("tick", b"{}")]]))
        log.append(
            Record(offset, timestamp, draw(st.none() | st.binary(max_size=9)), value, headers)
        )
        offset += draw(st.sampled_from([1, 1, 1, 1, 4]))
    return log


def size(record: Record) -> int:
    """Count a record's bytes."""
    parts = [record.key, record.value, *(part for pair in record.headers for part in pair)]
    return sum(map(len, filter(None, parts)))


def files(log: list[Record], steps: list[int]) -> list[Cut]:
    """Give the files that the log alone makes, fed in steps of these sizes."""
    buffer = Buffer(None, max_rows=MAX_ROWS, max_bytes=MAX_BYTES)
    cuts = []
    while log:
        step = steps[0] if steps else len(log)
        buffer.add(log[:step], now=0.0)
        log, steps = log[step:], steps[1:]
        while cut := buffer.full():
            cuts.append(cut)
            buffer.settle(cut.next_offset)
    last = buffer.rest()
    return [*cuts, last] if last else cuts


@given(logs(), st.lists(st.integers(1, 9)))
def test_files_are_a_function_of_the_log(log: list[Record], steps: list[int]) -> None:
    """How the log is cut into polls changes no file, and no record is lost or doubled."""
    whole = files(log, [])
    assert files(log, steps) == whole
    assert [record for cut in whole for record in cut.records] == log
    assert [cut.start for cut in whole] == [log[0].offset, *(cut.next_offset for cut in whole[:-1])]


@given(logs())
def test_every_file_keeps_the_limits_and_ends_for_a_reason(log: list[Record]) -> None:
    """A file ends at the rows, at the bytes or at a later hour, and not before."""
    cuts = files(log, [])
    for cut, following in zip(cuts, [*cuts[1:], None], strict=True):
        rows, held = len(cut.records), sum(map(size, cut.records))
        hour = cut.records[0].timestamp // HOUR_MS
        assert rows <= MAX_ROWS
        assert held <= MAX_BYTES or rows == 1
        assert all(record.timestamp // HOUR_MS <= hour for record in cut.records)
        if following is not None:
            first = following.records[0]
            later = first.timestamp // HOUR_MS > hour
            assert rows == MAX_ROWS or held + size(first) > MAX_BYTES or later


def test_repeats_are_ignored_and_missing_offsets_counted() -> None:
    """Records below the position were read before; offsets passed over had no record."""
    buffer = Buffer(10, max_rows=100, max_bytes=100)
    assert buffer.rest() is None
    buffer.add([Record(offset, 0, None, b"", ()) for offset in (8, 9, 12, 13, 13, 12)], now=1.0)
    cut = buffer.rest()
    assert cut is not None
    assert (cut.start, [record.offset for record in cut.records]) == (10, [12, 13])
    assert buffer.missing == 2


def test_a_file_that_was_longer_in_the_store_takes_the_records_behind_it_along() -> None:
    """After an adopted file that ends further on, what lies below its end is not stored again."""
    buffer = Buffer(0, max_rows=2, max_bytes=100)
    buffer.add([Record(offset, 0, None, b"", ()) for offset in range(3)], now=1.0)
    buffer.settle(5)
    assert (buffer.rest(), buffer.since, buffer.position, buffer.bytes) == (None, None, 5, 0)
    buffer.add([Record(offset, 0, None, b"x", ()) for offset in range(3, 7)], now=2.0)
    cut = buffer.full()
    assert cut is not None
    assert (cut.start, cut.next_offset, buffer.since, buffer.bytes) == (5, 7, 2.0, 2)


@given(st.integers(-1, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 9_999))
def test_names_say_where_a_file_begins(timestamp: int, start: int, partition: int) -> None:
    """Any record gives a name that can be read back; names sort as their offsets do."""
    cut = Cut(start, [Record(start, timestamp, None, None, ())])
    name = object_name("acme.fast.decisions", partition, cut)
    assert parse_name(name) == ("acme.fast.decisions", partition, start)
    if timestamp in range(253_402_300_800_000):
        moment = datetime.fromtimestamp(timestamp // 1000, UTC)
        assert f"/dt={moment:%Y-%m-%d}/hour={moment:%H}/" in name


@pytest.mark.parametrize("name", ["t/x.parquet", "t/dt=2025-01-01/hour=01/u+0+1.parquet", ""])
def test_a_name_of_others_is_refused(name: str) -> None:
    """What isn't the archive's is named, with what to do."""
    with pytest.raises(StorageError, match=r"isn't the archive's.*another s3\.prefix"):
        parse_name(name)
