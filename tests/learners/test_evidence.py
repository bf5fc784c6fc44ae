"""What is taken from a log or another bandit counts as the outcomes that it is worth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.errors import SpecError, StateError
from bandstand.learners.evidence import Evidence, from_outcomes, from_statistics
from bandstand.learners.logged import outcomes
from bandstand.learners.policies import resume, solve
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from tests.learners.given import ACTIONS, batch, beta_spec, linear_spec, outcome

COST = {"cost": {"action_attribute": "price", "subject_attribute": "age", "absent": 0.25}}


def table_of(rows: list[dict[str, Any]], *names: str) -> pa.Table:
    """Give rows as a table that has all the columns."""
    texts = {"action", "land", "page"}
    schema = pa.schema([(n, pa.string() if n in texts else pa.float64()) for n in names])
    return pa.Table.from_pylist(rows, schema=schema)


def learned(spec: Spec, rows: list[dict[str, Any]]) -> Statistics:
    """Learn outcomes."""
    return Statistics.empty(spec).update(batch(rows))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"action": st.sampled_from([*ACTIONS, "violet"])},
            optional={
                "click": st.one_of(st.floats(-9, 9), st.just(math.nan)),
                "buy": st.floats(-9, 9),
                "age": st.floats(0, 80),
                "spend": st.floats(-3, 3),
                "price": st.floats(0, 1),
                "land": st.sampled_from(["ch", "no", "de"]),
                "page": st.sampled_from(["/", "/a"]),
            },
        ),
        max_size=12,
    )
)
def test_a_table_teaches_what_its_rows_do_as_outcomes(rows: list[dict[str, Any]]) -> None:
    """Every column goes where the events of a service have it, nulls are what isn't there."""
    plus = [{"name": "buy", "aggregate": "sum", "weight": 0.5}]
    spec = linear_spec(reward={"low": -20.0, "high": 20.0, "plus": plus, **COST})
    table = table_of(rows, "action", "click", "buy", "age", "spend", "price", "land", "page")
    direct = learned(
        spec,
        [
            outcome(
                row["action"],
                [(name, row[name]) for name in ("click", "buy") if name in row],
                numeric={n: row[n] for n in ("age", "spend") if n in row},
                words={n: row[n] for n in ("land", "page") if n in row},
                eligible=[(row["action"], [("price", row["price"])] if "price" in row else [])],
            )
            for row in rows
        ],
    )
    ours = Statistics.empty(spec)
    for part in outcomes(spec, table):
        ours = ours.update(part)
    assert ours.digest() == direct.digest()
    assert ours.counters == direct.counters


def test_a_log_without_propensities_is_what_it_would_have_taught() -> None:
    """Without weights the posterior equals that of having learned the rows."""
    rng = np.random.default_rng(2)
    for make in (beta_spec, linear_spec):
        spec = make()
        rows: list[dict[str, Any]] = [
            {"action": ACTIONS[rng.integers(3)], "click": float(rng.integers(2)), "age": 40.0}
            for _ in range(60)
        ]
        names = ("action", "click", "age", "spend", "land", "page")
        weighed = from_outcomes(spec, outcomes(spec, table_of(rows, *names)), "log")
        records = [outcome(r["action"], [r["click"]], numeric={"age": 40.0}) for r in rows]
        more = learned(spec, [outcome("red", [1.0]), outcome("blue")])
        expected = solve(spec, learned(spec, records).merge(more)).arrays
        found = resume(spec, more, evidence=weighed.evidence).solved.arrays
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12)
        assert sum(weighed.rows.values()) == 60


def log_of(rng: np.random.Generator, count: int) -> tuple[list[dict[str, Any]], list[float]]:
    """Give a log whose policy shows red to those who click anyway, and the true means."""
    rows = []
    for _ in range(count):
        keen = rng.random() < 0.3
        propensity = 0.9 if keen else 0.05
        red = rng.random() < propensity
        chance = (0.8 if keen else 0.1) if red else (0.7 if keen else 0.3)
        rows.append(
            {
                "action": "red" if red else "green",
                "click": float(rng.random() < chance),
                "propensity": propensity if red else 1 - propensity,
            }
        )
    return rows, [0.3 * 0.8 + 0.7 * 0.1, 0.3 * 0.7 + 0.7 * 0.3]


