"""How one record becomes bytes and back; hides Avro and the files that define it.

The names are those of the ``.avsc`` files. A record is a plain dict; a time in it is a whole number
of milliseconds since 1970, UTC, never a ``datetime``: no time zone and no rounding comes between
the bytes and the reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from io import BytesIO
from typing import Any, Final

import fastavro
import pyruhvro
from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import to_parsing_canonical_form
from fastavro.validation import ValidationError, validate

from bandstand.errors import EventError, SchemaError

__all__ = [
    "NAMES",
    "WriterSchema",
    "current",
    "decode",
    "encode",
    "fingerprint",
    "known",
    "schema_json",
]

NAMES: Final = (
    "dead_letter",
    "decision",
    "learner_position",
    "learner_state",
    "outcome",
    "reward",
    "snapshot",
    "snapshot_pointer",
    "spec",
)
"""Every record that Bandstand writes."""

PARTS: Final = {"outcome": ("decision",)}
"""Records that hold another one by name."""

END: Final = -0x6E6F697369636564
"""What stands in the field after the last one when columns are read: see `WriterSchema.columns`."""

END_BYTES: Final = b"\xc7\x95\x9b\x96\xed\xdc\xb4\xef\xdc\x01"
"""`END` as an Avro long."""

_FOREIGN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    EOFError,
    RecursionError,
)
"""What fastavro raises for bytes and records that don't fit their schema."""


@dataclass(frozen=True, eq=False)
class WriterSchema:
    """The schema that some bytes were written with: a current, a released or a foreign one.

    Parameters
    ----------
    definition
        The schema as parsed JSON, with nothing outside it referred to.
    """

    definition: dict[str, Any]

    @cached_property
    def json(self) -> str:
        """The schema as JSON text."""
        return json.dumps(self.definition)

    @cached_property
    def fingerprint(self) -> bytes:
        """CRC-64-AVRO of the parsing canonical form; 8 bytes, little-endian."""
        canonical = to_parsing_canonical_form(self.definition)
        return bytes.fromhex(avro_fingerprint(canonical, "CRC-64-AVRO"))

    @cached_property
    def parsed(self) -> Any:
        """The schema as fastavro takes it, times as plain numbers."""
        return fastavro.parse_schema(_without_logical_types(self.definition))

    @cached_property
    def in_rust(self) -> bool:
        """Whether pyruhvro reads it rightly; it panics on bytes and fixed, and wraps an int."""
        return not {"bytes", "fixed", "int"} & _types(self.definition)

    @cached_property
    def columns(self) -> str:
        """The schema for pyruhvro, as JSON: a last field more, that must be read as `END`.

        pyruhvro doesn't say where a record ended. With `END_BYTES` put behind the bytes of a
        record, the field is `END` only where nothing stood between them.
        """
        fields = [*self.definition["fields"], {"name": "end", "type": "long"}]
        return json.dumps({**self.definition, "fields": fields})

    def is_current(self, name: str) -> bool:
        """Tell whether bytes written with this schema are what ``name``'s current schema gives."""
        return self.fingerprint == fingerprint(name)


@cache
def current(name: str) -> WriterSchema:
    """Give the current schema of a record.

    Raises
    ------
    SchemaError
        If there is no record of that name.
    """
    if name not in NAMES:
        raise SchemaError(f"no schema is named {name!r}; the names are {', '.join(NAMES)}")
    definition = _definition(name)
    for part in PARTS.get(name, ()):
        definition = _inline(definition, "bandstand.Decision", _definition(part))
    return WriterSchema(definition)


def schema_json(name: str) -> str:
    """Give a record's current schema as JSON that refers to nothing outside it.

    Examples
    --------
    >>> json.loads(schema_json("reward"))["name"]
    'Reward'
    """
    return current(name).json


@cache
def fingerprint(name: str) -> bytes:
    """Give the 8 bytes that name a record's current schema in a single-object header."""
    return current(name).fingerprint


@cache
def known(name: str) -> Mapping[bytes, WriterSchema]:
    """Give the released versions of a record's schema and the current one, by fingerprint."""
    folder = resources.files(__package__) / "released" / name
    files = (
        [file for file in folder.iterdir() if file.name.endswith(".avsc")]
        if folder.is_dir()
        else []
    )
    schemas = [WriterSchema(json.loads(file.read_text(encoding="utf-8"))) for file in files]
    return {schema.fingerprint: schema for schema in [*schemas, current(name)]}


