"""A new action gets its share until it is known, and nobody falls below the floor for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bandstand.learners.exp3 import Exp3
from bandstand.learners.new_actions import at_least
from bandstand.learners.policies import policy_from_snapshot
from bandstand.learners.protocols import Policy
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import learner
from tests.learners.given import batch, linear_spec, outcome

ACTIONS = ("red", "green", "blue", "new")
LEARNERS = (
    "beta_thompson",
    "linear_thompson",
    "ucb1",
    "lin_ucb",
    "exp3",
    "logistic_thompson",
    "diagonal_logistic_thompson",
)


def policy_of(name: str, tries: int, **more: Any) -> Policy:
    """Give a policy for which green is best and the last action had few outcomes, all bad."""
    base = linear_spec(ACTIONS, floor=0.02).model_dump(mode="json")
    features: dict[str, Any] = {} if learner(name).parameters.contextual else {"features": []}
    spec = Spec.model_validate({**base, **features, "policy": {"name": name}, **more})
    rows = [outcome(a, [float(a == "green")]) for a in ACTIONS[:3] for _ in range(300)]
    rows += [outcome("new", [0.0]) for _ in range(tries)]
    statistics = Statistics.empty(spec).update(batch(rows))
    return policy_from_snapshot(build(spec, statistics, 0, "", {}))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_new_action_gets_its_share_until_it_is_known(name: str) -> None:
    """With one outcome less than asked for it has the share; with all of them what it deserves."""
    new = {"new_actions": {"share": 0.2, "outcomes": 60}}
    for tries, known in ((59, False), (60, True)):
        forced, plain = policy_of(name, tries, **new), policy_of(name, tries)
        for eligible in (ACTIONS, ("new", "green"), ("red", "green"), ("new",)):
            ours = forced.decide({}, eligible)
            theirs = plain.decide({}, eligible)
            assert (ours.scores == theirs.scores).all()
            if known or "new" not in eligible:
                np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
                continue
            assert abs(ours.probabilities.sum() - 1.0) < 1e-12
            assert (ours.probabilities >= 0.02).all()
            assert ours.probabilities[eligible.index("new")] >= 0.2


def test_a_learner_that_does_not_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an action is new, its outcomes say."""
    monkeypatch.delattr(Exp3, "actions_apart")
    with pytest.raises(ValidationError, match="exp3 doesn't count the actions' outcomes"):
        policy_of("exp3", 1, new_actions={"share": 0.2, "outcomes": 60})


def test_nobody_falls_below_a_floor_that_is_widened() -> None:
    """While exploration is widened, old actions keep the higher floor beside a new one."""
    more = {
        "new_actions": {"share": 0.2, "outcomes": 60},
        "widened": {"floor": 0.15, "until": "2026-11-29T20:00:00Z"},
    }
    probabilities = policy_of("ucb1", 30, **more).decide({}, ACTIONS).probabilities
    np.testing.assert_allclose(np.sort(probabilities), [0.15, 0.15, 0.2, 0.5], atol=1e-12)
    assert (probabilities >= 0.15).all()
    assert probabilities[ACTIONS.index("new")] >= 0.2


def test_rounding_leaves_nobody_below_its_least() -> None:
    """Where the least probabilities leave no room, each has its own to the bit."""
    lowest = np.full(3, 1 / 3)
    below = np.nextafter(lowest, 0.0)
    assert at_least(below, lowest).tolist() == lowest.tolist()


@given(st.data())
def test_probabilities_are_raised_to_their_least(data: st.DataObject) -> None:
    """Sums stay 1, nobody is below its least, and the order of the others stays."""
    count = data.draw(st.integers(1, 6))
    raw = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))) + 1e-9
    lowest = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))) / count
    probabilities = raw / raw.sum()
    raised = at_least(probabilities, lowest)
    assert abs(raised.sum() - 1.0) < 1e-12
    assert (raised >= lowest).all()
    free = np.flatnonzero(raised > lowest + 1e-12)
    above = probabilities[free] - lowest[free]
    np.testing.assert_allclose(
        (raised[free] - lowest[free]) * above.sum(),
        above * (raised[free] - lowest[free]).sum(),
        atol=1e-12,
    )
    if (probabilities >= lowest).all():
        assert (raised == probabilities).all()
