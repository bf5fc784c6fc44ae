"""The rules of resolution, and the schemas that nobody should read with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandstand.schemas.codec import decode
from bandstand.schemas.compatibility import hazards, problems
from bandstand.schemas.definitions import WriterSchema, current
from tests.schemas.strategies import records

Definition = dict[str, Any]


def _changed(name: str, change: Callable[[Definition], object]) -> WriterSchema:
    definition = copy.deepcopy(current(name).definition)
    change(definition)
    return WriterSchema(definition)


def _field(definition: Definition, name: str) -> Definition:
    return next(field for field in definition["fields"] if field["name"] == name)


def _record(*fields: Definition, name: str = "R") -> Definition:
    return {"type": "record", "name": name, "fields": list(fields)}


def test_a_schema_reads_itself() -> None:
    """The outcome schema, with all its nesting, has no problem with itself."""
    assert problems(current("outcome"), current("outcome")) == []


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("reward", lambda d: d.update(name="Prize"), "bandstand.Prize where bandstand.Reward"),
        ("reward", lambda d: d["fields"].pop(0), "Reward.bandit: the writer has no such field"),
        ("reward", lambda d: _field(d, "ts").update(type="double"), "ts: double became long"),
        (
            "reward",
            lambda d: _field(d, "ts")["type"].update(logicalType="timestamp-micros"),
            "ts: timestamp-micros became timestamp-millis",
        ),
        ("reward", lambda d: _field(d, "name").update(type="bytes"), "name: bytes became string"),
        (
            "reward",
            lambda d: _field(d, "metadata")["type"].update(values="long"),
            "metadata: long became string",
        ),
        (
            "decision",
            lambda d: _field(d, "seed").update(type=["null", "string"]),
            "seed: string is none of null, long",
        ),
        (
            "outcome",
            lambda d: _field(d, "state")["type"]["symbols"].append("lost"),
            "state: the reader has no symbol lost",
        ),
        (
            "outcome",
            lambda d: _field(d, "decision").update(type=["null", "long"]),
            "decision: long is none of null, bandstand.Decision",
        ),
    ],
)
def test_what_a_reader_refuses(
    name: str, change: Callable[[Definition], object], problem: str
) -> None:
    """Each change that would lose or change the meaning of a field is named."""
    found = problems(_changed(name, change), current(name))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["fields"].insert(0, {"name": "new", "type": {"type": "array", "items": "int"}}),
        lambda d: d["fields"].remove(_field(d, "metadata")),
        lambda d: d["fields"].reverse(),
        lambda d: _field(d, "ts").update(type="int"),
        lambda d: _field(d, "value").update(type="long"),
        lambda d: _field(d, "bandit").update(type=["string"]),
    ],
)
@given(st.data())
def test_what_is_no_problem_is_read(
    change: Callable[[Definition], object], data: st.DataObject
) -> None:
    """Bytes of any schema that passes give a record with every field of the current one."""
    writer = _changed("reward", change)
    assert problems(writer, current("reward")) == []
    record = data.draw(records(writer.definition))
    buffer = BytesIO()
    fastavro.schemaless_writer(buffer, writer.parsed, record)
    found = decode("reward", buffer.getvalue(), writer)
    assert set(found) == {field["name"] for field in current("reward").definition["fields"]}


def test_a_reader_finds_a_field_by_its_alias() -> None:
    """Who has a new name for a field, and says so, reads those who write the old one."""
    old, new = _record({"name": "a", "type": "long"}), _record({"name": "b", "type": "long"})
    assert problems(WriterSchema(old), WriterSchema(new)) != []
    new["fields"][0]["aliases"] = ["a"]
    assert problems(WriterSchema(old), WriterSchema(new)) == []


_NOTHING = _record({"name": "n", "type": "null"}, name="Nothing")
_WITHIN = _record({"name": "next", "type": ["null", "Node"]}, name="Node")


@pytest.mark.parametrize(
    ("kind", "hazard"),
    [
        ({"type": "array", "items": "null"}, "R.x: items that take no bytes"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "items that take"),
        (
            ["null", {"type": "map", "values": {"type": "array", "items": "null"}}],
            "items that take",
        ),
        (_NOTHING, "R.x: a record that takes no bytes"),
        (_WITHIN, "R.x.next: Node within itself"),
    ],
)
def test_hazards_are_named(kind: Any, hazard: str) -> None:
    """A type that lets a few bytes become very much is refused, however deep it lies."""
    assert any(hazard in one for one in hazards(WriterSchema(_record({"name": "x", "type": kind}))))


def test_a_type_is_looked_at_once() -> None:
    """Forty records, each holding the one before twice, don't take 2^40 steps."""
    fields: list[Definition] = [
        {"name": "r0", "type": _record({"name": "a", "type": "boolean"}, name="R0")}
    ]
    for at in range(1, 41):
        inner = [{"name": side, "type": f"R{at - 1}"} for side in "ab"]
        fields.append({"name": f"r{at}", "type": _record(*inner, name=f"R{at}")})
    schema = WriterSchema(_record(*fields))
    assert hazards(schema) == []
    assert problems(schema, schema) == []


@pytest.mark.parametrize("name", ["decision", "outcome", "snapshot"])
def test_the_own_schemas_are_harmless(name: str) -> None:
    """No schema of Bandstand's has what it refuses in others."""
    assert hazards(current(name)) == []
