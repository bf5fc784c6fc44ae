"""Allocation that moves a bounded way from snapshot to snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bandstand.errors import SpecError
from bandstand.learners.snapshots import Before, build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec, parse_spec
from tests.learners.given import batch, outcome

ACTIONS = ["red", "green", "blue"]


def spec_of(actions: list[str] = ACTIONS, **more: Any) -> Spec:
    """Give a spec whose probabilities move by 0.1 at most."""
    return Spec.model_validate(
        {
            "bandit": "paint",
            "actions": actions,
            "policy": {"name": "beta_thompson"},
            "reward": {"name": "click"},
            "smoothing": {"most_change": 0.1},
            **more,
        }
    )


def after(spec: Spec, records: list[dict[str, Any]], before: Before | None = None) -> Before:
    """Give a snapshot after some outcomes, and its policy."""
    statistics = Statistics.empty(spec).update(batch(records))
    return Before.of(build(spec, statistics, 0, "", {}, before=before))


def allocation(made: Before) -> Any:
    """Give the probabilities of all actions."""
    return made.policy.decide({}, made.policy.spec.actions).probabilities


CLICKS = [outcome("green", [1.0])] * 50 + [outcome("red")] * 50 + [outcome("blue")] * 50


def test_it_comes_to_what_the_policy_wants_step_by_step() -> None:
    """Each snapshot moves by 0.1 at most, in a straight line, and arrives."""
    spec = spec_of(floor=0.01)
    plain = after(spec_of(floor=0.01, smoothing=None), CLICKS)
    made = after(spec, [])
    assert np.allclose(allocation(made), 1 / 3)  # the first goes all the way to the prior's
    steps = [allocation(made)]
    for _ in range(7):
        made = after(spec, CLICKS, made)
        steps.append(allocation(made))
    moves = np.diff(steps, axis=0)
    assert np.abs(moves).max() <= 0.1 + 1e-12
    assert np.allclose(moves[0], moves[1])
    assert np.allclose(steps[-1], allocation(plain), rtol=0, atol=1e-12)
    assert np.allclose(np.sum(steps, axis=1), 1.0, rtol=0, atol=1e-12)
    assert np.isclose(steps[1][1], 1 / 3 + 0.1)
    ours, theirs = (each.policy.decide({}, ["blue"]) for each in (made, plain))
    assert (ours.scores == theirs.scores).all()


def test_some_actions_share_what_they_have() -> None:
    """Eligible ones keep their proportions, and the floor."""
    spec = spec_of(floor=0.01)
    made = after(spec, CLICKS, after(spec, []))
    whole = allocation(made)
    two = made.policy.decide({}, ["blue", "green"]).probabilities
    assert np.allclose(two, whole[[2, 1]] / whole[[2, 1]].sum())
    assert made.policy.decide({}, ["blue"]).probabilities.tolist() == [1.0]


def test_actions_come_and_go() -> None:
    """A new one begins at 0, moves up by 0.1; the share of one that is gone goes to the others."""
    before = after(spec_of(), CLICKS)
    assert allocation(before)[1] > 0.99
    good = [*CLICKS, *[outcome("grey", [1.0])] * 900]
    more = after(spec_of([*ACTIONS, "grey"]), good, before)
    assert np.isclose(np.abs(allocation(more) - [*allocation(before), 0.0]).max(), 0.1)
    fewer = after(spec_of(["blue", "red"]), [], before)
    assert np.allclose(allocation(fewer), 0.5, rtol=0, atol=0.45)
    other = after(spec_of(["x", "y"]), [], before)
    assert np.allclose(allocation(other), 0.5)


WIDENED = {"floor": 0.3, "until": "1970-01-01T00:00:02Z"}
MORE = [*ACTIONS, "grey"]


@pytest.mark.parametrize(
    ("actions", "more", "least"),
    [
        (ACTIONS, {"floor": 0.25}, {"red": 0.25, "blue": 0.25}),
        (ACTIONS, {"widened": WIDENED}, {"red": 0.3, "blue": 0.3}),
        (MORE, {"new_actions": {"share": 0.2, "outcomes": 50}}, {"grey": 0.2}),
        (
            MORE,
            {"floor": 0.2, "new_actions": {"share": 0.25, "outcomes": 99}},
            dict.fromkeys(MORE, 0.25),
        ),
    ],
)
def test_least_probabilities_come_first(
    actions: list[str], more: dict[str, Any], least: dict[str, float]
) -> None:
    """A floor and the share of a new action hold at once; nothing moves by more than they ask."""
    before = after(spec_of(), CLICKS)
    assert allocation(before)[1] > 0.99
    spec = spec_of(actions, **more)
    learned = Statistics.empty(spec).update(batch(CLICKS))
    snapshot = build(spec, learned, 0, "", {}, before=before)
    now = allocation(Before.of(snapshot))
    for action, probability in least.items():
        assert now[actions.index(action)] == pytest.approx(probability)
    [smooth] = [a["data"] for a in snapshot["arrays"] if a["name"] == "allocation"]
    raised = np.maximum(now - np.frombuffer(smooth), 0.0).sum()
    was = np.append(allocation(before), [0.0] * (len(actions) - len(ACTIONS)))
    assert 0.1 < np.abs(now - was).max() <= 0.1 + raised + 1e-12


def test_the_way_back_from_a_share_is_bounded() -> None:
    """Once an action has had its outcomes, what it had by promise goes step by step."""
    spec = spec_of(MORE, new_actions={"share": 0.25, "outcomes": 50})
    young = after(spec, CLICKS, after(spec_of(), CLICKS))
    assert np.isclose(allocation(young)[3], 0.25)
    tried = after(spec, [*CLICKS, *[outcome("grey")] * 50], young)
    assert np.isclose(allocation(tried)[3], 0.15)
    assert np.abs(allocation(tried) - allocation(young)).max() <= 0.1 + 1e-12


def test_a_bound_that_is_none_is_refused() -> None:
    """With what is allowed."""
    text = "{bandit: b, actions: [x], policy: {name: lin_ucb}, reward: {name: r}, smoothing: {S}}"
    for section, message in (
        ("most_change: 0", "should be greater than 0"),
        ("most: 1", "unknown key; allowed: most_change"),
    ):
        with pytest.raises(SpecError) as caught:
            parse_spec(text.replace("S}", section + "}"), "b.yaml")
        assert message in str(caught.value)
