"""Models that share weights: against plain regressions on all columns, and Li's algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bandstand.errors import SpecError
from bandstand.learners.action_features import ActionFeatures
from bandstand.learners.features import Features
from bandstand.learners.policies import policy_from_snapshot, solve
from bandstand.learners.probabilities import gaussian_best
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec, parse_spec
from tests.learners.given import ACTIONS, batch, outcome

Floats = np.ndarray[Any, np.dtype[np.float64]]

PRICES = {"red": 1.0, "green": 4.0, "blue": 3.0}
SORTS = {"red": "warm", "green": "cold", "blue": "cold"}
CONTEXT = {"age": 31.0, "land": "no"}


def section(**more: Any) -> dict[str, Any]:
    """Give a spec with features of both sides and all three ways to multiply them."""
    return {
        "bandit": "paint",
        "actions": ACTIONS,
        "features": [
            {"name": "age", "kind": "numeric", "low": 0.0, "high": 80.0},
            {"name": "land", "kind": "categorical", "values": ["ch", "no"]},
        ],
        "action_features": [
            {"name": "price", "kind": "numeric", "low": 0.0, "high": 4.0, "of": PRICES},
            {"name": "sort", "kind": "categorical", "values": ["warm", "cold"], "of": SORTS},
        ],
        "interactions": [["sort", "land"], ["age", "price"], ["age", "land"]],
        "policy": {"name": "shared_linear_thompson"},
        "reward": {"name": "click"},
        **more,
    }


def spec_of(name: str, **parameters: float) -> Spec:
    """Give the spec of a policy."""
    return Spec.model_validate(section(policy={"name": name, **parameters}))


def events(count: int = 400) -> list[dict[str, Any]]:
    """Give outcomes on the grid."""
    rng = np.random.default_rng(8)
    return [
        outcome(
            str(rng.choice(ACTIONS)),
            [float(rng.integers(0, 4097)) / 4096],
            numeric={"age": float(rng.integers(0, 81))},
            words={"land": str(rng.choice(["ch", "no"]))},
        )
        for _ in range(count)
    ]


def subject(context: dict[str, Any]) -> Floats:
    """Give the subject's columns: intercept, age, two lands, age times land; written out."""
    age, land = context["age"] / 40 - 1, context["land"]
    words = [float(land == "ch"), float(land == "no")]
    return np.array([1.0, age, *words, age * words[0], age * words[1]])


def theirs(context: dict[str, Any], action: str) -> Floats:
    """Give the columns of an action and of its interactions; written out."""
    price = PRICES[action] / 2 - 1
    sort = [float(SORTS[action] == "warm"), float(SORTS[action] == "cold")]
    age, land = context["age"] / 40 - 1, context["land"]
    lands = [float(land == "ch"), float(land == "no")]
    return np.array([price, *sort, *[x * y for x in lands for y in sort], age * price])


def context_of(record: dict[str, Any]) -> dict[str, Any]:
    """Give the subject's attributes of an outcome."""
    decision = record["decision"]
    return dict([*decision["subject_numeric"], *decision["subject_categorical"]])


def learned(spec: Spec, records: list[dict[str, Any]]) -> Statistics:
    """Give what they teach."""
    return Statistics.empty(spec).update(batch(records))


def decided(spec: Spec) -> Any:
    """Decide by a snapshot of all events."""
    policy = policy_from_snapshot(build(spec, learned(spec, events()), 0, "", {}))
    return policy.decide(CONTEXT, spec.actions)


def posterior(precision: float, noise: float) -> tuple[Floats, Floats]:
    """Regress all outcomes at once on all columns: mean and covariance of the weights."""
    records = events()
    contexts = [context_of(record) for record in records]
    rows = [
        np.concatenate([subject(context), theirs(context, record["decision"]["action"])])
        for context, record in zip(contexts, records, strict=True)
    ]
    phi, y = np.array(rows), np.array([r["rewards"][0]["value"] for r in records])
    covariance = np.linalg.inv(precision * np.eye(phi.shape[1]) + phi.T @ phi / noise)
    return covariance @ phi.T @ y / noise, covariance


def columns() -> Floats:
    """Give phi of each action in the context, float64[K, D]."""
    return np.array([np.concatenate([subject(CONTEXT), theirs(CONTEXT, a)]) for a in ACTIONS])


