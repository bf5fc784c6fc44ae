"""Specs: applied by an operator, followed by every role."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from bandstand.errors import BrokerError, SettingsError, SpecError
from bandstand.kafka import end_offsets
from bandstand.learners.evidence import Evidence
from bandstand.local import Kafka
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.in_force import Ancestor, InForce, Start, Wanted
from bandstand.streams.specs import SpecFollower, apply, apply_spec, specs_in_force
from bandstand.streams.transactions import Transactions
from tests.streams.given import (
    everything_in,
    given_records,
    given_settings,
    given_spec,
)
from tests.waiting import PATIENCE_S, until

NOTHING_YET = (Start(0, 0), Start(0, 0))


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
    assert changed > first
    now = InForce(given_spec(default=0.5), changed, starts=NOTHING_YET)
    assert specs_in_force(settings) == {"home": now}
    floor = given_spec(default=0.5).model_dump(mode="json") | {"floor": 0.1}
    again = apply_spec(settings, Spec.model_validate(floor))
    assert specs_in_force(settings)["home"].ancestors == ((changed, given_spec(default=0.5)),)
    assert again > changed


def test_many_specs_are_applied_at_once_or_none(settings: Settings) -> None:
    """Those in force already keep their epochs; one that nobody may apply stops all."""
    old = apply_spec(settings, given_spec("b7"))
    wanted = [Wanted(given_spec(f"b{number}"), "launch") for number in range(100)]
    with SpecFollower(settings) as specs:
        epochs = apply(settings, specs, wanted, "ann")
        changes = specs.poll()  # those before, and of the others what has come already
        with pytest.raises(SettingsError):
            apply(settings, specs, [Wanted(given_spec("new")), Wanted(given_spec(lane="slow"))])
        with pytest.raises(SpecError, match="several specs of 'home'; give one a bandit"):
            apply(settings, specs, [Wanted(given_spec()), Wanted(given_spec(default=0.5))])
        changes += specs.catch_up()
    assert changes[0].bandit == "b7"
    assert len(changes) == 100
    assert epochs[7] == old
    in_force = specs_in_force(settings)
    assert [in_force[f"b{number}"].epoch for number in range(100)] == epochs
    assert len(in_force) == 100


def test_whoever_was_overtaken_reads_again_before_it_writes(settings: Settings) -> None:
    """What another one applies after the last look isn't lost, however late it comes."""
    first = apply_spec(settings, given_spec())
    other = given_spec(default=0.5)

    class Overtaken(SpecFollower):
        looks, theirs = 0, -1

        def look(self, timeout: float = PATIENCE_S) -> None:
            super().look(timeout)
            self.looks += 1
            if self.looks == 2:
                self.theirs = apply_spec(settings, other)

    floor = Spec.model_validate(given_spec().model_dump(mode="json") | {"floor": 0.1})
    with Overtaken(settings) as specs:
        mine = apply(settings, specs, [Wanted(floor, instead_of=first)])
        assert mine == [specs.theirs]
    assert specs_in_force(settings)["home"].spec == other
    with Overtaken(settings) as specs:
        [last] = apply(settings, specs, [Wanted(floor)])
        assert last > specs.theirs
    records = everything_in(settings, TopicNames(settings.topics.prefix).specs)
    assert [message.offset() for message in records][-2:] == [specs.theirs, last]


@pytest.mark.parametrize("evidence", [None, Evidence("log", ("a",), {"outcomes": np.ones(1)})])
@pytest.mark.parametrize("written", [False, True])
def test_an_answer_that_got_lost_leaves_one_record(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, written: bool, evidence: Evidence | None
) -> None:
    """Whether Kafka had committed it, is looked up before it is tried again."""
    write, tries = Transactions.write, []

    def write_and_lose(self: Transactions, records: Any) -> dict[bytes, int]:
        tries.append(records)
        if len(tries) > 1:
            return write(self, records)
        if written:
            write(self, records)
        raise BrokerError("the answer got lost", passing=True)

    monkeypatch.setattr(Transactions, "write", write_and_lose)
    epoch = apply_spec(settings, given_spec(), evidence=evidence)
    assert len(tries) == (1 if written else 2)
    records = everything_in(settings, TopicNames(settings.topics.prefix).specs)
    assert [message.offset() for message in records] == [epoch]


def test_several_who_change_one_spec_at_once_lose_nothing(settings: Settings) -> None:
    """Each adds an action to what it has read, only instead of that; in the end all are there."""
    apply_spec(settings, given_spec())
    names = [f"new{number}" for number in range(6)]

    def add(name: str) -> None:
        with SpecFollower(settings) as specs:
            specs.catch_up()
            while name not in (now := specs.current["home"]).spec.actions:
                fields = now.spec.model_dump(mode="json")
                more = Spec.model_validate({**fields, "actions": [*now.spec.actions, name]})
                apply(settings, specs, [Wanted(more, instead_of=now.epoch)])
                specs.catch_up()

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(add, names))
    now = specs_in_force(settings)["home"]
    assert set(now.spec.actions) == {"a", "b", "c", *names}
    assert len(now.ancestors) == len(names)


