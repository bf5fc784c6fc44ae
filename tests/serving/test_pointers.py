from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bandstand.errors import EventError, StateError
from bandstand.schemas.topics import artifact_key, pointer_key
from bandstand.serving.pointers import Entry, Pointers
from tests.serving.given import HOMEPAGE, WIRE, snapshot

OLD, NEW, NEXT = (snapshot(HOMEPAGE, outcomes) for outcomes in (1, 2, 3))


def artifact(offset: int, record: Mapping[str, Any]) -> Entry:
    """Give the record of a snapshot."""
    key = artifact_key("homepage", record["version"])
    return Entry(offset, 1_000 + offset, key, WIRE.dumps("snapshot", record))


def pointer(offset: int, record: Mapping[str, Any], reason: str = "published") -> Entry:
    """Give the record of a pointer."""
    named = {"bandit": "homepage", "version": record["version"], "reason": reason}
    return Entry(offset, 0, pointer_key("homepage"), WIRE.dumps("snapshot_pointer", named))


def versions(*entries: Entry) -> list[str | None]:
    """Give the version that each record moves to."""
    pointers = Pointers(WIRE)
    moves = [pointers.take(entry) for entry in entries]
    return [move and move.version for move in moves]


def test_a_pointer_moves_forward() -> None:
    """The artifact alone changes nothing; the pointer to it does."""
    moved = versions(artifact(0, OLD), pointer(1, OLD), artifact(2, NEW), pointer(3, NEW))
    assert moved == [None, OLD["version"], None, NEW["version"]]


def test_a_publisher_that_lost_its_partition_moves_nothing_back() -> None:
    """An older version that is only published is ignored, and newer ones go on counting."""
    log = [artifact(0, OLD), artifact(1, NEW), artifact(2, NEXT)]
    moved = versions(*log, pointer(3, NEW), pointer(4, OLD), pointer(5, NEXT))
    assert moved[3:] == [NEW["version"], None, NEXT["version"]]


def test_an_operator_may_roll_back_and_forward_again() -> None:
    """A pointer with a reason of its own is obeyed, whatever version it names."""
    log = [artifact(0, OLD), artifact(1, NEW), pointer(2, NEW)]
    moved = versions(*log, pointer(3, OLD, "NEW sells nothing"), pointer(4, NEW))
    assert moved[3:] == [OLD["version"], NEW["version"]]


def test_reading_the_topic_again_moves_nothing() -> None:
    """After a new connection the same records come again, also the roll-backs among them."""
    log = [artifact(0, OLD), artifact(1, NEW), pointer(2, OLD, "try"), pointer(3, NEW, "go on")]
    assert versions(*log, *log)[4:] == [None] * 4


def test_a_missing_artifact_is_said_and_waited_for() -> None:
    """A pointer to nothing is an error; the move comes with the artifact."""
    pointers = Pointers(WIRE)
    pointers.take(artifact(0, OLD))
    pointers.take(pointer(1, OLD))
    with pytest.raises(StateError, match=f"names snapshot {NEW['version']}"):
        pointers.take(pointer(2, NEW))
    move = pointers.take(artifact(3, NEW))
    assert move is not None
    assert (move.version, move.artifact.timestamp) == (NEW["version"], 1_003)


def test_deleted_artifacts_are_forgotten_and_deleted_pointers_change_nothing() -> None:
    """A service goes on with what it has."""
    pointers = Pointers(WIRE)
    for entry in (artifact(0, OLD), pointer(1, OLD)):
        pointers.take(entry)
    assert pointers.artifact("homepage") is not None
    assert pointers.take(Entry(2, 0, pointer_key("homepage"), None)) is None
    assert pointers.artifact("homepage") is not None
    pointers.take(Entry(3, 0, artifact_key("homepage", OLD["version"]), None))
    assert pointers.artifact("homepage") is None


def test_a_pointer_under_a_foreign_key_is_refused() -> None:
    """Key and bytes must name the same bandit."""
    entry = pointer(0, OLD)._replace(key=pointer_key("shop"))
    with pytest.raises(EventError, match="invalid: pointer of 'homepage' under key 'shop'"):
        Pointers(WIRE).take(entry)