def test_propensities_undo_what_the_log_s_policy_picked() -> None:
    """Means are those of all subjects, worth what Kish says of the weights, by a plain loop."""
    rows, truth = log_of(np.random.default_rng(6), 20_000)
    spec = beta_spec(["red", "green", "blue"])
    weighed = from_outcomes(
        spec, outcomes(spec, table_of(rows, "action", "click", "propensity")), "l"
    )
    arrays, worth = weighed.evidence.arrays, weighed.evidence.outcomes
    for index, action in enumerate(("red", "green")):
        mine = [(1 / r["propensity"], r["click"]) for r in rows if r["action"] == action]
        total = sum(w for w, _ in mine)
        kish = total**2 / sum(w * w for w, _ in mine)
        mean = sum(w * r for w, r in mine) / total
        assert worth[action] == pytest.approx(kish, rel=1e-3)
        assert arrays["reward"][index] / 4096 / worth[action] == pytest.approx(mean, rel=1e-3)
        assert weighed.rows[action] == len(mine)
        plain = sum(r for _, r in mine) / len(mine)
        assert abs(mean - truth[index]) < 0.03 < abs(plain - truth[index])
    assert worth["blue"] == 0.0


def test_a_row_that_can_not_be_weighed_is_rejected_and_counted() -> None:
    """Beside rows with a propensity, one without isn't worth 1; reports name the propensity."""
    shares = [0.5, None, 0.0, 1.5, math.nan, 1e-6]
    rows = [{"action": "red", "click": 1.0, "propensity": share} for share in shares]
    table = table_of(rows, "action", "click", "propensity")
    found = from_outcomes(beta_spec(), outcomes(beta_spec(), table), "log")
    assert found.rows["red"] == 2
    assert found.counters == {"rejected_propensity": 4, "clipped_propensity": 1}
    kish = (2 + 1000) ** 2 / (2**2 + 1000**2)
    assert found.evidence.outcomes["red"] == pytest.approx(kish, rel=1e-3)
    with pytest.raises(StateError, match="learn from: rejected_propensity 1"):
        from_outcomes(beta_spec(), outcomes(beta_spec(), table.slice(2, 1)), "log")


def test_propensity_and_keep_probability_are_told_apart() -> None:
    """Each is refused by its own name, also where their product would do."""
    spec = beta_spec(reward={"keep_probability": {"attribute": "kept"}})
    rows = [
        {"action": "red", "click": 1.0, "propensity": propensity, "kept": kept}
        for propensity, kept in ((0.5, 0.5), (0.5, 1.5), (0.5, None), (1.5, 0.5), (None, 1.5))
    ]
    table = table_of(rows, "action", "click", "propensity", "kept")
    found = from_outcomes(spec, outcomes(spec, table), "log")
    assert found.counters == {"rejected_propensity": 2, "rejected_keep_probability": 2}
    bare = table.drop_columns("propensity")
    found = from_outcomes(spec, outcomes(spec, bare), "log")
    assert (found.rows["red"], found.counters) == (2, {"rejected_keep_probability": 3})


