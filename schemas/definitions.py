"""Which schemas there are; hides the files beside this module and the folder of their releases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import to_parsing_canonical_form

from bandstand.errors import SchemaError

__all__ = [
    "NAMES",
    "WriterSchema",
    "current",
    "fingerprint",
    "known",
    "released",
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

PARTS: Final = {"outcome": {"bandstand.Decision": "decision"}}
"""Records that hold another one by its Avro name, and the file that defines it."""


@dataclass(frozen=True, eq=False)
class WriterSchema:
    """The schema that some bytes were written with: a current, a released or a foreign one.

    Parameters
    ----------
    definition
        The schema as parsed JSON, with nothing outside it referred to.
    """

    definition: Any

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
    def resolved(self) -> Any:
        """The schema with every name whole, logical types included."""
        return fastavro.parse_schema(self.definition)

    @cached_property
    def in_rust(self) -> bool:
        """Whether pyruhvro reads it rightly; it panics on bytes and fixed, and wraps an int."""
        return not {"bytes", "fixed", "int"} & _types(self.definition)

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
    for avro_name, part in PARTS.get(name, {}).items():
        definition = _inline(definition, avro_name, _definition(part))
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
def released(name: str) -> Mapping[int, WriterSchema]:
    """Give the released versions of a record's schema, by number."""
    folder = resources.files(__package__) / "released" / name
    if not folder.is_dir():
        return {}
    files = sorted((int(file.name.removesuffix(".avsc")), file) for file in folder.iterdir())
    return {version: WriterSchema(json.loads(file.read_text("utf-8"))) for version, file in files}


@cache
def known(name: str) -> Mapping[bytes, WriterSchema]:
    """Give every released version of a record's schema and the current one, by fingerprint."""
    schemas = [*released(name).values(), current(name)]
    return {schema.fingerprint: schema for schema in schemas}


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