def test_the_columns_are_those_written_out() -> None:
    """Names and values of a subject's and of an action's columns; batches give the same bits."""
    spec = spec_of("shared_linear_thompson")
    features = Features(spec)
    assert features.names[4:] == ("age*land=ch", "age*land=no")
    assert np.abs(features.vector(CONTEXT) - subject(CONTEXT)).max() < 1 / 8192 + 1e-9
    records = events(50)
    records.append(outcome(numeric={"age": 1e9}, words={"land": "no"}))
    built = features.matrix(batch(records).column("decision"))
    expected = np.array([features.vector(context_of(record)) for record in records])
    assert (built.steps / 4096 == expected).all()
    assert {n: rows.sum() for n, rows in built.counted.items()} == {"clipped_features": 1}
    theirs_of = ActionFeatures(spec)
    assert theirs_of.names == (
        *("price", "sort=warm", "sort=cold"),
        *("land=ch*sort=warm", "land=ch*sort=cold", "land=no*sort=warm", "land=no*sort=cold"),
        "age*price",
    )
    for index, action in enumerate(ACTIONS):
        found = theirs_of.maps[index] @ subject(CONTEXT)
        assert np.allclose(found, theirs(CONTEXT, action), rtol=0, atol=1e-12)


def test_marginals_are_those_of_one_regression() -> None:
    """Means, deviations and probabilities, from sums that are apart for each action."""
    spec = spec_of("shared_linear_thompson", prior_precision=0.7, noise_variance=0.3)
    mean, covariance = posterior(0.7, 0.3)
    phi, choice = columns(), decided(spec)
    deviations = np.sqrt(np.einsum("ki,ij,kj->k", phi, covariance, phi))
    assert np.allclose(choice.scores, phi @ mean, rtol=0, atol=2e-4)  # features stand on the grid
    assert np.allclose(
        choice.probabilities, gaussian_best(phi @ mean, deviations), rtol=0, atol=2e-3
    )


def test_joint_draws_are_counted() -> None:
    """Each probability is a share of the draws, near that of a million other ones."""
    spec = spec_of("shared_linear_thompson", prior_precision=0.7, noise_variance=0.3, draws=5000)
    choice = decided(spec)
    counts = choice.probabilities * 5000
    assert np.abs(counts - np.rint(counts)).max() < 1e-9
    mean, covariance = posterior(0.7, 0.3)
    drawn = np.random.default_rng(1).multivariate_normal(mean, covariance, 1_000_000)
    shares = np.bincount((drawn @ columns().T).argmax(axis=1), minlength=3) / 1_000_000
    assert np.abs(choice.probabilities - shares).max() < 4 * np.sqrt(0.25 / 5000)
    assert np.abs(choice.probabilities - decided(spec).probabilities).max() == 0
    marginal = decided(spec_of("shared_linear_thompson", prior_precision=0.7, noise_variance=0.3))
    assert np.abs(marginal.probabilities - shares).max() > 0.01  # they are two policies
    once = decided(spec_of("shared_linear_thompson", draws=1))
    assert sorted(once.probabilities) == [0.0, 0.0, 1.0]
    alike = Spec.model_validate(
        section(
            actions=["red", "twin"],
            action_features=[
                {
                    "name": "price",
                    "kind": "numeric",
                    "low": 0.0,
                    "high": 4.0,
                    "of": {"red": 1.0, "twin": 1.0},
                }
            ],
            interactions=[],
            policy={"name": "shared_linear_thompson", "draws": 10},
        )
    )
    policy = policy_from_snapshot(build(alike, learned(alike, events()), 0, "", {}))
    assert policy.decide(CONTEXT, ("red", "twin")).probabilities.tolist() == [0.5, 0.5]


