"""Specs: applied by an operator, followed by every role."""

from __future__ import annotations

import pytest

from bandstand.errors import SettingsError
from bandstand.local import Kafka
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.specs import InForce, SpecFollower, apply_spec, specs_in_force
from tests.streams.given import (
    everything_in,
    given_records,
    given_settings,
    given_spec,
)
from tests.waiting import until


@pytest.fixture
def settings(bandstand_kafka: Kafka, bandstand_prefix: str) -> Settings:
    """Give settings whose topics exist."""
    settings = given_settings(bandstand_kafka, bandstand_prefix)
    topics.create(settings)
    return settings


def test_an_applied_spec_is_in_force_and_a_second_time_changes_nothing(settings: Settings) -> None:
    """The epoch is the record's offset; the same spec again gives the same epoch."""
    first = apply_spec(settings, given_spec(), "ann", "launch")
    assert apply_spec(settings, given_spec()) == first
    changed = apply_spec(settings, given_spec(default=0.5))
    assert changed == first + 1
    assert specs_in_force(settings) == {"home": InForce(given_spec(default=0.5), changed)}
    floor = given_spec(default=0.5).model_dump(mode="json") | {"floor": 0.1}
    again = apply_spec(settings, Spec.model_validate(floor))
    assert specs_in_force(settings)["home"].ancestors == ((changed, given_spec(default=0.5)),)
    assert again == changed + 1


def test_a_spec_of_an_unknown_lane_is_refused(settings: Settings) -> None:
    """Nobody would learn it, so nobody may apply it."""
    with pytest.raises(SettingsError, match="lane 'slow' is not set up; known: fast"):
        apply_spec(settings, given_spec(lane="slow"))
    assert specs_in_force(settings) == {}


def test_a_follower_sees_changes_without_a_restart(settings: Settings) -> None:
    """New, changed and removed bandits come in the order in which they were applied."""
    with SpecFollower(settings) as follower:
        assert follower.catch_up() == []
        old = apply_spec(settings, given_spec())
        new = apply_spec(settings, given_spec(default=0.5))
        given_records(settings, TopicNames(settings.topics.prefix).specs, (b"home", None))
        changes = follower.catch_up()
        assert [(c.before and c.before.epoch, c.now and c.now.epoch) for c in changes] == [
            (None, old),
            (old, new),
            (new, None),
        ]
        assert follower.current == {}


def test_an_unreadable_spec_goes_to_dead_letters_and_stops_nobody(settings: Settings) -> None:
    """What was in force stays in force, and each refused record has its reason."""
    wire = Wire.single_object()
    spec = given_spec()
    record = {"bandit": "home", "spec_hash": spec.hash, "spec": spec.canonical(), "ts": 1}
    names = TopicNames(settings.topics.prefix)
    epoch = apply_spec(settings, spec)
    given_records(
        settings,
        names.specs,
        (b"home", b"{}"),
        (b"home", wire.dumps("spec", {**record, "spec": "{}"})),
        (b"other", wire.dumps("spec", record)),
        (b"home", wire.dumps("spec", {**record, "spec_hash": "00"})),
        (b"\xff", wire.dumps("spec", record)),
    )
    with SpecFollower(settings, role="learn") as follower:
        follower.catch_up()
        assert follower.current == {"home": InForce(spec, epoch)}
    until(lambda: len(everything_in(settings, names.dead_letters)) == 5)
    letters = [
        wire.loads("dead_letter", bytes(message.value() or b""))
        for message in everything_in(settings, names.dead_letters)
    ]
    assert [letter["reason"] for letter in letters] == ["magic", "invalid", "key", "invalid", "key"]
    assert [letter["offset"] for letter in letters] == [1, 2, 3, 4, 5]
    assert {(letter["role"], letter["topic"]) for letter in letters} == {("learn", names.specs)}
