"""What was once written stays readable: every released schema, for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bandstand.schemas.codec import NAMES, decode, encode
from bandstand.schemas.compatibility import problems
from bandstand.schemas.definitions import current, released
from bandstand.schemas.wire import SINGLE_OBJECT, Wire
from tests.schemas.golden import EXAMPLES, GOLDEN, plain

VERSIONS = [(name, version) for name in NAMES for version in released(name)]


def _golden(name: str, version: int) -> tuple[bytes, Any]:
    golden = json.loads((GOLDEN / f"{name}-{version}.json").read_text("utf-8"))
    return bytes.fromhex(golden["body"]), golden["record"]


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_releases_and_the_current_schema_read_each_other(name: str, version: int) -> None:
    """A schema may only change so that old readers and new ones both go on."""
    old = released(name)[version]
    assert problems(old, current(name)) == []
    assert problems(current(name), old) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_current_schema_is_released(name: str) -> None:
    """What may be written is known to every later reader by its fingerprint."""
    fingerprints = [schema.fingerprint for schema in released(name).values()]
    assert current(name).fingerprint in fingerprints, "release it: python -m tests.schemas.golden"
    assert len(set(fingerprints)) == len(fingerprints)


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_golden_bytes_decode(name: str, version: int) -> None:
    """The bytes kept of each release give the record that they were made from."""
    body, record = _golden(name, version)
    value = SINGLE_OBJECT + released(name)[version].fingerprint + body
    found = plain(Wire.single_object().loads(name, value))
    assert {key: found[key] for key in record} == record


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_whole(name: str) -> None:
    """The record that the next release's golden bytes are made of has every field."""
    assert decode(name, encode(name, EXAMPLES[name])) == EXAMPLES[name]
