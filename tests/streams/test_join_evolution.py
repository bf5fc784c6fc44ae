"""Writers of other schema versions and in both wire formats, mixed in one partition."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import fastavro
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from bandstand.local import Apicurio
from bandstand.schemas import codec, columns, definitions
from bandstand.schemas.registry import SchemaRegistry
from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.settings import RegistrySettings
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import Output, Record, Records, Rules
from tests.schemas.golden import EXAMPLES

RULES = Rules(60_000, 1_000, 10_000, 0, 10_000)
START = 1_700_000_000_000
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def wire(bandstand_registry: Apicurio) -> Wire:
    """Write ids of the session's registry; read them and single-object headers."""
    return Wire.confluent(SchemaRegistry(RegistrySettings(url=bandstand_registry.url)))


@pytest.fixture(scope="module")
def client(bandstand_registry: Apicurio) -> Iterator[SchemaRegistryClient]:
    """Reach the registry as foreign writers do."""
    with SchemaRegistryClient({"url": bandstand_registry.url}) as client:
        yield client


class Writer:
    """A service or a reward producer with a schema of its own, known to the registry."""

    def __init__(self, client: SchemaRegistryClient, name: str, change: Change) -> None:
        definition = json.loads(definitions.current(name).json)
        change(definition)
        schema = Schema(json.dumps(definition), "AVRO")
        self._id = client.register_schema(f"test-{uuid.uuid4()}", schema)
        self._schema = fastavro.parse_schema(definition)

    def __call__(self, record: dict[str, Any]) -> bytes:
        """Write a record."""
        buffer = BytesIO()
        fastavro.schemaless_writer(buffer, self._schema, record)
        return b"\x00" + self._id.to_bytes(4, "big") + buffer.getvalue()


def without(field: str) -> Change:
    """Give a version from before a field was added."""

    def change(definition: dict[str, Any]) -> None:
        definition["fields"] = [f for f in definition["fields"] if f["name"] != field]

    return change


def with_more(definition: dict[str, Any]) -> None:
    """Give a version from after a field was added."""
    definition["fields"].append({"name": "more", "type": "string", "default": ""})


def narrower(field: str) -> Change:
    """Give a version from before a field was widened."""

    def change(definition: dict[str, Any]) -> None:
        [found] = [f for f in definition["fields"] if f["name"] == field]
        assert found["type"] == "double"
        found["type"] = "float"

    return change


def same(_: dict[str, Any]) -> None:
    """Change nothing."""


def decision(number: int) -> dict[str, Any]:
    """Give a decision whose every field has a value that all versions can hold."""
    return {
        **EXAMPLES["decision"],
        "decision_id": f"d{number}",
        "ts": START + number,
        "propensity": 0.25,
        "optimality_gap": None,
    }


def reward(number: int) -> dict[str, Any]:
    """Give the reward of that decision."""
    return {
        **EXAMPLES["reward"],
        "decision_id": f"d{number}",
        "ts": START + number + 7,
        "value": 0.5,
        "metadata": {},
    }


def join(wire: Wire, decisions: list[bytes], rewards: list[bytes]) -> Output:
    """Join one partition: event n of each log belongs with event n of the other."""
    core = JoinCore(
        RULES, wire, max_outcome_bytes=900_000, tail=None, decision_start=0, reward_start=0
    )
    count = len(decisions)
    tick = [("tick", RULES.to_header())]
    logs = [
        [
            *(
                Record(n, START + n + later, f"d{n}".encode(), value, ())
                for n, value in enumerate(values)
            ),
            Record(count, START + 100, TICK_KEY, None, tick),
            Record(count + 1, START + 70_000, TICK_KEY, None, tick),
        ]
        for values, later in ((decisions, 0), (rewards, 7))
    ]
    refused = core.push_decisions(Records.of(logs[0])).refusals
    output = core.push_rewards(Records.of(logs[1]))
    assert [refusal.detail for refusal in refused + output.refusals] == []
    return output


def outcomes(wire: Wire, output: Output) -> list[dict[str, Any]]:
    """Read the outcomes."""
    return [wire.loads("outcome", value) for value in output.emissions.values]


