"""Batches: equal to the reference codec in every value and every verdict."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.errors import EventError
from bandstand.schemas.codec import NAMES, decode, encode
from bandstand.schemas.columns import LARGEST_BATCH, arrow_schema, columns, encode_columns
from bandstand.schemas.definitions import current
from bandstand.schemas.wire import Wire
from tests.schemas.golden import EXAMPLES
from tests.schemas.strategies import records, rows

WIRE = Wire.single_object()
HUGE = [0, -1, 2**20, 2**31, -(2**31), 2**40, -(2**40), 2**63 - 1, -(2**63)]


def long(number: int) -> bytes:
    """Write a number as Avro does: zigzag, seven bits a byte."""
    rest = (number << 1 ^ number >> 63) & (2**64 - 1)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def text(value: str | bytes) -> bytes:
    """Write a string, or what claims to be one."""
    data = value.encode() if isinstance(value, str) else value
    return long(len(data)) + data


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
@settings(max_examples=40)
def test_columns_equal_the_reference(name: str, data: st.DataObject) -> None:
    """Any records, as columns, are what the reference codec reads from each."""
    bodies = [encode(name, record) for record in data.draw(st.lists(records(name), max_size=4))]
    batch = columns(name, [WIRE.frame(name, body) for body in bodies], WIRE)
    assert batch.table.schema.equals(arrow_schema(name))
    assert repr(rows(batch.table)) == repr([decode(name, body) for body in bodies])
    assert batch.frames == [WIRE.frame(name, body) for body in bodies]
    assert batch.rows.tolist() == list(range(len(bodies)))
    assert batch.bad == []


@pytest.mark.parametrize("name", [name for name in NAMES if current(name).in_rust])
@given(st.data())
@settings(max_examples=40)
def test_columns_are_written_as_the_reference_writes(name: str, data: st.DataObject) -> None:
    """Any records give the same bytes, written as columns or one by one."""
    bodies = [encode(name, record) for record in data.draw(st.lists(records(name), max_size=4))]
    table = columns(name, [WIRE.frame(name, body) for body in bodies], WIRE).table
    assert encode_columns(name, table) == bodies


def test_a_missing_value_isnt_written_as_an_empty_one() -> None:
    """Nulls in a column that needs values are refused by name."""
    table = pa.RecordBatch.from_pylist([{**EXAMPLES["spec"], "bandit": None}])
    with pytest.raises(EventError, match="invalid: a spec needs a value in every row of bandit"):
        encode_columns("spec", table)


@st.composite
def mutations(draw: st.DrawFn, body: bytes) -> bytes:
    """Change some bytes as accidents and attackers would."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 8))
        other = draw(st.integers(0, len(body)))
        insert = draw(
            st.one_of(
                st.just(b""),
                st.binary(max_size=8),
                st.sampled_from(HUGE).map(long),
                st.just(body[other : other + 30]),
            )
        )
        body = body[:at] + insert + body[at + length :]
    return body


@pytest.mark.parametrize("name", ["decision", "outcome", "reward", "learner_state"])
@given(st.data())
@settings(max_examples=150)
def test_both_codecs_refuse_the_same(name: str, data: st.DataObject) -> None:
    """Damaged bytes are refused by both codecs, or give both the same record."""
    body = data.draw(mutations(encode(name, EXAMPLES[name])))
    batch = columns(name, [WIRE.frame(name, body)], WIRE)
    expected: list[object] = []
    refused: list[str] = []
    try:
        expected.append(decode(name, body))
    except EventError as error:
        refused.append(str(error))
    assert repr(rows(batch.table)) == repr(expected)
    assert [str(bad.error) for bad in batch.bad] == refused