def test_hybrid_is_lis_algorithm_2() -> None:
    """The bounds of the paper's updates, outcome by outcome, with its names."""
    spec = spec_of("hybrid_lin_ucb", alpha=0.6)
    k, d = 8, 6
    a0, b0 = np.eye(k), np.zeros(k)
    a = {action: np.eye(d) for action in ACTIONS}
    big_b = {action: np.zeros((d, k)) for action in ACTIONS}
    b = {action: np.zeros(d) for action in ACTIONS}
    for record in events():
        action, reward = record["decision"]["action"], record["rewards"][0]["value"]
        x = Features(spec).vector(context_of(record)).astype(np.float64)
        z = ActionFeatures(spec).maps[ACTIONS.index(action)] @ x
        a0 += big_b[action].T @ np.linalg.solve(a[action], big_b[action])
        b0 += big_b[action].T @ np.linalg.solve(a[action], b[action])
        a[action] += np.outer(x, x)
        big_b[action] += np.outer(x, z)
        b[action] += reward * x
        a0 += np.outer(z, z) - big_b[action].T @ np.linalg.solve(a[action], big_b[action])
        b0 += reward * z - big_b[action].T @ np.linalg.solve(a[action], b[action])
    beta = np.linalg.solve(a0, b0)
    x = Features(spec).vector(CONTEXT).astype(np.float64)
    solved = solve(spec, learned(spec, events()))
    assert np.allclose(solved.arrays["shared"], beta, rtol=0, atol=1e-9)
    means, widths = [], []
    for index, action in enumerate(ACTIONS):
        z = ActionFeatures(spec).maps[index] @ x
        theta = np.linalg.solve(a[action], b[action] - big_b[action] @ beta)
        u = big_b[action].T @ np.linalg.solve(a[action], x)
        s = z @ np.linalg.solve(a0, z) - 2 * z @ np.linalg.solve(a0, u)
        s += x @ np.linalg.solve(a[action], x) + u @ np.linalg.solve(a0, u)
        means.append(z @ beta + x @ theta)
        widths.append(np.sqrt(s))
        factor = np.zeros((d, d))
        factor[np.tril_indices(d)] = solved.arrays["factor"][index]
        assert np.isclose(np.linalg.norm(factor @ x), np.sqrt(s), rtol=0, atol=1e-9)
    choice = decided(spec)
    assert np.allclose(choice.scores, means, rtol=0, atol=1e-9)
    expected = np.zeros(3)
    expected[(np.array(means) + 0.6 * np.array(widths)).argmax()] = 1.0
    assert choice.probabilities.tolist() == expected.tolist()


def believing(name: str, *, own: bool) -> tuple[Spec, Floats, Floats]:
    """Give a spec that believes something of red, and the posterior of all columns at once.

    Those are the shared ones and, where asked for, each action's own. What is believed are 30 more
    outcomes of red at the middle of age and land, in place of one weight's ridge.
    """
    spec = Spec.model_validate(
        section(
            policy={"name": name, "prior_precision": 0.7},
            prior={"actions": {"red": {"mean": -0.5, "strength": 30}}},
            reward={"name": "click", "low": -1.0, "high": 0.0},
        )
    )
    middle = {"age": 40.0, "land": ""}
    seen = [(context_of(r), r["decision"]["action"], r["rewards"][0]["value"]) for r in events()]
    seen = [(context, action, value) for context, action, value in seen if action != "blue"]
    seen += [(middle, "red", 0.5)] * 30
    phi = np.array([every_column(context, action, own=own) for context, action, _ in seen])
    ridge = np.full(phi.shape[1], 0.7)
    ridge[8 if own else 7] = 0.0  # red's own intercept; the column of warm ones, which is red
    noise = 1.0 if own else 0.25
    covariance = np.linalg.inv(np.diag(ridge) + phi.T @ phi / noise)
    return spec, covariance @ phi.T @ np.array([value for *_, value in seen]) / noise, covariance


def every_column(context: dict[str, Any], action: str, *, own: bool) -> Floats:
    """Give the shared columns and, where asked for, those of each action."""
    shared = theirs(context, action)
    if not own:
        return np.concatenate([subject(context), shared])
    apart = [subject(context) * (action == other) for other in ACTIONS]
    return np.concatenate([shared, *apart])


@pytest.mark.parametrize(
    ("name", "own"), [("hybrid_lin_ucb", True), ("shared_linear_thompson", False)]
)
def test_a_belief_is_that_many_outcomes_of_the_action(name: str, own: bool) -> None:
    """Means and deviations are those of one regression that has these outcomes as rows."""
    spec, mean, covariance = believing(name, own=own)
    records = [r for r in events() if r["decision"]["action"] != "blue"]
    for record in records:
        record["rewards"][0]["value"] -= 1.0  # which the range puts on again
    solved = solve(spec, learned(spec, records))
    for context in (CONTEXT, {"age": 40.0}, {"age": 70.0, "land": "ch"}):
        x = Features(spec).vector(context).astype(np.float64)
        phi = [every_column({"land": "", **context}, action, own=own) for action in ACTIONS]
        for index, columns in enumerate(phi):
            factor = np.zeros((6, 6))
            factor[np.tril_indices(6)] = solved.arrays["factor"][index]
            deviation = np.sqrt(columns @ covariance @ columns)
            assert solved.arrays["mean"][index] @ x == pytest.approx(columns @ mean, abs=2e-4)
            assert np.linalg.norm(factor @ x) == pytest.approx(deviation, abs=2e-4)