VERSIONS = {
    "a field was added since": (without("metadata"), without("metadata")),
    "a field was added that this join doesn't know": (with_more, with_more),
    "a type was widened since": (narrower("propensity"), narrower("value")),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_mixed_in_one_partition_join(
    wire: Wire, client: SchemaRegistryClient, version: str
) -> None:
    """Other versions' events give, byte for byte, the outcomes that current ones give."""
    theirs = [
        Writer(client, name, change)
        for name, change in zip(("decision", "reward"), VERSIONS[version], strict=True)
    ]
    ours = [wire.dumps("decision", decision(n)) for n in range(6)]
    our_rewards = [wire.dumps("reward", reward(n)) for n in range(6)]
    mixed = [theirs[0](decision(n)) if n % 2 else ours[n] for n in range(6)]
    mixed_rewards = [theirs[1](reward(n)) if n % 3 else our_rewards[n] for n in range(6)]
    if version == "a field was added since":
        # What an older version can't say is the field's default.
        for n in (1, 3, 5):
            ours[n] = wire.dumps("decision", {**decision(n), "metadata": {}})
    alone = join(wire, ours, our_rewards)
    together = join(wire, mixed, mixed_rewards)
    assert together.emissions == alone.emissions
    assert together.decisions == {"joined": 6}


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process one of a later release, in which two fields got other names."""
    names = {"decision": ("subject", "unit"), "reward": ("bandit", "campaign")}
    as_released = definitions._definition

    def later(name: str) -> dict[str, Any]:
        definition = as_released(name)
        old, new = names.get(name, ("", ""))
        for field in definition["fields"]:
            if field["name"] == old:
                field.update(name=new, aliases=[old])
        return definition

    monkeypatch.setattr(definitions, "_definition", later)
    _forget_schemas()
    yield
    monkeypatch.undo()
    _forget_schemas()


def _forget_schemas() -> None:
    for cached in (
        definitions.current,
        definitions.fingerprint,
        definitions.known,
        columns.arrow_schema,
        columns._reader,
    ):
        cached.cache_clear()


def test_a_renamed_field_is_found_by_its_alias(
    bandstand_registry: Apicurio, client: SchemaRegistryClient, renamed: None
) -> None:
    """A join whose schemas have new names for fields reads those who still use the old ones."""

    def back(definition: dict[str, Any]) -> None:
        for field in definition["fields"]:
            field["name"] = field.pop("aliases", [field["name"]])[0]

    registry = SchemaRegistry(RegistrySettings(url=bandstand_registry.url))
    wire = Wire.single_object(registry)
    new_decision, new_reward = decision(1), reward(1)
    new_decision["unit"] = new_decision.pop("subject")
    new_reward["campaign"] = new_reward.pop("bandit")
    output = join(
        wire,
        [Writer(client, "decision", back)(decision(0)), wire.dumps("decision", new_decision)],
        [Writer(client, "reward", back)(reward(0)), wire.dumps("reward", new_reward)],
    )
    assert output.decisions == {"joined": 2}
    assert [one["decision"]["unit"] for one in outcomes(wire, output)] == [new_decision["unit"]] * 2


def test_both_wire_formats_join_in_one_partition(wire: Wire) -> None:
    """Fingerprints and ids in turn give the bytes that ids alone give."""
    single = Wire.single_object()
    ours = [wire.dumps("decision", decision(n)) for n in range(6)]
    our_rewards = [wire.dumps("reward", reward(n)) for n in range(6)]
    mixed = [single.dumps("decision", decision(n)) if n % 2 else ours[n] for n in range(6)]
    mixed_rewards = [
        single.dumps("reward", reward(n)) if n % 3 else our_rewards[n] for n in range(6)
    ]
    assert join(wire, mixed, mixed_rewards).emissions == join(wire, ours, our_rewards).emissions


def test_bytes_of_the_current_version_are_spliced_as_they_are(
    wire: Wire, client: SchemaRegistryClient
) -> None:
    """Only what another version wrote is written anew: a map in two blocks tells them apart."""
    blocks = _in_two_blocks(codec.encode("decision", decision(0)))
    assert blocks != codec.encode("decision", decision(0))
    ours = [wire.header("decision") + blocks]
    older = Writer(client, "decision", without("optimality_gap"))(decision(1))
    rewards = [wire.dumps("reward", reward(n)) for n in range(2)]
    spliced, written = join(wire, [*ours, older], rewards).emissions.values
    assert spliced.endswith(blocks)
    assert written.endswith(codec.encode("decision", decision(1)))


def _in_two_blocks(body: bytes) -> bytes:
    """Write the last field, a map of one entry, with the block's size, as Avro allows."""
    metadata = {"key": "value"}
    plain = codec.encode("decision", {**decision(0), "metadata": metadata})
    entry = b"\x06key\x0avalue"
    assert plain.endswith(b"\x02" + entry + b"\x00")
    sized = b"\x01" + bytes((len(entry) << 1,)) + entry + b"\x00"
    return plain.removesuffix(b"\x02" + entry + b"\x00") + sized
