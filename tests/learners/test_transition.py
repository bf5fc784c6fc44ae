"""From snapshot to snapshot in bounded steps, at every context and for all eligible actions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bandstand.errors import DecisionError, StateError
from bandstand.learners.policies import Policy, policy_from_snapshot
from bandstand.learners.snapshots import Before, build
from bandstand.learners.statistics import Statistics
from bandstand.learners.stored import read, stored
from bandstand.learners.transition import PROMISED, mixes
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_drift import moment
from bandstand.schemas.wire import Wire
from tests.learners.given import batch, outcome

ACTIONS = ["red", "green", "blue", "grey"]
AGE = {"name": "age", "kind": "numeric", "low": 0.0, "high": 80.0}
WORD = {"name": "age", "kind": "categorical", "values": ["old", "young"]}
LAND = {"name": "land", "kind": "categorical", "values": ["ch", "no"]}
CONTEXTS: tuple[dict[str, Any], ...] = (
    {},
    {"age": 71.0, "land": "no"},
    {"age": 3.0, "land": "ch"},
    {"age": "old", "land": "ch"},
)
SMALL = 1e-9


def spec_of(policy: str = "lin_ucb", most: float = 0.1, **more: Any) -> Spec:
    """Give a spec of four actions with two features."""
    fields = {
        "bandit": "paint",
        "actions": ACTIONS,
        "features": [AGE, LAND],
        "policy": {"name": policy},
        "reward": {"name": "click"},
        "smoothing": {"most_change": most},
        **more,
    }
    return Spec.model_validate(fields)


def outcomes(seed: int, count: int = 30, newest: int = 1_000) -> list[dict[str, Any]]:
    """Give outcomes in which other subjects click on other actions with each seed."""
    luck = np.random.default_rng(seed)
    likes = luck.random((len(ACTIONS), 2))
    found = []
    for number in luck.integers(2 * len(ACTIONS), size=count):
        action, old = divmod(int(number), 2)
        clicks = [1.0] if luck.random() < likes[action, old] else []
        numeric, words = {"age": 70.0 * old}, {"land": ["ch", "no"][old]}
        found.append(outcome(ACTIONS[action], clicks, numeric=numeric, words=words, ts=newest))
    return found


def after(spec: Spec, records: list[dict[str, Any]], before: Before | None = None) -> Before:
    """Give a snapshot after some outcomes, and its policy."""
    statistics = Statistics.empty(spec).update(batch(records))
    parent = "" if before is None else str(before.snapshot["version"])
    return Before.of(build(spec, statistics, 0, parent, {}, before=before))


def plain(spec: Spec, records: list[dict[str, Any]]) -> Policy:
    """Give the policy of a spec without smoothing after some outcomes."""
    fields = {**spec.model_dump(mode="json"), "smoothing": None}
    return after(Spec.model_validate(fields), records).policy


def table(policy: Policy) -> npt.NDArray[np.float64]:
    """Give the probabilities of all actions at each context that a numeric age can have."""
    return np.array([policy.decide(c, policy.spec.actions).probabilities for c in CONTEXTS[:3]])


def promised(snapshot: Any) -> dict[str, float]:
    """Give what a snapshot promises on top of its mixture, by action."""
    found = read(snapshot["arrays"]).get(PROMISED)
    return {} if found is None else dict(zip(snapshot["actions"], found.tolist(), strict=True))


def held(now: Before, before: Before) -> Policy:
    """Give a snapshot's policy without what its least probabilities have risen by."""
    arrays, known = read(now.snapshot["arrays"]), promised(before.snapshot)
    if PROMISED in arrays:
        old = np.array([known.get(action, 0.0) for action in now.snapshot["actions"]])
        arrays[PROMISED] = np.minimum(arrays[PROMISED], old)
    return policy_from_snapshot({**now.snapshot, "arrays": stored(arrays)})


