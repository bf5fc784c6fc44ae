"""The schema registry's client, on a real registry."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from pydantic import SecretStr

from bandstand.errors import BrokerError, EventError, SchemaError
from bandstand.local import Apicurio
from bandstand.schemas import registry as module
from bandstand.schemas.columns import columns
from bandstand.schemas.definitions import current
from bandstand.schemas.registry import REMEMBERED, SchemaRegistry, _configuration
from bandstand.schemas.wire import Wire, wire_from
from bandstand.settings import RegistrySettings, Settings
from tests.schemas.golden import EXAMPLES


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


@pytest.fixture(scope="module")
def settings(bandstand_registry: Apicurio) -> RegistrySettings:
    """Point at the registry of this session."""
    return RegistrySettings(url=bandstand_registry.url)


@pytest.fixture
def client(settings: RegistrySettings) -> Iterator[SchemaRegistryClient]:
    """Reach the registry as others do."""
    with SchemaRegistryClient({"url": settings.url}) as client:
        yield client


def _register(client: SchemaRegistryClient, definition: Any) -> int:
    """Register a schema under a subject of its own."""
    text = definition if isinstance(definition, str) else json.dumps(definition)
    return int(client.register_schema(f"test-{uuid.uuid4()}", Schema(text, "AVRO")))


def test_what_one_process_writes_another_reads(settings: RegistrySettings) -> None:
    """The writer registers its schemas; a reader that never saw them looks the ids up."""
    writer = wire_from(Settings(registry=settings))
    values = [writer.dumps(name, EXAMPLES[name]) for name in ("decision", "reward", "outcome")]
    reader = wire_from(Settings(registry=settings))
    for name, value in zip(("decision", "reward", "outcome"), values, strict=True):
        assert value[:1] == b"\x00"
        assert reader.loads(name, value) == EXAMPLES[name]
    assert columns("reward", [values[1]], reader).frames == [values[1]]


def test_a_schema_is_registered_once(
    settings: RegistrySettings, client: SchemaRegistryClient
) -> None:
    """Every process gets the same id, under the record's full name."""
    ids = {SchemaRegistry(settings).schema_id("snapshot_pointer") for _ in range(2)}
    assert len(ids) == 1
    assert len(client.get_versions("bandstand.SnapshotPointer")) == 1


def test_an_older_writer_is_read(settings: RegistrySettings, client: SchemaRegistryClient) -> None:
    """A schema with a field less, which somebody else registered, is resolved to ours."""
    definition = json.loads(current("reward").json)
    definition["fields"] = [f for f in definition["fields"] if f["name"] != "metadata"]
    registry = SchemaRegistry(settings)
    writer = registry.writer("reward", _register(client, definition))
    assert not writer.is_current("reward")
    assert (
        registry.writer("reward", _register(client, definition)).fingerprint == writer.fingerprint
    )


def test_an_unknown_id_is_asked_for_seldom(
    settings: RegistrySettings, client: SchemaRegistryClient
) -> None:
    """However many records bear an unknown id, it is looked up once in ten seconds."""
    clock = Clock()
    registry = SchemaRegistry(settings, clock)
    unknown = _register(client, {**current("spec").definition, "doc": str(uuid.uuid4())}) + 1
    for _ in range(3):
        with pytest.raises(EventError, match=f"schema: schema id {unknown} is unknown to http"):
            registry.writer("spec", unknown)
    assert _register(client, {**current("spec").definition, "doc": str(uuid.uuid4())}) == unknown
    clock.now += module.ASK_AGAIN_S - 0.1
    with pytest.raises(EventError):
        registry.writer("spec", unknown)
    clock.now += 0.2
    assert registry.writer("spec", unknown).is_current("spec")


def test_little_is_remembered(settings: RegistrySettings) -> None:
    """A flood of unknown ids doesn't fill the memory."""
    registry = SchemaRegistry(settings)
    for schema_id in range(2**31, 2**31 + 2 * REMEMBERED):
        with pytest.raises(EventError):
            registry.writer("reward", schema_id)
    assert len(registry._useless) == REMEMBERED


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        (current("spec").definition, "bandstand.Spec where bandstand.Reward belongs"),
        ('"string"', "string became record"),
        (
            {
                **current("reward").definition,
                "fields": [
                    *current("reward").definition["fields"],
                    {"name": "bomb", "type": {"type": "array", "items": "null"}},
                ],
            },
            "bomb: items that take no bytes",
        ),
    ],
    ids=["another record", "no record", "hazard"],
)
def test_what_an_id_must_not_stand_for(
    settings: RegistrySettings, client: SchemaRegistryClient, definition: Any, problem: str
) -> None:
    """A schema that isn't this record, or that is dangerous to read with, is refused by name."""
    with pytest.raises(EventError, match=problem):
        SchemaRegistry(settings).writer("reward", _register(client, definition))


def test_an_incompatible_past_is_an_error(
    settings: RegistrySettings, client: SchemaRegistryClient
) -> None:
    """Where the registry holds another schema under our name, the writer stops and says so."""
    other = {**current("dead_letter").definition, "fields": [{"name": "reason", "type": "long"}]}
    client.register_schema("bandstand.DeadLetter", Schema(json.dumps(other), "AVRO"))
    client.set_compatibility("bandstand.DeadLetter", "FULL_TRANSITIVE")
    with pytest.raises(SchemaError, match=r"refuses bandstand\.DeadLetter"):
        SchemaRegistry(settings).schema_id("dead_letter")


@pytest.fixture
def nobody() -> Iterator[str]:
    """Give an address where nothing listens: the port is bound, not open."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_an_absent_registry_is_no_fault_of_the_record(
    nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing becomes a bad record because the registry can't be reached."""
    monkeypatch.setattr(module, "RETRIES", 0)
    wire = Wire.single_object(SchemaRegistry(RegistrySettings(url=nobody)))
    with pytest.raises(BrokerError, match=f"registry at {nobody} can't be asked.*REGISTRY__URL"):
        columns("reward", [b"\x00\x00\x00\x00\x01abc"], wire)


def test_a_wrong_path_is_no_unknown_id(settings: RegistrySettings) -> None:
    """A page that doesn't exist (404) isn't taken for a schema that doesn't."""
    assert settings.url is not None
    wrong = RegistrySettings(url=settings.url + "/nowhere")
    with pytest.raises(BrokerError, match="nowhere can't be asked"):
        SchemaRegistry(wrong).writer("reward", 1)


def test_credentials_are_passed_on(tmp_path: Any) -> None:
    """User, password and the file of trusted authorities reach the client as it names them."""
    settings = RegistrySettings(
        url="https://registry", username="ada", password=SecretStr("a:b"), ssl_ca_location="/ca.pem"
    )
    configuration = _configuration(settings)
    assert configuration["basic.auth.user.info"] == "ada:a:b"
    assert configuration["ssl.ca.location"] == "/ca.pem"
    with pytest.raises(BrokerError, match=r"https://registry can't be asked.*FileNotFoundError"):
        SchemaRegistry(settings)