def test_a_learner_that_divides_by_propensities_gets_no_weights() -> None:
    """EXP3's gains are weighed once."""
    text = json.loads(beta_spec().canonical())
    spec = Spec.model_validate({**text, "policy": {"name": "exp3"}})
    table = table_of(
        [{"action": "red", "click": 1.0, "propensity": 0.25}], "action", "click", "propensity"
    )
    arrays = from_outcomes(spec, outcomes(spec, table), "log").evidence.arrays
    assert arrays["gain"].tolist() == [4 * 4096, 0, 0]
    assert arrays["outcomes"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("policy", ["beta_thompson", "exp3"])
def test_a_log_counts_whatever_a_spec_forgets(policy: str) -> None:
    """What came before all of its own outcomes has no time that could fade or be left out."""
    more = {
        "policy": {"name": policy},
        "forget": {"half_life": "1h"},
        "since": "2026-11-29T20:00:00Z",
        "drift": {"step": "1h"},
    }
    spec = Spec.model_validate({**json.loads(beta_spec().canonical()), **more})
    rows = [{"action": "red", "click": 1.0, "propensity": 0.5}] * 3
    table = table_of(rows, "action", "click", "propensity")
    weighed = from_outcomes(spec, outcomes(spec, table), "log")
    assert weighed.evidence.outcomes == {"red": 3.0, "green": 0.0, "blue": 0.0}
    assert weighed.counters == {}
    nothing = Statistics.empty(spec)
    found = resume(spec, nothing, evidence=weighed.evidence).solved.arrays
    assert any((found[name] != array).any() for name, array in solve(spec, nothing).arrays.items())


def test_evidence_of_another_bandit_is_bounded_and_goes_to_the_same_actions() -> None:
    """Shared actions start with its means; a strength bounds what each counts as."""
    source = Spec.model_validate({**json.loads(linear_spec().canonical()), "bandit": "other"})
    known = learned(source, [outcome("blue", [1.0], numeric={"age": 9.0})] * 30 + [outcome()] * 4)
    spec = linear_spec(["new", "blue", "red"])
    evidence = from_statistics(spec, known, "other").at_most(10.0)
    assert evidence.outcomes == {"blue": 10.0, "red": 4.0}
    found = resume(spec, Statistics.empty(spec), evidence=evidence).solved.arrays
    third = learned(spec, [outcome("blue", [1.0], numeric={"age": 9.0})] * 10 + [outcome()] * 4)
    for name, array in solve(spec, third).arrays.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12)


def test_only_what_changed_is_solved_again_with_evidence_too() -> None:
    """Going on from an earlier solution gives the same bits."""
    spec = linear_spec()
    evidence = from_statistics(spec, learned(spec, [outcome("red", [1.0])] * 5), "o")
    first = learned(spec, [outcome("green", [1.0])])
    second = first.update(batch([outcome("blue", [0.0], numeric={"age": 3.0})]))
    again = resume(spec, second, resume(spec, first, evidence=evidence), evidence).solved
    whole = resume(spec, second, evidence=evidence).solved
    assert all((again.arrays[n] == a).all() for n, a in whole.arrays.items())


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (lambda: linear_spec(features=[]), "features"),
        (lambda: linear_spec(reward={"high": 2.0}), "the reward's range"),
        (lambda: linear_spec(["x"]), "all actions"),
        (lambda: beta_spec(), "what the policy sums up"),
    ],
)
def test_sums_that_mean_something_else_are_refused(other: Callable[[], Spec], problem: str) -> None:
    """The message says in what the two bandits differ."""
    source = Statistics.empty(other())
    with pytest.raises(SpecError, match=f"they differ in .*{problem}.*; take another bandit"):
        from_statistics(linear_spec(), source, "other")


def test_a_log_that_does_not_fit_is_refused() -> None:
    """Columns that are missing or of another kind are named; so is a log that teaches nothing."""
    spec = beta_spec()
    with pytest.raises(
        SpecError, match=r"lacks the columns 'click', 'action' that .* has 'reward'"
    ):
        list(outcomes(spec, pa.table({"reward": [1.0]})))
    with pytest.raises(SpecError, match="column 'click' of the log has the type string"):
        list(outcomes(spec, pa.table({"action": ["red"], "click": ["much"]})))
    twice = pa.Table.from_arrays([pa.array(["red"]), *[pa.array([1.0])] * 3], list("axyz"))
    twice = twice.rename_columns(["action", "click", "click", "other"])
    with pytest.raises(SpecError, match="several columns of the names 'click', which the spec of"):
        list(outcomes(spec, twice))
    table = pa.table({"action": ["violet"], "click": [1.0]})
    with pytest.raises(StateError, match=r"log has no outcome .* learn from: rejected_action 1"):
        from_outcomes(spec, outcomes(spec, table), "log")


def test_evidence_of_another_shape_is_refused() -> None:
    """A record that was written for other sums doesn't become a posterior."""
    spec = beta_spec()
    wrong = Evidence("old", ACTIONS, {"outcomes": np.ones(3)})
    with pytest.raises(StateError, match="prior of 'paint' from old has no reward of this spec's"):
        resume(spec, Statistics.empty(spec), evidence=wrong)
