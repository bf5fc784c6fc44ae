"""Headers: both formats, told apart by their first byte."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO

import fastavro
import pytest
from fastavro.schema import fingerprint as avro_fingerprint

from bandstand.errors import EventError, SchemaError
from bandstand.schemas.codec import NAMES, encode, fingerprint
from bandstand.schemas.columns import columns
from bandstand.schemas.definitions import WriterSchema, current
from bandstand.schemas.wire import Wire
from tests.schemas.golden import EXAMPLES
from tests.schemas.strategies import rows

OLD = WriterSchema(
    {
        **current("reward").definition,
        "fields": [
            {"name": "gone", "type": "string"},
            *(f for f in current("reward").definition["fields"] if f["name"] != "metadata"),
        ],
    }
)


class TwoSchemas:
    """A registry that knows a record's current schema (id 7) and an older reward (id 8)."""

    def schema_id(self, name: str) -> int:  # noqa: ARG002
        """Give 7."""
        return 7

    def writer(self, name: str, schema_id: int) -> WriterSchema:
        """Give one of the two."""
        try:
            return {7: current(name), 8: OLD}[schema_id]
        except KeyError:
            raise EventError("schema", f"schema id {schema_id} is unknown") from None


SINGLE = Wire.single_object()
BOTH = Wire.confluent(TwoSchemas())


def _old_reward() -> bytes:
    """Write a reward with the older schema."""
    buffer = BytesIO()
    fastavro.schemaless_writer(buffer, OLD.parsed, {**EXAMPLES["reward"], "gone": "x"})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("canonical", "expected"),
    [
        ('"null"', 7195948357588979594),
        ('{"name":"foo","type":"fixed","size":15}', 1756455273707447556),
        ('{"name":"foo","type":"record","fields":[]}', -4824392279771201922),
    ],
)
def test_the_fingerprint_is_avros(canonical: str, expected: int) -> None:
    """The numbers that the Avro project publishes for its own implementations come out."""
    header = bytes.fromhex(avro_fingerprint(canonical, "CRC-64-AVRO"))
    assert int.from_bytes(header, "little", signed=True) == expected


@pytest.mark.parametrize("name", NAMES)
def test_single_object_header(name: str) -> None:
    """The header is the marker and the fingerprint; it doesn't change with doc strings."""
    definition = json.loads(current(name).json)
    definition["doc"] = "Something else."
    assert SINGLE.header(name) == b"\xc3\x01" + WriterSchema(definition).fingerprint
    assert SINGLE.header(name) == b"\xc3\x01" + fingerprint(name)


def test_confluent_header() -> None:
    """The header is a zero and the id, big-endian."""
    assert BOTH.header("reward") == b"\x00\x00\x00\x00\x07"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("writer", [SINGLE, BOTH])
def test_both_formats_are_read(name: str, writer: Wire) -> None:
    """With a registry, a reader takes what either kind of writer wrote."""
    value = writer.dumps(name, EXAMPLES[name])
    assert value == writer.frame(name, encode(name, EXAMPLES[name]))
    assert BOTH.loads(name, value) == EXAMPLES[name]
    split = BOTH.split(name, value)
    assert split.writer.is_current(name)
    assert value[: split.body_start] == writer.header(name)


def test_an_older_schema_is_resolved() -> None:
    """Bytes of another schema become a record, a row and a frame of the current one."""
    value = b"\x00\x00\x00\x00\x08" + _old_reward()
    expected = {**EXAMPLES["reward"], "metadata": {}}
    assert not BOTH.split("reward", value).writer.is_current("reward")
    assert BOTH.loads("reward", value) == expected
    newer = BOTH.dumps("reward", EXAMPLES["reward"])
    batch = columns("reward", [newer, value, value[:-1], SINGLE.dumps("reward", expected)], BOTH)
    assert rows(batch.table) == [EXAMPLES["reward"], expected, expected]
    assert batch.frames == [BOTH.dumps("reward", row) for row in rows(batch.table)]
    assert [(bad.index, bad.error.reason) for bad in batch.bad] == [(2, "truncated")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\xc3", "magic"),
        (b"\xc3\x02" + bytes(20), "magic"),
        (b'{"bandit": "home"}', "magic"),
        (b"\xc3\x01\x00", "truncated"),
        (b"\xc3\x01" + bytes(20), "schema"),
        (SINGLE.dumps("spec", EXAMPLES["spec"]), "schema"),
        (b"\x00\x00\x00", "truncated"),
        (b"\x00\x00\x00\x00\x09" + bytes(20), "schema"),
    ],
)
def test_what_isnt_ours(value: bytes | None, reason: str) -> None:
    """Each wrong header has its reason, for one value and in a batch."""
    with pytest.raises(EventError) as caught:
        BOTH.loads("reward", value)
    assert caught.value.reason == reason
    assert [bad.error.reason for bad in columns("reward", [value], BOTH).bad] == [reason]


def test_an_id_without_a_registry() -> None:
    """Without a registry a frame with an id is refused, and the message says what to set."""
    with pytest.raises(EventError, match=r"schema: .*BANDSTAND_REGISTRY__URL"):
        SINGLE.loads("reward", BOTH.dumps("reward", EXAMPLES["reward"]))


def test_an_unknown_name() -> None:
    """A name that no schema has is a mistake of the program, and says which there are."""
    with pytest.raises(SchemaError, match="'rewards'; the names are dead_letter, decision"):
        SINGLE.header("rewards")


def test_no_registry_client_without_a_registry() -> None:
    """What reads events without a registry doesn't load an HTTP client."""
    code = "import sys, bandstand.schemas.columns; print('confluent_kafka' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
