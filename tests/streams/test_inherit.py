"""A changed spec goes on with what its actions were taught, however and whenever it came."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.learners.inherit import inherits
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import learner
from bandstand.schemas.wire import Wire
from bandstand.streams import restore
from bandstand.streams.in_force import MOST_ANCESTORS, InForce
from bandstand.streams.join_types import Record
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import Position, SumsTable, is_position, position_of
from tests.streams.given import given_spec
from tests.streams.outcomes import outcome, outcome_record

WIRE = Wire.single_object()
ALL = ("a", "b", "c", "d")
POLICIES = (
    "linear_thompson",
    "beta_thompson",
    "gaussian_thompson",
    "exp3",
    "logistic_thompson",
    "diagonal_logistic_thompson",
)
FORGET: dict[str, Any] = {"forget": {"half_life": "1s"}}
WATCHED = {**FORGET, "drift": {"step": "2s"}}
WEIGHED = {"reward": {"name": "click", "keep_probability": {"attribute": "age", "absent": 1}}}


def spec_of(actions: Sequence[str], policy: str = "linear_thompson", **more: Any) -> Spec:
    """Give a spec with some actions."""
    fields = given_spec().model_dump(mode="json")
    features: dict[str, Any] = {} if learner(policy).parameters.contextual else {"features": []}
    changed = {"actions": list(actions), "policy": {"name": policy}, **features, **more}
    return Spec.model_validate({**fields, **changed})


def apply(before: InForce | None, spec: Spec, epoch: int) -> InForce:
    """Put a spec in force, as `bandstand apply` does."""
    return InForce(spec, epoch, before.heirs(spec) if before else ())


def fresh(in_force: InForce, start: int = 0) -> LearnCore:
    """Give a core that begins at an offset."""
    core = LearnCore("fast", 0, WIRE, Position(start))
    core.follow({"home": in_force})
    core.open()
    return core


def scratch(spec: Spec, log: Sequence[Record]) -> LearnCore:
    """Learn a whole log under one spec."""
    core = fresh(InForce(spec, 99))
    core.learn(log)
    return core


def killed(core: LearnCore, stored: dict[bytes, bytes], in_force: InForce) -> LearnCore:
    """Commit, and give the core that another process restores."""
    for write in core.writes():
        stored.pop(write.key, None)
        if write.value is not None:
            stored[write.key] = write.value
    found, table = restore.Restored(), SumsTable(WIRE)
    for key, value in stored.items():
        if is_position(key):
            found.position = position_of(value, WIRE)
        else:
            table.take(key, value)
    specs = cast(Any, SimpleNamespace(current={"home": in_force}, unreadable=set()))
    for place in table.places():
        restore._sort(place, table, specs, found)
    core = LearnCore("fast", 0, WIRE, found.position or Position(0), found.held, found.stale)
    core.follow({"home": in_force})
    return core


def rebuild(core: LearnCore, log: Sequence[Record]) -> None:
    """Learn what is missing from the retained outcomes."""
    if core.missing:
        first = log[0].offset if log else core.position.next_offset
        other = LearnCore("fast", 0, WIRE, Position(first))
        other.follow(core.missing)
        other.open()
        other.learn(log[: core.position.next_offset - first])
        core.adopt(other)


def sums_of(core: LearnCore) -> tuple[str, dict[str, int], int]:
    """Give what must be equal."""
    statistics = core.held["home"].statistics
    return statistics.digest(), dict(statistics.counters), core.held["home"].epoch


def log_of(rows: list[tuple[str, float, int]]) -> list[Record]:
    """Write outcomes, half a second apart: action, age and clicks of each."""
    return [
        outcome_record(i, outcome(500 * i, action=action, age=age, clicks=clicks), WIRE)
        for i, (action, age, clicks) in enumerate(rows)
    ]


ages = st.sampled_from([0.0, 0.25, 30.0, 700.0, float("nan")])
logs = st.lists(st.tuples(st.sampled_from("abcde"), ages, st.integers(0, 2)), max_size=24).map(
    log_of
)
changes = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.lists(st.sampled_from(ALL), min_size=1, unique=True),
        st.sampled_from([0.0, 0.01]),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=40)
@given(log=logs, history=changes)
def test_any_history_of_actions_ends_as_if_the_last_spec_had_always_been_there(
    policy: str, log: list[Record], history: list[Any]
) -> None:
    """Actions come and go at any moment, with kills and rebuilds between or not at all."""
    in_force = apply(None, spec_of(ALL, policy), 0)
    core, stored, read = fresh(in_force), dict[bytes, bytes](), 0
    for epoch, (step, actions, floor, dies, built) in enumerate(history, 1):
        core.learn(log[read : read + step])
        read = min(len(log), read + step)
        in_force = apply(in_force, spec_of(actions, policy, floor=floor), epoch)
        if dies:
            core = killed(core, stored, in_force)
        else:
            core.follow({"home": in_force})
        if built:
            rebuild(core, log)
    core.learn(log[read:])
    rebuild(core, log)
    expected = scratch(in_force.spec, log)
    assert not core.missing
    assert sums_of(core)[0] == sums_of(expected)[0]
    if all(set(ALL) <= set(actions) for _, actions, *_ in history):
        assert sums_of(core)[1] == sums_of(expected)[1]
    core = killed(core, stored, in_force)
    assert sums_of(core)[0] == sums_of(expected)[0]
    assert sum(not is_position(key) for key in stored) == 1


@pytest.mark.parametrize("more", [FORGET, WATCHED, WEIGHED], ids=["forget", "watched", "weighed"])
@settings(deadline=None, max_examples=40)
@given(log=logs, moments=st.lists(st.integers(0, 8), min_size=3, max_size=3), data=st.data())
def test_actions_are_added_to_sums_that_fade_or_weigh(
    more: dict[str, Any], log: list[Record], moments: list[int], data: st.DataObject
) -> None:
    """One action after the other is added, to the same bits as if all had been there."""
    in_force = apply(None, spec_of("b", "beta_thompson", **more), 0)
    core, read = fresh(in_force), 0
    for epoch, (step, actions) in enumerate(zip(moments, ("ab", "abd", "dcab"), strict=True), 1):
        core.learn(log[read : read + step])
        read = min(len(log), read + step)
        in_force = apply(in_force, spec_of(actions, "beta_thompson", **more), epoch)
        assert len(in_force.ancestors) == epoch
        core.follow({"home": in_force})
        if data.draw(st.booleans()):
            rebuild(core, log)
    core.learn(log[read:])
    rebuild(core, log)
    assert sums_of(core)[0] == sums_of(scratch(in_force.spec, log))[0]
    fewer = spec_of("ab", "beta_thompson", **more)
    assert apply(in_force, fewer, 9).ancestors == ()


def test_an_added_action_costs_nobody_what_retention_took() -> None:
    """Old actions go on with outcomes that are deleted; the new one has those that are left."""
    rows = [outcome(i, action="abd"[i % 3], clicks=i % 2) for i in range(12)]
    log = [outcome_record(i, row, WIRE) for i, row in enumerate(rows)]
    old = apply(None, spec_of("ab"), 0)
    core = fresh(old)
    core.learn(log[:9])
    now = apply(old, spec_of("adb"), 5)
    core.follow({"home": now})
    assert core.missing["home"].spec.actions == ("d",)
    core.learn(log[9:])
    rebuild(core, log[6:])
    statistics = core.held["home"].statistics
    assert statistics.sums["outcomes"].tolist() == [4, 2, 4]
    assert statistics.outcomes == 10
    whole = scratch(now.spec, log).held["home"].statistics
    assert (statistics.sums["products"][[0, 2]] == whole.sums["products"][[0, 2]]).all()


def test_an_action_that_comes_back_is_a_new_one_for_every_learner() -> None:
    """Whether a learner saw that it was away or slept through it, it learns it anew."""
    log = [outcome_record(i, outcome(i, action="ab"[i % 2]), WIRE) for i in range(8)]
    first = apply(None, spec_of("ab"), 0)
    second = apply(first, spec_of("a"), 1)
    third = apply(second, spec_of("ab"), 2)
    awake, asleep = fresh(first), fresh(first)
    for core in (awake, asleep):
        core.learn(log)
    awake.follow({"home": second})
    for core in (awake, asleep):
        core.follow({"home": third})
        rebuild(core, log[4:])
        assert core.held["home"].statistics.sums["outcomes"].tolist() == [4, 2]
    assert sums_of(awake)[0] == sums_of(asleep)[0]


def test_what_sums_depend_on_makes_them_anew() -> None:
    """Another lane, feature, reward function or learner has no ancestors; other changes have."""
    old = apply(None, spec_of("ab"), 3)
    reward = old.spec.reward.model_dump(mode="json")
    goes_on = [
        spec_of("ab", floor=0.1, description="other"),
        spec_of("ba"),
        spec_of("abc", prior={"mean": 0.5, "strength": 3}),
        spec_of("c"),
        spec_of("abc", reward={**reward, "cost": {"actions": {"c": -0.25}}}),
    ]
    begins = [
        spec_of("ab", lane="other"),
        spec_of("ab", "lin_ucb"),
        spec_of("ab", features=[]),
        spec_of("ab", reward={**reward, "aggregate": "sum"}),
        spec_of("ab", reward={**reward, "cost": {"actions": {"b": -0.25}}}),
    ]
    assert [bool(apply(old, spec, 4).ancestors) for spec in goes_on] == [True] * len(goes_on)
    assert not any(apply(old, spec, 4).ancestors for spec in begins)
    weighed = {**reward, "keep_probability": {"attribute": "kept"}}
    assert inherits(spec_of("abc", reward=weighed), spec_of("ab", reward=weighed))
    assert not inherits(spec_of("a", reward=weighed), spec_of("ab", reward=weighed))


def test_a_chain_goes_on_where_it_would_have_begun_alike() -> None:
    """What an action begins with stays: its prior, not those of others, nor what only decides."""

    def chain(actions: str, beliefs: dict[str, Any], rest: Any = None, **policy: float) -> Spec:
        prior = {"actions": beliefs, **(rest or {})}
        spec = spec_of(actions, "logistic_thompson", prior=prior).model_dump(mode="json")
        return Spec.model_validate({**spec, "policy": {**spec["policy"], **policy}})

    belief = {"mean": 0.3, "strength": 9}
    old = chain("ab", {"b": belief})
    for same in (
        chain("cab", {"b": belief, "c": {"mean": 0.1, "strength": 40}}),
        chain("cb", {"b": belief}, {"mean": 0.1, "strength": 40}),
        chain("ab", {"b": belief}, exploration=2.0),
    ):
        assert inherits(same, old)
    for other in (
        chain("ab", {"b": {**belief, "strength": 10}}),
        chain("ab", {"a": belief, "b": belief}),
        chain("ab", {"b": belief}, {"mean": 0.1, "strength": 40}),
        chain("ab", {"b": belief}, prior_precision=2.0),
    ):
        assert not inherits(other, old)


def test_an_act_of_a_drift_detector_unlearns_nothing_that_it_need_not() -> None:
    """Exploration is widened on the same sums; a new beginning and a shorter half-life aren't."""
    since = "2026-11-29T20:00:00Z"
    explores = {"step": "2s", "act": "explore", "floor": 0.1, "widen": "1h"}
    old = spec_of("ab", drift=explores)
    widened = {"floor": 0.1, "until": since}
    assert inherits(spec_of("ab", drift={**explores, "since": since}, widened=widened), old)
    assert not inherits(spec_of("ab", drift=explores, since=since), old)
    assert not inherits(spec_of("ab", drift={**explores, "step": "4s"}), old)
    assert not inherits(spec_of("ab"), old)
    assert not inherits(spec_of("ab", forget={"half_life": "2s"}), spec_of("ab", **FORGET))


def test_the_line_of_ancestors_is_bounded() -> None:
    """A spec that is changed every hour doesn't grow its record without end."""
    in_force = apply(None, spec_of("ab"), 0)
    for epoch in range(1, 2 * MOST_ANCESTORS):
        in_force = apply(in_force, spec_of("ab", floor=epoch / 1000), epoch)
    assert [a.epoch for a in in_force.ancestors] == list(range(62, 62 - MOST_ANCESTORS, -1))
