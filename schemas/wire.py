"""How bytes say what they are: the header before a record's Avro, in both formats.

==================  ================================================  =====================
format              header                                            where
==================  ================================================  =====================
single-object       ``C3 01`` and the schema's fingerprint, 8 bytes   no schema registry
Confluent           ``00`` and the registry's schema id, 4 bytes      a registry is set
==================  ================================================  =====================

A process writes one of them and reads both. What a header names must be a schema of the record that
is asked for: a reward among the decisions is refused by its header, before its bytes are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bandstand.errors import EventError
from bandstand.schemas.codec import NAMES, WriterSchema, decode, encode, fingerprint, known
from bandstand.settings import Settings

__all__ = ["Registry", "Split", "Wire", "wire_from"]

SINGLE_OBJECT: Final = b"\xc3\x01"
SINGLE_OBJECT_HEADER: Final = 10
CONFLUENT: Final = b"\x00"
CONFLUENT_HEADER: Final = 5


class Registry(Protocol):
    """What the wire needs of a schema registry."""

    def schema_id(self, name: str) -> int:
        """Give the id under which the current schema of a record is registered."""
        ...

    def writer(self, name: str, schema_id: int) -> WriterSchema:
        """Give the schema of an id; `EventError` (``schema``) if it can't be read as ``name``."""
        ...


@dataclass(frozen=True)
class Split:
    """Where a record's own bytes begin, and what they were written with."""

    writer: WriterSchema
    body_start: int


class Wire:
    """How this process writes headers and what it reads them with.

    Parameters
    ----------
    registry
        Where ids are looked up; ``None``: frames with an id are refused.
    confluent
        Whether to write ids; needs a registry.

    Examples
    --------
    >>> wire = Wire.single_object()
    >>> value = wire.dumps("snapshot_pointer", {"bandit": "home", "version": "1-0-ab"})
    >>> value[:2].hex()
    'c301'
    >>> wire.loads("snapshot_pointer", value)["bandit"]
    'home'
    >>> wire.loads("reward", value)
    Traceback (most recent call last):
    bandstand.errors.EventError: schema: a snapshot_pointer where a reward belongs
    """

    def __init__(self, registry: Registry | None = None, *, confluent: bool = False) -> None:
        self._registry = registry
        self._confluent = confluent
        self._headers: dict[str, bytes] = {}

    @classmethod
    def single_object(cls, registry: Registry | None = None) -> Wire:
        """Write fingerprints; read ids too if there is a registry."""
        return cls(registry)

    @classmethod
    def confluent(cls, registry: Registry) -> Wire:
        """Write the registry's ids; read both."""
        return cls(registry, confluent=True)

    def header(self, name: str) -> bytes:
        """Give the constant bytes before every record of a name that this process writes."""
        header = self._headers.get(name)
        if header is None:
            header = self._headers[name] = self._new_header(name)
        return header

    def _new_header(self, name: str) -> bytes:
        if not self._confluent:
            return SINGLE_OBJECT + fingerprint(name)
        assert self._registry is not None
        return CONFLUENT + self._registry.schema_id(name).to_bytes(4, "big")

    def frame(self, name: str, body: bytes) -> bytes:
        """Put the header before a record's bytes."""
        return self.header(name) + body

    def dumps(self, name: str, record: Mapping[str, Any]) -> bytes:
        """Write a record with its header; raises as `codec.encode` does."""
        return encode(name, record, self.header(name))

    def loads(self, name: str, value: bytes | None) -> dict[str, Any]:
        """Read a record with its header.

        Raises
        ------
        EventError
            ``empty``, ``magic``, ``schema``, ``truncated``, ``trailing`` or ``invalid``.
        BrokerError
            If the schema registry can't be asked: that is no fault of the record.
        """
        split = self.split(name, value)
        assert value is not None
        return decode(name, value[split.body_start :], split.writer)

    def split(self, name: str, value: bytes | None) -> Split:
        """Read the header only; raises as `loads` does."""
        if not value:
            raise EventError("empty", f"a {name} without a value")
        if value[:1] == CONFLUENT:
            return Split(self._by_id(name, value), CONFLUENT_HEADER)
        if value[:2] == SINGLE_OBJECT:
            return Split(_by_fingerprint(name, value), SINGLE_OBJECT_HEADER)
        raise EventError(
            "magic",
            f"a value begins with {value[:2].hex(' ')}; allowed: c3 01 (Avro) or 00 (registry)",
        )

    def _by_id(self, name: str, value: bytes) -> WriterSchema:
        if len(value) < CONFLUENT_HEADER:
            raise EventError(
                "truncated", f"a header of {len(value)} bytes; allowed: {CONFLUENT_HEADER}"
            )
        schema_id = int.from_bytes(value[1:CONFLUENT_HEADER], "big")
        if self._registry is None:
            raise EventError(
                "schema",
                f"schema id {schema_id} can't be looked up: no schema registry is set; "
                "set BANDSTAND_REGISTRY__URL",
            )
        return self._registry.writer(name, schema_id)


def _by_fingerprint(name: str, value: bytes) -> WriterSchema:
    if len(value) < SINGLE_OBJECT_HEADER:
        raise EventError(
            "truncated", f"a header of {len(value)} bytes; allowed: {SINGLE_OBJECT_HEADER}"
        )
    mark = value[2:SINGLE_OBJECT_HEADER]
    writer = known(name).get(mark)
    if writer is not None:
        return writer
    for other in NAMES:
        if mark in known(other):
            raise EventError("schema", f"a {other} where a {name} belongs")
    raise EventError(
        "schema",
        f"no released version of {name} has the fingerprint {mark.hex()}; "
        "a newer writer needs a newer Bandstand to read it",
    )


def wire_from(settings: Settings) -> Wire:
    """Give the wire that the settings ask for: registry ids where a registry is set."""
    if settings.registry.url is None:
        return Wire.single_object()
    from bandstand.schemas.registry import SchemaRegistry  # 0.2 s, and only here

    return Wire.confluent(SchemaRegistry(settings.registry))