REWARD = b"".join(text(part) for part in ("home", "d1", "r1", "click")) + bytes(8) + long(5)
OUTCOME = long(0) + long(1) + long(0) + long(2) + long(0) + long(0)
NO_REWARDS = long(0)


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("reward", b"", "truncated"),
        ("reward", REWARD, "truncated"),
        ("reward", REWARD + long(0) + b"x", "trailing"),
        ("reward", long(2**40) + REWARD[5:] + long(0), "truncated"),
        ("reward", text(b"h\xffme") + REWARD[5:] + long(0), "invalid"),
        ("reward", text(b"\xed\xa0\x80") + REWARD[5:] + long(0), "invalid"),
        ("reward", REWARD + long(1) + text("k") + text(b"\xff") + long(0), "invalid"),
        ("reward", REWARD + long(2**40) + long(0), "truncated"),
        ("reward", REWARD + long(2) + 2 * (text("k") + text("v")) + long(0), "invalid"),
        ("reward", REWARD[:-1] + b"\xff" * 10 + b"\x01" + long(0), "invalid"),
        ("outcome", long(3) + OUTCOME[1:] + NO_REWARDS + long(0), "invalid"),
        ("outcome", long(-1) + OUTCOME[1:] + NO_REWARDS + long(0), "invalid"),
        ("outcome", OUTCOME + NO_REWARDS + long(2), "invalid"),
        ("outcome", OUTCOME[:2] + long(-1) + OUTCOME[2:] + NO_REWARDS + long(0), "invalid"),
        ("outcome", OUTCOME + long(2**62) + long(0), "truncated"),
        ("outcome", OUTCOME + long(-(2**40)) + long(8) + long(0), "truncated"),
        ("dead_letter", encode("dead_letter", EXAMPLES["dead_letter"])[:-1] + long(-2), "invalid"),
    ],
)
def test_known_traps_are_refused(name: str, body: bytes, reason: str) -> None:
    """What one of the two codecs lets through, or might allocate for, both refuse here."""
    with pytest.raises(EventError) as caught:
        decode(name, body)
    batch = columns(name, [WIRE.frame(name, body)], WIRE)
    assert caught.value.reason == reason
    assert [bad.error.reason for bad in batch.bad] == [reason]
    assert batch.table.num_rows == 0


@pytest.mark.parametrize(
    "entries",
    [
        long(-2) + long(8) + text("a") + text("b") + text("c") + text("d") + long(0),
        long(1) + text("a") + text("b") + long(1) + text("c") + text("d") + long(0),
    ],
    ids=["block with its size", "two blocks"],
)
def test_other_writers_ways_are_read(entries: bytes) -> None:
    """Avro leaves writers some freedom; what they use of it is read."""
    expected = {"a": "b", "c": "d"}
    assert decode("reward", REWARD + entries)["metadata"] == expected
    batch = columns("reward", [WIRE.frame("reward", REWARD + entries)], WIRE)
    assert rows(batch.table)[0]["metadata"] == expected
    assert batch.frames == [WIRE.frame("reward", REWARD + entries)]


@given(st.lists(st.sampled_from(["good", "none", "empty", "cut", "long", "magic", "other"])))
def test_a_bad_record_costs_only_itself(kinds: list[str]) -> None:
    """Whatever surrounds them, the good rows come out, and each bad one with its reason."""
    good = WIRE.dumps("reward", EXAMPLES["reward"])
    values = {
        "good": good,
        "none": None,
        "empty": b"",
        "cut": good[:-1],
        "long": good + b"\x00",
        "magic": b"{" + good,
        "other": WIRE.dumps("spec", EXAMPLES["spec"]),
    }
    reasons = {
        "none": "empty",
        "empty": "empty",
        "cut": "truncated",
        "long": "trailing",
        "magic": "magic",
        "other": "schema",
    }
    batch = columns("reward", [values[kind] for kind in kinds], WIRE)
    assert batch.rows.tolist() == [at for at, kind in enumerate(kinds) if kind == "good"]
    assert rows(batch.table) == [EXAMPLES["reward"]] * len(batch.rows)
    assert [(bad.index, bad.error.reason) for bad in batch.bad] == [
        (at, reasons[kind]) for at, kind in enumerate(kinds) if kind != "good"
    ]


def test_a_few_bad_ones_among_many() -> None:
    """A large batch with scattered bad records is sifted, in order."""
    values = [WIRE.dumps("reward", {**EXAMPLES["reward"], "ts": ts}) for ts in range(1000)]
    bad = {0, 1, 499, 500, 777, 999}
    batch = columns("reward", [v[:-1] if at in bad else v for at, v in enumerate(values)], WIRE)
    assert {one.index for one in batch.bad} == bad
    assert batch.table["ts"].cast(pa.int64()).to_pylist() == batch.rows.tolist()
    assert set(batch.rows.tolist()) == set(range(1000)) - bad


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=3)))
def test_repeated_keys_are_seen(maps: list[list[str]]) -> None:
    """A key that comes twice in one map is found, among maps alike and unlike, and only that."""
    values = [
        WIRE.frame("reward", REWARD + _entries([text(key) + text("v") for key in keys]))
        for keys in maps
    ]
    expected = [at for at, keys in enumerate(maps) if len(set(keys)) == len(keys)]
    assert columns("reward", values, WIRE).rows.tolist() == expected


def _entries(entries: list[bytes]) -> bytes:
    return b"".join([long(len(entries)), *entries, long(0)] if entries else [long(0)])


def test_too_much_for_arrow() -> None:
    """More bytes than Arrow's text columns can count are refused, not read wrongly."""
    value = WIRE.dumps("reward", {**EXAMPLES["reward"], "name": "x" * 2**20})
    with pytest.raises(ValueError, match="split it"):
        columns("reward", [value] * (LARGEST_BATCH // 2**20 + 1), WIRE)
