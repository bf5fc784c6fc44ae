"""Bandits that are read together learn what each would by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.learners.grid import CHUNK
from bandstand.learners.reading import likeness
from bandstand.learners.statistics import Statistics, update_together
from bandstand.schemas.spec import MOST_ACTIONS, Spec
from tests.learners.given import ACTIONS, batch, linear_spec, outcome, outcomes, oversize

REWARDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cut": {"aggregate": "sum", "low": -2.0, "high": 2.0},
    "activated": {"activation": "buy"},
    "costly": {"low": -9.0, "cost": {"actions": {"red": 0.5}, "subject_attribute": "other"}},
    "weighed": {"keep_probability": {"attribute": "other", "least": 0.01, "absent": 1.0}},
}
CHOICES = (ACTIONS, ("violet", "red"), (*ACTIONS, "violet"))
records = st.one_of(outcomes, st.builds(oversize))


def alike(reward: str, choices: Sequence[Sequence[str]], **more: object) -> list[Spec]:
    """Give specs with the same features and reward, and names and actions of their own."""
    first = linear_spec(reward=REWARDS[reward])
    return [
        Spec.model_validate(
            {**first.model_dump(), "bandit": f"paint-{number}", "actions": actions, **more}
        )
        for number, actions in enumerate(choices)
    ]


@pytest.mark.parametrize("reward", list(REWARDS))
@settings(deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from(CHOICES), st.lists(records, max_size=4)), min_size=1, max_size=5
    ),
    since=st.sampled_from([None, "2001-01-01T00:00:00Z"]),
)
def test_reading_together_changes_nothing(
    reward: str, parts: list[tuple[Sequence[str], list[dict[str, Any]]]], since: str | None
) -> None:
    """Sums, counters and newest times are those of each bandit's rows alone."""
    choices = [
        [action for action in actions if reward != "costly" or "red" in actions]
        for actions, _ in parts
    ]
    specs = alike(reward, choices, since=since)
    edges = np.cumsum([0, *(len(rows) for _, rows in parts)])
    whole = batch([record for _, rows in parts for record in rows])
    held = [Statistics.empty(spec) for spec in specs]
    together = update_together(held, edges, whole)
    for spec, (_, rows), found in zip(specs, parts, together, strict=True):
        alone = Statistics.empty(spec).update(batch(rows))
        assert found.digest() == alone.digest()
        assert (found.counters, found.newest) == (alone.counters, alone.newest)


def test_the_last_of_very_many_actions_is_taught() -> None:
    """At the largest number of actions that a spec may have, alone and together."""
    names = [f"a{number}" for number in range(MOST_ACTIONS)]
    first, second = alike("plain", [names, names[::-1]])
    rows = batch([outcome(names[-1], [1.0]), outcome(names[-2], [1.0])])
    alone = Statistics.empty(first).update(rows).sums["outcomes"]
    assert alone.nonzero()[0].tolist() == [MOST_ACTIONS - 2, MOST_ACTIONS - 1]
    held = [Statistics.empty(first), Statistics.empty(second)]
    found = [s.sums["outcomes"] for s in update_together(held, np.array([0, 1, 2]), rows)]
    assert [f.nonzero()[0].tolist() for f in found] == [[MOST_ACTIONS - 1], [1]]


def test_a_batch_of_several_chunks_is_learned_whole() -> None:
    """Edges between chunks fall within a bandit's rows, and between two bandits'."""
    specs = alike("plain", [ACTIONS] * 3)
    one = batch([outcome(ACTIONS[i % 3], [1.0], numeric={"age": float(i)}) for i in range(1000)])
    rows = one.take(np.arange(CHUNK + 5000) % 1000)
    edges = np.array([0, 2000, CHUNK + 10, CHUNK + 5000])
    together = update_together([Statistics.empty(spec) for spec in specs], edges, rows)
    for spec, found, start, end in zip(specs, together, edges, edges[1:], strict=False):
        alone = Statistics.empty(spec).update(rows.slice(start, end - start))
        assert found.digest() == alone.digest()
        assert found.outcomes == end - start


def test_what_changes_the_reading_keeps_bandits_apart() -> None:
    """Likeness speaks of all that reading depends on, and of nothing else."""
    one, other = alike("plain", [ACTIONS, ("red", "violet")])
    assert likeness(one) == likeness(other)
    changed: list[dict[str, Any]] = [
        {"features": [f.model_dump() for f in one.features[1:]]},
        {"reward": {"name": "buy"}},
        {"since": "2001-01-01T00:00:00Z"},
        {"interactions": [["age", "land"]]},
        {"features": [], "policy": {"name": "beta_thompson"}},
        {"features": [], "policy": {"name": "exp3"}},
    ]
    specs = [Spec.model_validate({**one.model_dump(), **change}) for change in changed]
    assert len({likeness(spec) for spec in [one, *specs]}) == len(changed) + 1
    greedy = {**one.model_dump(), "policy": {"name": "linear_thompson", "exploration": 2.0}}
    assert likeness(Spec.model_validate(greedy)) == likeness(one)
