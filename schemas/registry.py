"""What a schema id stands for; hides the schema registry and when it is asked.

A subject is a record's full name (``bandstand.Decision``; Confluent's RecordNameStrategy), not a
topic's: a record has one history of versions, however many lanes carry it, and one record can't
turn into another one topic at a time.
"""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, NoReturn

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from bandstand.errors import BrokerError, EventError, SchemaError
from bandstand.schemas.codec import FOREIGN
from bandstand.schemas.compatibility import hazards, problems
from bandstand.schemas.definitions import WriterSchema, current
from bandstand.settings import RegistrySettings

__all__ = ["SchemaRegistry"]

LARGEST_ID: Final = 2**31 - 1
ASK_AGAIN_S: Final = 10.0
"""How long the answer that an id is of no use is believed."""
REMEMBERED: Final = 1024
"""How many useless ids are kept in mind, at most."""
TIMEOUT_S: Final = 5.0
RETRIES: Final = 2

_NOT_FOUND: Final = (40401, 40403)
_CONFLICT: Final = 409


class SchemaRegistry:
    """A Confluent-compatible schema registry.

    Parameters
    ----------
    settings
        Where it is and who asks.
    now
        Seconds on a clock that never goes back.
    """

    def __init__(
        self, settings: RegistrySettings, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = settings.url
        self._now = now
        self._client = self._ask(SchemaRegistryClient, _configuration(settings))
        weakref.finalize(self, self._client.close)
        self._ids: dict[str, int] = {}
        self._writers: dict[tuple[str, int], WriterSchema] = {}
        self._useless: dict[tuple[str, int], tuple[float, EventError]] = {}

    def schema_id(self, name: str) -> int:
        """Give the id of a record's current schema, and register that where nobody has.

        Raises
        ------
        SchemaError
            If the registry refuses the schema, as not compatible with what it has.
        BrokerError
            If the registry can't be asked.
        """
        if name not in self._ids:
            self._ids[name] = self._look_up(name) or self._register(name)
        return self._ids[name]

    def writer(self, name: str, schema_id: int) -> WriterSchema:
        """Give the schema of an id, to read a record with.

        An id that is of no use is asked for again after ten seconds at the earliest, however many
        records bear it.

        Raises
        ------
        EventError
            ``schema``, if nobody registered the id, or if what it stands for can't be read as
            this record.
        BrokerError
            If the registry can't be asked: that is no fault of the record.
        """
        key = name, schema_id
        if found := self._writers.get(key):
            return found
        until, error = self._useless.get(key, (0.0, None))
        if error is not None and self._now() < until:
            raise EventError(error.reason, error.detail)
        try:
            self._writers[key] = self._usable(name, schema_id)
        except EventError as error:
            self._remember(key, error)
            raise
        return self._writers[key]

    def _remember(self, key: tuple[str, int], error: EventError) -> None:
        self._useless.pop(key, None)
        if len(self._useless) >= REMEMBERED:
            del self._useless[next(iter(self._useless))]
        self._useless[key] = self._now() + ASK_AGAIN_S, error

    def _usable(self, name: str, schema_id: int) -> WriterSchema:
        schema = self._fetch(schema_id)
        try:
            writer = WriterSchema(json.loads(schema.schema_str))
            faults = problems(writer, current(name)) + hazards(writer)
        except FOREIGN as error:
            raise EventError(
                "schema", f"schema id {schema_id} isn't an Avro schema: {error!r}"
            ) from error
        if faults:
            raise EventError("schema", f"schema id {schema_id} isn't a {name}: {'; '.join(faults)}")
        return writer

    def _fetch(self, schema_id: int) -> Any:
        usual = schema_id <= LARGEST_ID
        schema = self._ask(self._client.get_schema, schema_id) if usual else None
        if schema is None:
            raise EventError("schema", f"schema id {schema_id} is unknown to {self._url}")
        if schema.schema_type != "AVRO" or schema.references:
            raise EventError(
                "schema",
                f"schema id {schema_id} is {schema.schema_type} with {len(schema.references)} "
                "references; allowed: Avro without references",
            )
        return schema

    def _look_up(self, name: str) -> int | None:
        found = self._ask(self._client.lookup_schema, _subject(name), _schema(name))
        return None if found is None else int(found.schema_id)

    def _register(self, name: str) -> int:
        return int(self._ask(self._client.register_schema, _subject(name), _schema(name)))

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make a call, with the registry's errors as ours; ``None`` for what it doesn't have."""
        try:
            return call(*arguments)
        except SchemaRegistryError as error:
            if error.error_code in _NOT_FOUND:
                return None
            if error.http_status_code == _CONFLICT:
                raise SchemaError(f"{self._url} refuses {arguments[0]}: {error}") from error
            self._unreachable(error)
        except Exception as error:  # noqa: BLE001 - httpx's or httpx2's, by confluent-kafka's version
            self._unreachable(error)

    def _unreachable(self, error: Exception) -> NoReturn:
        raise BrokerError(
            f"the schema registry at {self._url} can't be asked: {error!r}; "
            "check BANDSTAND_REGISTRY__URL, its credentials and that it runs"
        ) from error


def _configuration(settings: RegistrySettings) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "url": settings.url,
        "timeout": TIMEOUT_S,
        "max.retries": RETRIES,
    }
    if settings.username is not None:
        password = settings.password.get_secret_value() if settings.password else ""
        configuration["basic.auth.user.info"] = f"{settings.username}:{password}"
    if settings.ssl_ca_location is not None:
        configuration["ssl.ca.location"] = settings.ssl_ca_location
    return configuration


def _subject(name: str) -> str:
    return str(current(name).resolved["name"])


def _schema(name: str) -> Schema:
    return Schema(current(name).json, "AVRO")