def moves(now: Before, before: Before, luck: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Give how far probabilities moved, and what least probabilities raised, here and there."""
    names, theirs = now.snapshot["actions"], before.snapshot["actions"]
    level, most = held(now, before), now.policy.spec.smoothing
    assert most is not None
    lowest, known = promised(now.snapshot), promised(before.snapshot)
    rises = sum(max(0.0, least - known.get(name, 0.0)) for name, least in lowest.items())
    full = sum(lowest.values()) > 1.0 - SMALL  # what falls had to make room for what rose
    sets = [e for size in range(1, 5) for e in combinations(names, size)]
    for context in CONTEXTS:
        for index in luck.permutation(len(sets))[:4]:
            eligible = list(sets[index])
            old = [action for action in eligible if action in theirs]
            try:
                found = now.policy.decide(context, eligible).probabilities
                then = before.policy.decide(context, old).probabilities
            except DecisionError:
                continue  # one of both can't read the context, or has none of the actions
            assert abs(found.sum() - 1.0) < SMALL
            assert (found >= [lowest.get(action, 0.0) for action in eligible]).all()
            assert (found >= now.policy.spec.floor).all()
            was = np.zeros(len(eligible))
            was[[eligible.index(action) for action in old]] = then
            lower = level.decide(context, eligible).probabilities
            assert full or np.abs(lower - was).max() < most.most_change + SMALL
            raised = rises if full else float(np.maximum(found - lower, 0.0).sum())
            yield float(np.abs(found - was).max()), raised


def some_spec(luck: np.random.Generator, most: float, newest: int) -> Spec:
    """Give a spec with anything that may change."""
    names = list(luck.permutation(ACTIONS)[: luck.integers(1, 5)])
    share = 1.0 / len(names)
    more: dict[str, Any] = {"floor": float(luck.choice([0.0, 0.0, 0.02, share * luck.random()]))}
    if luck.random() < 0.3:
        more["new_actions"] = {"share": share * luck.random(), "outcomes": 8}
    if luck.random() < 0.3:
        until = moment(newest + 2_000).isoformat()
        more["widened"] = {"floor": share * luck.random(), "until": until}
    kinds = ["lin_ucb", "linear_thompson", "logistic_thompson", "square_cb", "beta_thompson"]
    name = str(luck.choice(kinds))
    features = [[AGE, LAND], [AGE], [WORD], []][luck.integers(4)]
    more["features"] = [] if name == "beta_thompson" else features
    return spec_of(name, most, actions=names, **more)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_moves_by_more_than_it_may(seed: int) -> None:
    """Whatever is learned, whatever the spec becomes, at any context, of any eligible actions."""
    luck = np.random.default_rng(seed)
    most = float(luck.choice([0.07, 0.15, 0.3]))
    spec = some_spec(luck, most, 0)
    made, largest, changes = after(spec, []), 0.0, list[int]()
    for step in range(25):
        newest = 1_000 * step
        if luck.random() < 0.2:
            spec = some_spec(luck, most, newest)
            changes.append(step)
        now = after(spec, outcomes(int(luck.integers(2**32)), newest=newest), made)
        if not mixes(spec, made.snapshot):  # from one allocation to another
            made = now
            continue
        for moved, raised in moves(now, made, luck):
            assert moved < most + raised + SMALL
            largest = max(largest, moved - raised)
        recent = [change for change in changes if step - change <= 2 / most]
        assert len(now.snapshot["earlier"]) <= 1 + len(recent)
        made = now
    assert largest > most / 4


@pytest.mark.parametrize("policy", ["lin_ucb", "linear_thompson", "logistic_thompson"])
def test_it_comes_to_a_solution_in_equal_steps(policy: str) -> None:
    """On a straight line at each context, in 1 / most_change snapshots; also where nothing draws.

    What is learned on the way waits: it is where the next way goes.
    """
    spec = spec_of(policy, 0.15, floor=0.01)
    first, second = outcomes(1), outcomes(2)
    start, target, later = (table(plain(spec, records)) for records in ([], first, second))
    assert min(np.abs(target - start).max(), np.abs(later - target).max()) > 0.5
    made = after(spec, [])
    assert (table(made.policy) == start).all()
    for step in range(1, 8):
        made = after(spec, first if step == 1 else second, made)
        part = min(1.0, 0.15 * step)
        assert np.allclose(table(made.policy), start + part * (target - start), rtol=0, atol=1e-12)
    assert (table(made.policy) == target).all()
    assert made.snapshot["earlier"] == []
    then = after(spec, second, made)
    assert np.allclose(table(then.policy), target + 0.15 * (later - target), rtol=0, atol=1e-12)


def test_scores_and_lineage_are_those_of_the_solution_ahead() -> None:
    """A snapshot says which solution it carries on, and what it has learned meanwhile."""
    spec = spec_of(widened={"floor": 0.2, "until": "1970-01-01T00:00:05Z"})
    first = after(spec, [])
    second = after(spec, outcomes(1, newest=1_000), first)
    third = after(spec, outcomes(2, newest=6_000), second)
    assert second.snapshot["carried"] is None
    assert third.snapshot["carried"] == {"version": second.snapshot["version"], "newest": 1_000}
    assert third.snapshot["newest"] == 6_000
    assert [part["version"] for part in third.snapshot["earlier"]] == [first.snapshot["version"]]
    ahead, ours = (made.policy.decide(CONTEXTS[1], ACTIONS) for made in (second, third))
    assert (ahead.scores == ours.scores).all()
    assert (ahead.features == ours.features).all()
    assert third.policy.spec.floor == 0.0
    target = table(plain(spec, outcomes(1, newest=1_000)))  # with the wide floor of its time
    expected = 0.8 * table(first.policy) + 0.2 * target
    assert np.allclose(table(third.policy), expected, rtol=0, atol=1e-12)


def test_bytes_decide_alike() -> None:
    """A mixture that went over the wire gives the same probabilities, and the same next one."""
    made, wire = after(spec_of("linear_thompson"), []), Wire.single_object()
    made = after(spec_of("lin_ucb", floor=0.1), outcomes(1), made)
    made = after(spec_of("logistic_thompson", actions=ACTIONS[1:]), outcomes(2), made)
    back = Before.of(wire.loads("snapshot", wire.dumps("snapshot", made.snapshot)))
    assert len(back.snapshot["earlier"]) == 2
    assert (table(made.policy) == table(back.policy)).all()
    spec = spec_of("lin_ucb")
    assert after(spec, [], made).snapshot == after(spec, [], back).snapshot


def test_actions_come_and_go() -> None:
    """A new one begins at 0, also if it was there before; those that are gone leave their share."""
    known = after(spec_of("square_cb"), outcomes(1))
    without = after(spec_of("square_cb", actions=ACTIONS[:3]), outcomes(1), known)
    again = after(spec_of("square_cb"), outcomes(1), without)
    eligible = {"blue": 2, "grey": 3}
    was, back, full = (
        made.policy.decide(CONTEXTS[1], list(eligible)).probabilities
        for made in (known, again, after(spec_of("square_cb"), outcomes(1)))
    )
    assert was[1] > 0.2
    assert np.allclose(back, 0.1 * full + 0.9 * np.array([1.0, 0.0]), rtol=0, atol=1e-12)
    others = after(spec_of("square_cb", actions=["x", "y"]), [], again)
    assert others.snapshot["earlier"] == []
    assert np.allclose(table(others.policy), 0.5)


def test_the_next_newer_takes_what_a_solution_without_the_actions_leaves() -> None:
    """So a new target gets no more than its step, also where the oldest has nothing to say."""
    oldest = after(spec_of(actions=["red", "green"]), outcomes(1))
    older = after(spec_of(actions=["red", "blue", "grey"]), outcomes(2), oldest)
    made = after(spec_of("square_cb", actions=["red", "blue", "grey"]), outcomes(3), older)
    assert len(made.snapshot["earlier"]) == 2
    eligible = ["blue", "grey"]
    was, target, now = (
        policy.decide(CONTEXTS[1], eligible).probabilities
        for policy in (
            older.policy,
            plain(spec_of("square_cb", actions=["red", "blue", "grey"]), outcomes(3)),
            made.policy,
        )
    )
    assert np.abs(target - was).max() > 0.2
    assert np.allclose(now, 0.9 * was + 0.1 * target, rtol=0, atol=1e-12)


def test_a_solution_that_cannot_read_a_context_leaves_its_weight_to_the_next() -> None:
    """Where an attribute is of another kind since; a service never sees its error."""
    old = after(spec_of(), outcomes(1))
    new = after(spec_of(features=[WORD, LAND]), outcomes(2), old)
    alone = plain(spec_of(features=[WORD, LAND]), outcomes(2))
    word, none = {"age": "old", "land": "ch"}, {"land": "ch"}
    mixed, ahead = (policy.decide(word, ACTIONS).probabilities for policy in (new.policy, alone))
    assert (mixed == ahead).all()
    mixed, was, ahead = (
        policy.decide(none, ACTIONS).probabilities for policy in (new.policy, old.policy, alone)
    )
    assert np.allclose(mixed, 0.9 * was + 0.1 * ahead, rtol=0, atol=1e-12)
    with pytest.raises(DecisionError, match="its feature takes text"):
        new.policy.decide({"age": 3.0}, ACTIONS)


def test_a_policy_without_context_is_mixed_beside_one_with() -> None:
    """Both ways, until it has all weight; then there is one allocation again."""
    beta = spec_of("beta_thompson", 0.5, features=[])
    ucb = spec_of("lin_ucb", 0.5)
    with_context = after(ucb, outcomes(1))
    first = after(beta, outcomes(1), with_context)
    second = after(beta, outcomes(2), first)
    plain_beta = table(plain(beta, outcomes(1)))
    expected = 0.5 * table(with_context.policy) + 0.5 * plain_beta
    assert np.allclose(table(first.policy), expected, rtol=0, atol=1e-12)
    assert np.allclose(table(second.policy), plain_beta, rtol=0, atol=1e-12)
    assert not mixes(beta, second.snapshot)
    back = after(ucb, outcomes(1), after(beta, outcomes(2), second))
    assert [part["weight"] for part in back.snapshot["earlier"]] == [0.5]


def test_the_way_back_from_a_share_is_bounded() -> None:
    """What new actions had by promise goes step by step once they have had their outcomes."""
    new = {"share": 0.25, "outcomes": 5}
    known = after(spec_of(most=0.2, actions=ACTIONS[:3]), outcomes(1))
    young = after(spec_of(most=0.2, new_actions=new), [], known)
    grown = after(spec_of(most=0.2, new_actions=new), outcomes(1, 99), young)
    assert promised(young.snapshot) == dict.fromkeys(ACTIONS, 0.25)
    assert promised(grown.snapshot)["grey"] == pytest.approx(0.25 - 0.1 / 4)
    for _ in range(16):
        then, grown = grown, after(spec_of(most=0.2, new_actions=new), outcomes(1, 99), grown)
        assert np.abs(table(grown.policy) - table(then.policy)).max() < 0.2 + SMALL
    assert promised(grown.snapshot) == {}
    assert (table(grown.policy) == table(plain(spec_of(), outcomes(1, 99)))).all()


def test_what_falls_and_what_moves_share_a_step() -> None:
    """Most_change bounds both together, where they move the same action."""
    few, many = (
        [outcome("green", [1.0])] * 50 + [outcome("red")] * 50 + [outcome("grey")] * count
        for count in (2, 10)
    )
    red = [outcome("red", [1.0])] * 50 + [outcome("green")] * 50
    made = after(spec_of(features=[], actions=["red", "green"]), red)
    spec = spec_of(
        features=[],
        actions=["red", "green", "grey"],
        new_actions={"share": 0.25, "outcomes": 5},
    )
    largest = []
    for step in range(12):
        then, made = made, after(spec, few if step < 6 else many, made)
        now = table(made.policy)
        if step:
            largest.append(np.abs(now - table(then.policy)).max())
    assert max(largest) < 0.1 + SMALL
    assert min(largest) > 0.0


def test_what_each_solution_keeps_to_falls_at_once() -> None:
    """It holds nothing up, for the solutions bring it down as their weights go."""
    spec = spec_of(new_actions={"share": 0.25, "outcomes": 5})
    young = after(spec, [])
    grown = after(spec, outcomes(1, 99), young)
    assert set(promised(young.snapshot).values()) == {0.25}
    assert promised(grown.snapshot) == {}
    assert [part["weight"] for part in grown.snapshot["earlier"]] == [0.9]


@pytest.mark.parametrize("weight", [0.0, -0.1, 1.1, float("nan")])
def test_weights_that_are_none_are_refused(weight: float) -> None:
    """Those of a broken record, by its version."""
    made = after(spec_of(), outcomes(1), after(spec_of(), [])).snapshot
    earlier = [{**made["earlier"][0], "weight": weight}]
    with pytest.raises(StateError, match=r"snapshot '0-30-\w+' of bandit 'paint': .* weights"):
        policy_from_snapshot({**made, "earlier": earlier})
