from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

from bandstand.errors import ServerError
from bandstand.local import Apicurio


def _record(*fields: dict[str, object]) -> Schema:
    return Schema(json.dumps({"type": "record", "name": "R", "fields": list(fields)}), "AVRO")


def test_confluents_client_registers_and_reads(
    bandstand_registry: Apicurio, bandstand_prefix: str
) -> None:
    """A schema comes back by the id that it was given."""
    subject = f"{bandstand_prefix}value"
    with SchemaRegistryClient({"url": bandstand_registry.url}) as client:
        number = client.register_schema(subject, _record({"name": "a", "type": "int"}))
        assert '"a"' in (client.get_schema(number).schema_str or "")
        assert subject in client.get_subjects()


def test_incompatible_schema_is_refused(
    bandstand_registry: Apicurio, bandstand_prefix: str
) -> None:
    """The rule that is set at the start holds for every subject, both ways."""
    subject = f"{bandstand_prefix}value"
    with SchemaRegistryClient({"url": bandstand_registry.url}) as client:
        client.register_schema(subject, _record({"name": "a", "type": "int"}))
        with pytest.raises(SchemaRegistryError):
            client.register_schema(subject, _record({"name": "b", "type": "int"}))


def test_wrong_rule_is_named(bandstand_registry: Apicurio, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that doesn't exist is an error that has it."""
    monkeypatch.setattr(bandstand_registry, "_compatibility", "SIDEWAYS")
    with pytest.raises(ServerError, match="'SIDEWAYS' is refused"):
        bandstand_registry._set_up()


def test_subjects_outlive_a_restart(tmp_path: Path) -> None:
    """Subjects keep their ids when the registry is stopped and started again."""
    with Apicurio(tmp_path) as registry:
        with SchemaRegistryClient({"url": registry.url}) as client:
            number = client.register_schema("s", _record())
        registry.restart()
        with SchemaRegistryClient({"url": registry.url}) as client:
            assert client.get_latest_version("s").schema_id == number