def encode(name: str, record: Mapping[str, Any]) -> bytes:
    r"""Write a record as Avro, without a header.

    Parameters
    ----------
    name
        Name of the schema.
    record
        Every field without a default, and no field that the schema doesn't know.

    Raises
    ------
    EventError
        ``invalid``, if the record doesn't fit the schema; names the field.

    Examples
    --------
    >>> encode("snapshot_pointer", {"bandit": "home", "version": "1-0-ab"})
    b'\x08home\x0c1-0-ab\x12published'
    """
    buffer = BytesIO()
    schema = current(name).parsed
    try:
        fastavro.schemaless_writer(buffer, schema, record, strict_allow_default=True)
    except _FOREIGN as error:
        raise EventError(
            "invalid", f"this can't be a {name}: {_fault(record, schema, error)}"
        ) from error
    return buffer.getvalue()


def decode(name: str, body: bytes, writer: WriterSchema | None = None) -> dict[str, Any]:
    r"""Read a record from Avro without a header.

    Parameters
    ----------
    name
        Name of the schema; its current version is what the record is resolved to.
    body
        The whole of one record.
    writer
        What the bytes were written with, where that isn't the current schema.

    Raises
    ------
    EventError
        ``truncated``, ``trailing`` or ``invalid``.

    Examples
    --------
    >>> decode("snapshot_pointer", b"\x08home\x0c1-0-ab\x12published")["version"]
    '1-0-ab'
    >>> decode("snapshot_pointer", b"\x08home\x0c1-0")
    Traceback (most recent call last):
    bandstand.errors.EventError: truncated: a snapshot_pointer of 9 bytes ends before its last field
    """
    schema = current(name)
    old = None if writer is None or writer.is_current(name) else writer
    buffer = BytesIO(body)
    try:
        record = _read(buffer, schema, old)
    except EOFError as error:
        raise EventError(
            "truncated", f"a {name} of {len(body)} bytes ends before its last field"
        ) from error
    except _FOREIGN as error:
        raise EventError("invalid", f"these bytes aren't a {name}: {error}") from error
    if rest := len(body) - buffer.tell():
        raise EventError("trailing", f"{rest} bytes follow a {name} of {buffer.tell()} bytes")
    if old is None:
        _check(name, schema, body, record)
    return record


def _read(buffer: BytesIO, schema: WriterSchema, old: WriterSchema | None) -> dict[str, Any]:
    if old is None:
        record = fastavro.schemaless_reader(buffer, schema.parsed, None)
    else:
        record = fastavro.schemaless_reader(buffer, old.parsed, schema.parsed)
    assert isinstance(record, dict)
    return record


def _check(name: str, schema: WriterSchema, body: bytes, record: Mapping[str, Any]) -> None:
    """Refuse what fastavro lets through: a negative branch or symbol, an overlong number."""
    if encode(name, record) == body:
        return
    if not schema.in_rust:
        raise EventError("invalid", f"these bytes aren't a {name} as Bandstand writes it")
    try:
        pyruhvro.deserialize_array([body], schema.json)
    except ValueError as error:
        raise EventError("invalid", f"these bytes aren't a {name}: {error}") from error


def _fault(record: Mapping[str, Any], schema: Any, error: Exception) -> str:
    """Say which field is wrong, as far as fastavro can tell."""
    try:
        validate(record, schema, strict=False)
    except ValidationError as fault:
        return "; ".join(str(one) for one in fault.errors)
    except _FOREIGN:
        pass
    return str(error) or type(error).__name__


def _definition(name: str) -> dict[str, Any]:
    text = (resources.files(__package__) / f"{name}.avsc").read_text(encoding="utf-8")
    definition: dict[str, Any] = json.loads(text)
    return definition


def _inline(node: Any, name: str, definition: Mapping[str, Any]) -> Any:
    """Put a definition where its name stands."""
    if node == name:
        return definition
    if isinstance(node, list):
        return [_inline(item, name, definition) for item in node]
    if isinstance(node, dict):
        return {key: _inline(value, name, definition) for key, value in node.items()}
    return node


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_logical_types(item) for item in node]
    if isinstance(node, Mapping):
        return {k: _without_logical_types(v) for k, v in node.items() if k != "logicalType"}
    return node


def _types(node: Any) -> set[str]:
    """Collect the names of all types in a schema."""
    if isinstance(node, str):
        return {node}
    if isinstance(node, list):
        return set().union(*(_types(item) for item in node))
    inner = [node[key] for key in ("type", "items", "values") if key in node]
    inner += [field["type"] for field in node.get("fields", ())]
    return set().union(*(_types(item) for item in inner))
