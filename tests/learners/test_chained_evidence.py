"""What a chain takes from a log or another bandit is what the outcomes there said, and no more."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import minimize, root
from scipy.special import expit

from bandstand.errors import SpecError
from bandstand.learners.evidence import Evidence, from_outcomes, from_statistics
from bandstand.learners.logged import outcomes
from bandstand.learners.logistic import LogisticThompson, LogisticThompsonSpec
from bandstand.learners.policies import resume, solve
from bandstand.learners.statistics import Statistics
from bandstand.schemas import spec_policy
from bandstand.schemas.spec import Spec
from tests.learners.given import ACTIONS
from tests.learners.test_logistic import (
    PRIOR,
    covariance_of,
    learned,
    spec_of,
)
from tests.learners.test_logistic import events as made

Floats = np.ndarray[Any, np.dtype[np.float64]]

NAMES = ("logistic_thompson", "diagonal_logistic_thompson")


@cache
def events(count: int) -> list[dict[str, Any]]:
    """Give the same outcomes to all tests."""
    return made(count)


def rows_of(records: list[dict[str, Any]], action: str) -> tuple[Floats, Floats]:
    """Give the features and rewards of an action."""
    mine = [r for r in records if r["decision"]["action"] == action]
    contexts = [dict(r["decision"]["subject_numeric"]) for r in mine]
    lands = [dict(r["decision"]["subject_categorical"])["land"] for r in mine]
    pairs = zip(contexts, lands, strict=True)
    x = np.array([(1.0, c["age"] / 40 - 1, land == "no") for c, land in pairs])
    return x, np.array([r["rewards"][0]["value"] for r in mine])


def other(spec: Spec, **more: Any) -> Spec:
    """Give the spec of another bandit that differs in some sections."""
    return Spec.model_validate({**spec.model_dump(mode="json"), "bandit": "other", **more})


def logged(
    spec: Spec, records: list[dict[str, Any]], propensities: Floats | float | None = None
) -> Evidence:
    """Give what a file of these outcomes teaches."""
    rows = [
        {
            "action": record["decision"]["action"],
            "click": record["rewards"][0]["value"],
            **dict(record["decision"]["subject_numeric"]),
            **dict(record["decision"]["subject_categorical"]),
        }
        for record in records
    ]
    table = pa.Table.from_pylist(rows)
    if propensities is not None:
        shares = np.broadcast_to(propensities, len(rows))
        table = table.append_column("propensity", pa.array(shares.astype(np.float64)))
    found = from_outcomes(spec, outcomes(spec, table), "log")
    assert sum(found.rows.values()) == len(rows)
    return found.evidence


def solved(
    spec: Spec, evidence: Evidence, records: list[dict[str, Any]] | None = None
) -> dict[str, Floats]:
    """Give the solution of evidence, and of some outcomes."""
    known = learned(spec, records) if records else Statistics.empty(spec)
    return dict(resume(spec, known, evidence=evidence).solved.arrays)


def precision_of(arrays: dict[str, Floats], index: int) -> Floats:
    """Give the precision of an action's weights."""
    if "variance" in arrays:
        return np.diag(1 / arrays["variance"][index])
    dimension = arrays["mean"].shape[1]
    return np.asarray(np.linalg.inv(covariance_of(arrays["factor"][index], dimension)))


def mode(
    spec: Spec, action: str, records: list[dict[str, Any]], weights: Floats | float = 1.0
) -> tuple[Floats, Floats]:
    """Find Laplace's mode and precision of weighed outcomes of an action all at once, by scipy."""
    index = spec.actions.index(action)
    start = dict(solve(spec, Statistics.empty(spec)).arrays)
    mean, before = start["mean"][index], precision_of(start, index)
    x, y = rows_of(records, action)
    x = x[:, : len(mean)]
    counts = np.broadcast_to(weights, len(y))

    def loss(w: Floats) -> float:
        odds = x @ w
        return float(
            counts @ (np.logaddexp(0.0, odds) - y * odds) + (w - mean) @ before @ (w - mean) / 2
        )

    found = minimize(loss, mean, method="BFGS").x
    share = expit(x @ found)
    return found, before + (x.T * (counts * share * (1 - share))) @ x