def test_a_bandit_begins_where_outcomes_end_when_it_comes_to_its_lane(settings: Settings) -> None:
    """The offsets are in its record, and stay there; all that is retained counts where asked."""
    names = TopicNames(settings.topics.prefix)
    for topic, count in ((names.outcomes("fast"), 50), (names.decisions("fast"), 60)):
        given_records(settings, topic, *[(b"%d" % number, None) for number in range(count)])
    outcomes = end_offsets(settings, names.outcomes("fast"), range(2))
    decisions = end_offsets(settings, names.decisions("fast"), range(2))
    ends = tuple(Start(outcomes[p], decisions[p]) for p in range(2))
    apply_spec(settings, given_spec())
    given_records(settings, names.decisions("fast"), (b"k", None))
    epoch = apply_spec(settings, given_spec(default=0.5))
    assert specs_in_force(settings)["home"] == InForce(given_spec(default=0.5), epoch, starts=ends)
    all_count = apply_spec(settings, given_spec(default=0.5), retained=True)
    assert all_count > epoch
    assert specs_in_force(settings)["home"] == InForce(given_spec(default=0.5), all_count)
    assert apply_spec(settings, given_spec(default=0.5), retained=True) == all_count
    apply_spec(settings, given_spec("other"), retained=True)
    assert specs_in_force(settings)["other"].starts == ()


def test_what_takes_the_place_of_a_spec_is_told_by_what_was_there() -> None:
    """Another lane begins anew; sums never go on where they lack what now counts."""
    evidence = Evidence("log", ("a",), {})
    before = {
        "home": InForce(given_spec(), 3, evidence=evidence, starts=(Start(5, 6), Start(7, 8)))
    }
    floor = Spec.model_validate(given_spec().model_dump(mode="json") | {"floor": 0.1})

    def after(wanted: Wanted) -> InForce:
        return wanted.after(before, lambda lane: (Start(len(lane), 9),))

    assert after(Wanted(floor)) == InForce(
        floor, -1, (Ancestor(3, given_spec()),), evidence, (Start(5, 6), Start(7, 8))
    )
    assert after(Wanted(floor, retained=True)) == InForce(floor, -1, (), evidence)
    slow = given_spec(lane="slower")
    assert after(Wanted(slow)) == InForce(slow, -1, (), None, (Start(6, 9),))
    assert after(Wanted(given_spec("new"))).starts == (Start(4, 9),)


def test_what_a_chain_was_told_stays_as_long_as_its_chains_go_on() -> None:
    """A changed floor loses none of it; a changed prior begins anew and tells what is left out."""
    fields = given_spec().model_dump(mode="json") | {"policy": {"name": "logistic_thompson"}}
    evidence = Evidence("log", ("a",), {})
    before = {"home": InForce(Spec.model_validate(fields), 3, evidence=evidence)}
    floor = Wanted(Spec.model_validate(fields | {"floor": 0.1}))
    assert floor.after(before, lambda _: ()).evidence is evidence
    assert floor.loses(before) is None
    prior = Wanted(Spec.model_validate(fields | {"prior": {"mean": 0.1, "strength": 9}}))
    assert prior.after(before, lambda _: ()).evidence is None
    assert prior.loses(before) is evidence


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
    newer = json.loads(spec.canonical())
    newer["prior"] = {"actions": {"a": {"mean": 0.5, "strength": 9, "decay": 1}}}
    array = {"name": "outcomes", "shape": [2], "data": b"\0" * 8}
    prior = {"origin": "elsewhere", "actions": ["a", "b"], "arrays": [array]}
    names = TopicNames(settings.topics.prefix)
    epoch = apply_spec(settings, spec)
    given_records(
        settings,
        names.specs,
        (b"home", b"{}"),
        (b"home", wire.dumps("spec", {**record, "spec": json.dumps(newer)})),
        (b"home", wire.dumps("spec", {**record, "prior": prior})),
        (b"home", wire.dumps("spec", {**record, "spec": "{}"})),
        (b"other", wire.dumps("spec", record)),
        (b"home", wire.dumps("spec", {**record, "spec_hash": "00"})),
        (b"\xff", wire.dumps("spec", record)),
    )
    with SpecFollower(settings, role="learn") as follower:
        follower.catch_up()
        assert follower.current == {"home": InForce(spec, epoch, starts=NOTHING_YET)}
    until(lambda: len(everything_in(settings, names.dead_letters)) == 7)
    letters = [
        wire.loads("dead_letter", bytes(message.value() or b""))
        for message in everything_in(settings, names.dead_letters)
    ]
    assert [letter["reason"] for letter in letters] == [
        *("magic", "invalid", "invalid"),
        *("invalid", "key", "invalid", "key"),
    ]
    assert [letter["offset"] for letter in letters] == [2, 3, 4, 5, 6, 7, 8]
    assert "prior.actions.a.decay: unknown key; allowed: mean, strength" in letters[1]["detail"]
    assert "array 'outcomes' has 8 bytes and the shape [2]" in letters[2]["detail"]
    assert {(letter["role"], letter["topic"]) for letter in letters} == {("learn", names.specs)}
