"""How one record becomes bytes and back; hides Avro and the libraries that speak it.

The names are those of the ``.avsc`` files. A record is a plain dict; a time in it is a whole number
of milliseconds since 1970, UTC, never a ``datetime``: no time zone and no rounding comes between
the bytes and the reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from io import BytesIO
from typing import Any, Final

import fastavro
import pyruhvro
from fastavro.validation import ValidationError, validate

from bandstand.errors import EventError
from bandstand.schemas.definitions import (
    NAMES,
    WriterSchema,
    current,
    fingerprint,
    known,
    schema_json,
)
from bandstand.schemas.maps import Steps, maps_of, repeat_a_key

__all__ = [
    "FOREIGN",
    "NAMES",
    "WriterSchema",
    "current",
    "decode",
    "encode",
    "fingerprint",
    "known",
    "schema_json",
]

FOREIGN: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    EOFError,
    RecursionError,
)
"""What fastavro raises for bytes, records and schemas that aren't what they should be."""


def encode(name: str, record: Mapping[str, Any], header: bytes = b"") -> bytes:
    r"""Write a record as Avro.

    Parameters
    ----------
    name
        Name of the schema.
    record
        Every field without a default, and no field that the schema doesn't know.
    header
        What comes before it.

    Raises
    ------
    EventError
        ``invalid``, if the record doesn't fit the schema; names the field.

    Examples
    --------
    >>> encode("snapshot_pointer", {"bandit": "home", "version": "1-0-ab"})
    b'\x08home\x0c1-0-ab\x12published'
    """
    buffer = BytesIO(header)
    buffer.seek(len(header))
    schema = current(name).parsed
    try:
        fastavro.schemaless_writer(buffer, schema, record, strict_allow_default=True)
    except FOREIGN as error:
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
    except FOREIGN as error:
        if isinstance(error, EOFError) or _within_a_number(buffer, body):
            raise EventError(
                "truncated", f"a {name} of {len(body)} bytes ends before its last field"
            ) from error
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


def _within_a_number(buffer: BytesIO, body: bytes) -> bool:
    """Tell whether the bytes ended where a number went on; fastavro has an IndexError for that."""
    return buffer.tell() == len(body) and body[-1:] >= b"\x80"


def _check(name: str, schema: WriterSchema, body: bytes, record: Mapping[str, Any]) -> None:
    """Refuse what fastavro lets through: negative branches and symbols, overlong numbers."""
    if encode(name, record) == body:
        return
    if not schema.in_rust:
        raise EventError("invalid", f"these bytes aren't a {name} as Bandstand writes it")
    try:
        table = pyruhvro.deserialize_array([body], schema.json)
    except ValueError as error:
        raise EventError("invalid", f"these bytes aren't a {name}: {error}") from error
    if repeat_a_key(table, _maps(schema.json)):
        raise EventError("invalid", f"a {name} in which a map has a key twice")


@cache
def _maps(schema_json: str) -> tuple[Steps, ...]:
    return maps_of(pyruhvro.avro_to_arrow_schema(schema_json))


def _fault(record: Mapping[str, Any], schema: Any, error: Exception) -> str:
    """Say which field is wrong, as far as fastavro can tell."""
    try:
        validate(record, schema, strict=False)
    except ValidationError as fault:
        return "; ".join(str(one) for one in fault.errors)
    except FOREIGN:
        pass
    return str(error) or type(error).__name__