def deviations(mean: Floats, found: Floats, precision: Floats) -> float:
    """Give how far two means are apart, in standard deviations."""
    return float(np.linalg.norm(np.linalg.cholesky(precision).T @ (mean - found)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prior", [None, {"mean": 0.6, "strength": 400.0}], ids=["plain", "prior"])
@pytest.mark.parametrize("partitions", [1, 3])
def test_another_bandits_posterior_is_taken_over(
    name: str, prior: dict[str, Any] | None, partitions: int
) -> None:
    """The same prior gives the same posterior; who isn't in it begins with the prior alone."""
    spec = spec_of(name, prior=prior, actions=["violet", "blue", "red"])
    source = other(spec, actions=list(ACTIONS))
    records, known = events(300), Statistics.empty(source)
    for partition in range(partitions):
        known = known.merge(learned(source, records[partition::partitions]))
    evidence = from_statistics(spec, known, "other")
    assert evidence.actions == ("blue", "red")
    assert evidence.outcomes == {
        action: sum(r["decision"]["action"] == action for r in records)
        for action in ("blue", "red")
    }
    found, theirs = solved(spec, evidence), solve(source, known).arrays
    new = solve(spec, Statistics.empty(spec)).arrays
    for key, array in found.items():
        assert np.allclose(array[1:], theirs[key][[2, 0]], rtol=0, atol=1e-9)
        assert (array[0] == new[key][0]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("propensities", [None, 0.25])
def test_a_log_is_learned_as_one_chain(name: str, propensities: float | None) -> None:
    """The posterior is that of having learned its rows, however many times each stands for all."""
    spec, records = spec_of(name, prior=PRIOR), events(200)
    found = solved(spec, logged(spec, records, propensities))
    for key, array in solve(spec, learned(spec, records)).arrays.items():
        assert np.allclose(found[key], array, rtol=0, atol=1e-9)


def test_a_chain_that_divides_by_propensities_itself_gets_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It learns the rows as they are."""
    spec, records = spec_of("logistic_thompson"), events(200)
    monkeypatch.setattr(type(spec.policy), "needs_propensity", True)
    found = solved(spec, logged(spec, records, 0.25))
    for key, array in solve(spec, learned(spec, records)).arrays.items():
        assert np.allclose(found[key], array, rtol=0, atol=1e-9)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["plain", "prior"])
@pytest.mark.parametrize("way", ["log", "bandit"])
def test_evidence_and_outcomes_come_to_the_posterior_of_all_at_once(
    way: str, prior: dict[str, Any] | None
) -> None:
    """A log of 500 and 500 outcomes more are near Laplace's of 1,000; the prior counts once."""
    spec, records = spec_of(NAMES[0], prior=prior), events(1000)
    if way == "log":
        evidence = logged(spec, records[:500])
    else:
        source = other(spec, prior=None)
        evidence = from_statistics(spec, learned(source, records[:500]), "other")
    found = solved(spec, evidence, records[500:])
    for index, action in enumerate(ACTIONS):
        mean, precision = mode(spec, action, records)
        ratios = np.linalg.eigvals(np.linalg.solve(precision, precision_of(found, index)))
        assert deviations(mean, found["mean"][index], precision) < 0.4
        assert (np.abs(ratios.real - 1) < 0.25).all()


def test_propensities_weigh_as_many_outcomes_as_they_are_worth() -> None:
    """Near Laplace's of all at once with Kish's weights, far from that without any."""
    spec, records = spec_of(NAMES[0]), events(1000)
    clicked = np.array([r["rewards"][0]["value"] for r in records]) > 0
    propensities = np.where(clicked, 0.5, 0.05)
    evidence = logged(spec, records, propensities)
    found = solved(spec, evidence)
    for index, action in enumerate(ACTIONS):
        weights = 1 / propensities[[r["decision"]["action"] == action for r in records]]
        share = weights.sum() / (weights**2).sum()
        assert evidence.outcomes[action] == pytest.approx(share * weights.sum(), rel=1e-3)
        mean, precision = mode(spec, action, records, weights * share)
        assert deviations(mean, found["mean"][index], precision) < 0.5
        ratios = np.linalg.eigvals(np.linalg.solve(precision, precision_of(found, index)))
        assert ((ratios.real > 0.9) & (ratios.real < 1.6)).all()
        plain, _ = mode(spec, action, records)
        assert deviations(plain, found["mean"][index], precision) > 5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [20.0, None])
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["plain", "prior"])
def test_a_share_of_what_was_said_meets_the_prior_where_slopes_do(
    name: str, strength: float | None, prior: dict[str, Any] | None
) -> None:
    """Found by scipy from the other's posterior without its prior, raised to a power."""
    spec = spec_of(name, prior=prior)
    source = other(spec, prior={"mean": 0.2, "strength": 30.0})
    known = learned(source, events(300))
    evidence = from_statistics(spec, known, "other").at_most(strength)
    found, theirs = solved(spec, evidence), dict(solve(source, known).arrays)
    start, first = (dict(solve(each, Statistics.empty(each)).arrays) for each in (spec, source))
    for index, action in enumerate(ACTIONS):
        count = known.solvable()["outcomes"][index]
        share = 1.0 if strength is None else strength / count
        assert evidence.outcomes[action] == pytest.approx(share * count)
        place, before = theirs["mean"][index], precision_of(first, index)
        slope = before @ (place - first["mean"][index])
        curvature = precision_of(theirs, index) - before
        middle = curvature[0] / curvature[0, 0]
        if name == NAMES[1]:
            middle = known.solvable()["pull"][index] / curvature[0, 0]
        mean, own = start["mean"][index], precision_of(start, index)
        at = middle @ place

        def gap(w: Floats) -> Floats:
            ahead = middle @ (w - place)  # noqa: B023 - used at once
            secant = (expit(at + ahead) - expit(at)) / (ahead * expit(at) * expit(-at))  # noqa: B023
            said = slope - secant * curvature @ (w - place)  # noqa: B023
            return np.asarray(share * said - own @ (w - mean))  # noqa: B023

        weights = root(gap, place + 0.01, tol=1e-12).x
        assert np.allclose(found["mean"][index], weights, rtol=0, atol=1e-6)
        ahead = middle @ weights
        ratio = expit(ahead) * expit(-ahead) / (expit(at) * expit(-at))
        total = own + share * ratio * curvature
        same = np.linalg.solve(total, precision_of(found, index))
        assert np.allclose(same, np.eye(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [1.0, 30.0, 300.0])
def test_a_bounded_log_is_as_so_many_outcomes(name: str, strength: float) -> None:
    """Without features: the mode and the width of all outcomes at once, each a share of one."""
    spec = spec_of(name, features=[], prior={"mean": 0.1, "strength": 20.0})
    records = [r for r in events(1000) if r["decision"]["action"] == "green"]
    found = solved(spec, logged(spec, records).at_most(strength))
    mean, precision = mode(spec, "green", records, strength / len(records))
    assert deviations(mean, found["mean"][1], precision) < 0.1
    assert precision_of(found, 1)[0, 0] == pytest.approx(precision[0, 0], rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_an_action_of_only_one_side_is_that_side_s(name: str) -> None:
    """Evidence goes before outcomes as one more partition does."""
    spec, records = spec_of(name), events(90)
    green = [r for r in records if r["decision"]["action"] == "green"]
    rest = [r for r in records if r["decision"]["action"] != "green"]
    found = solved(spec, from_statistics(spec, learned(spec, green), "other"), rest)
    both = learned(spec, green).merge(learned(spec, rest))
    for key, array in solve(spec, both).arrays.items():
        assert np.allclose(found[key][1], array[1], rtol=0, atol=1e-9)
        assert (found[key][[0, 2]] == array[[0, 2]]).all()


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"policy": {"name": NAMES[1]}}, "what the policy sums up"),
        ({"policy": {"name": "linear_thompson"}}, "what the policy sums up"),
        ({"features": []}, "features"),
        ({"reward": {"name": "click", "high": 2.0}}, "the reward's range"),
        ({"actions": ["violet"]}, "all actions"),
    ],
)
def test_a_chain_takes_over_only_what_means_the_same(more: dict[str, Any], problem: str) -> None:
    """As with sums, the message says in what the two bandits differ."""
    source = Statistics.empty(other(spec_of(NAMES[0]), **more))
    with pytest.raises(SpecError, match=f"they differ in .*{problem}.*; take another bandit"):
        from_statistics(spec_of(NAMES[0]), source, "other")


class SealedSpec(LogisticThompsonSpec):
    """What a spec says under ``policy``."""

    name: Literal["sealed"] = "sealed"  # type: ignore[assignment]


class Sealed(LogisticThompson):
    """A chain of another package, which can't tell what its outcomes said."""

    parameters = SealedSpec
    evidence_of = None  # type: ignore[assignment]


def test_a_chain_that_can_not_tell_what_outcomes_said_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its state isn't taken for sums."""
    point = EntryPoint("sealed", f"{__name__}:Sealed", spec_policy.GROUP)
    monkeypatch.setitem(spec_policy._found(), "sealed", [point])
    spec = other(spec_of(NAMES[0]), policy={"name": "sealed"})
    known = learned(spec, events(20))
    with pytest.raises(SpecError, match="sealed doesn't keep its actions apart, as sums or as"):
        from_statistics(spec, known, "other")
    with pytest.raises(SpecError, match="take another policy"):
        logged(spec, events(20))
    with pytest.raises(SpecError, match="they differ in what the policy sums up; take another"):
        from_statistics(spec_of(NAMES[0]), known, "other")