@pytest.mark.parametrize("name", ["hybrid_lin_ucb", "shared_linear_thompson"])
def test_what_is_believed_stands_whatever_others_teach(name: str) -> None:
    """At the middle, an action without outcomes has the mean and the width that its prior says."""
    belief = {"actions": {"red": {"mean": 0.25, "strength": 40}}}
    spec = Spec.model_validate(section(policy={"name": name}, prior=belief))
    records = [r for r in events() if r["decision"]["action"] != "red"]
    solved = solve(spec, learned(spec, records))
    factor = np.zeros((6, 6))
    factor[np.tril_indices(6)] = solved.arrays["factor"][0]
    noise = 1.0 if name == "hybrid_lin_ucb" else 0.25
    assert solved.arrays["mean"][0, 0] == pytest.approx(0.25, abs=1e-12)
    assert np.linalg.norm(factor[:, 0]) == pytest.approx(np.sqrt(noise / 40), rel=1e-9)


def test_a_belief_about_what_is_shared_is_refused() -> None:
    """Green and blue are told apart by a price only, so nothing is one's alone."""
    believed = {"prior": {"mean": 0.2, "strength": 9}}
    with pytest.raises(
        ValidationError, match="no word of a categorical feature is that of 'green'"
    ):
        Spec.model_validate(section(**believed))
    Spec.model_validate(section(policy={"name": "hybrid_lin_ucb"}, **believed))


def test_an_action_is_judged_before_its_first_outcome() -> None:
    """What others taught about its features counts for a new action, where weights are shared."""
    records = [r for r in events() if r["decision"]["action"] != "blue"]
    for record in records:
        record["rewards"][0]["value"] = float(record["decision"]["action"] == "green")
    scores = {}
    for name in ("shared_linear_thompson", "linear_thompson"):
        own = name == "linear_thompson"
        spec = Spec.model_validate(
            section(policy={"name": name}, **({"action_features": []} if own else {}))
            | ({"interactions": []} if own else {})
        )
        policy = policy_from_snapshot(build(spec, learned(spec, records), 0, "", {}))
        scores[name] = policy.decide(CONTEXT, ["blue"]).scores[0]
    assert scores["linear_thompson"] == 0.0
    assert scores["shared_linear_thompson"] > 0.6


SHARED = """bandit: paint
actions: [red, blue]
features: [{{name: age, kind: numeric, low: 0, high: 80}}]
action_features: {action_features}
interactions: {interactions}
policy: {{name: {policy}}}
reward: {{name: click}}
"""
PRICE = "[{name: price, kind: numeric, low: 0, high: 4, of: {red: 1, blue: 2}}]"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"policy": "linear_thompson"}, "linear_thompson has weights of its own for each action"),
        ({"action_features": "[]"}, "must have at least one: shared_linear_thompson shares"),
        (
            {"action_features": PRICE.replace(", blue: 2", ", grey: 2")},
            "of 'price' misses 'blue' and has 'grey', no action; give each action's value",
        ),
        (
            {"action_features": PRICE.replace("price", "age")},
            "must be distinct; repeated: 'age'",
        ),
        (
            {"action_features": PRICE.replace("blue: 2", "blue: cheap")},
            "action_features[0].of.blue: 'cheap': should be a valid number",
        ),
        (
            {
                "action_features": "[{name: sort, kind: categorical, values: [warm],"
                " of: {red: warm, blue: cold}}]"
            },
            "has words that aren't among values: 'cold'; allowed: warm",
        ),
        ({"interactions": "[[age, prize]]"}, "'prize', which is no feature; allowed: age, price"),
        ({"interactions": "[[price, price]]"}, "multiplies 'price' and 'price', both of actions"),
        ({"interactions": "[[age, price], [price, age]]"}, "has 'age' with 'price' twice"),
    ],
)
def test_refusals(parts: dict[str, str], message: str) -> None:
    """Each says what is wrong, where, and what is allowed."""
    given = {"policy": "shared_linear_thompson", "action_features": PRICE, "interactions": "[]"}
    with pytest.raises(SpecError) as caught:
        parse_spec(SHARED.format(**(given | parts)), "paint.yaml")
    assert message in str(caught.value)


def test_only_a_subjects_products_change_the_features_hash() -> None:
    """A logged vector stays usable when features of actions change."""
    bare = parse_spec(
        SHARED.format(policy="shared_linear_thompson", action_features=PRICE, interactions="[]"),
        "a",
    )
    crossed = parse_spec(
        SHARED.format(
            policy="shared_linear_thompson", action_features=PRICE, interactions="[[price, age]]"
        ),
        "a",
    )
    squared = parse_spec(
        SHARED.format(
            policy="shared_linear_thompson", action_features=PRICE, interactions="[[age, age]]"
        ),
        "a",
    )
    assert bare.features_hash == crossed.features_hash != squared.features_hash
    assert squared.feature_names == ("intercept", "age", "age*age")
    assert Spec.from_canonical(crossed.canonical()) == crossed
    assert crossed.interactions == (("age", "price"),)
