from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandstand.errors import DecisionError
from bandstand.learners.policies import Policy, policy_from_snapshot
from bandstand.serving.choosing import choose
from tests.serving.given import AGE_41, HOMEPAGE, SHOP, snapshot

POLICIES: list[Policy | None] = [
    None,
    policy_from_snapshot(snapshot(HOMEPAGE, 40)),
]
SEEDS = st.integers(0, 2**63 - 1)


@given(st.sampled_from(POLICIES), SEEDS, st.permutations(HOMEPAGE.actions), st.integers(1, 3))
def test_the_propensity_is_the_listed_probability_of_the_drawn_action(
    policy: Policy | None, seed: int, order: list[str], count: int
) -> None:
    """Logged numbers are exact by construction: computed first, then drawn from."""
    eligible = tuple(order[:count])
    drawn = choose(policy, {}, eligible, seed)
    assert drawn.propensity == drawn.probabilities[eligible.index(drawn.action)] > 0
    assert sum(drawn.probabilities) == pytest.approx(1, abs=1e-9)
    assert choose(policy, {}, eligible, seed).action == drawn.action


def test_actions_come_as_often_as_the_log_says() -> None:
    """Over many seeds, shares agree with propensities."""
    policy = POLICIES[1]
    first = choose(policy, {}, HOMEPAGE.actions, 0)
    counts = Counter(choose(policy, {}, HOMEPAGE.actions, seed).action for seed in range(10_000))
    for action, probability in zip(first.eligible, first.probabilities, strict=True):
        assert counts[action] / 10_000 == pytest.approx(probability, abs=0.02)


def test_features_and_scores_are_what_the_policy_saw() -> None:
    """A contextual choice carries its vector, the score and how far the best one was away."""
    policy = policy_from_snapshot(snapshot(SHOP))
    drawn = choose(policy, AGE_41, SHOP.actions, 5)
    choice = policy.decide({"age": 41.0, "country": "no"}, SHOP.actions)
    assert drawn.features.tolist() == choice.features.tolist()
    assert drawn.score == choice.scores[SHOP.actions.index(drawn.action)]
    assert drawn.optimality_gap == choice.scores.max() - drawn.score


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("eligible", [(), ("spring", "spring")])
def test_actions_must_be_some_and_distinct(
    policy: Policy | None, eligible: tuple[str, ...]
) -> None:
    """Nothing can be drawn from no action, and an action can't have two probabilities."""
    with pytest.raises(DecisionError, match="eligible"):
        choose(policy, {}, eligible, 0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("action", [7, None, ["spring"], b"spring"])
def test_actions_must_be_text(policy: Policy | None, action: object) -> None:
    """What isn't text could be drawn without a snapshot, but never be logged."""
    with pytest.raises(DecisionError, match=f"is of type {type(action).__name__}; allowed: str"):
        choose(policy, {}, ("spring", action), 0)  # type: ignore[arg-type]
