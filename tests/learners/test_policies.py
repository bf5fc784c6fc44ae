"""Posteriors equal brute force, and decisions are theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from bandstand.errors import DecisionError, SpecError, StateError
from bandstand.learners.beta_thompson import BetaThompsonSpec
from bandstand.learners.features import Features
from bandstand.learners.linear_thompson import LinearThompsonSpec
from bandstand.learners.policies import (
    Policy,
    Solution,
    Solved,
    draw,
    policy_from_snapshot,
    resume,
    solve,
)
from bandstand.learners.probabilities import beta_best, gaussian_best, with_floor
from bandstand.learners.snapshots import build, newer
from bandstand.learners.statistics import Statistics
from bandstand.schemas import codec
from bandstand.schemas.spec import Spec
from bandstand.schemas.wire import Wire
from tests.learners.given import ACTIONS, batch, beta_spec, linear_spec, outcome

CONTEXT = {"age": 31.0, "spend": -0.2, "land": "no", "page": "/b"}
RANGE = {"aggregate": "last", "low": -1.0, "high": 4.0}
LINEAR = [
    linear_spec(reward=RANGE, floor=0.02, prior_precision=2.5, noise_variance=0.3, exploration=0.7),
    linear_spec(reward=RANGE, prior_precision=0.01, noise_variance=3.0, exploration=2.0),
]
BETA = [
    beta_spec(reward=RANGE, floor=0.02, prior_successes=0.7, prior_failures=3.0),
    beta_spec(reward=RANGE, prior_successes=20.0, prior_failures=0.3),
]


def records(count: int, actions: tuple[str, ...] = ACTIONS[:2]) -> list[dict[str, Any]]:
    """Give random outcomes; by default none of the last action."""
    rng = np.random.default_rng(11)
    return [
        outcome(
            str(rng.choice(actions)),
            [float(rng.normal(1.0))],
            numeric={"age": float(rng.uniform(0, 80)), "spend": float(rng.uniform(-3, 0.1))},
            words={"land": str(rng.choice(["ch", "no", "de"])), "page": f"/{rng.integers(9)}"},
            ts=1_000 + number,
        )
        for number in range(count)
    ]


def learned(spec: Spec, count: int = 200) -> Statistics:
    """Learn random outcomes."""
    return Statistics.empty(spec).update(batch(records(count)))


def policy_of(spec: Spec, count: int = 200) -> Policy:
    """Give the policy that a snapshot of random outcomes gives."""
    return policy_from_snapshot(build(spec, learned(spec, count), 3, "", {0: count}))


def scaled_rewards() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scaled rewards of the random outcomes."""
    values = [r["rewards"][0]["value"] for r in records(200)]
    return np.asarray((np.clip(values, -1.0, 4.0) + 1.0) / 5.0)


@pytest.mark.parametrize("spec", LINEAR)
def test_linear_posterior_equals_brute_force(spec: Spec) -> None:
    """Mean, deviation and probabilities are those of the textbook formula, cold action too."""
    policy = spec.policy
    assert isinstance(policy, LinearThompsonSpec)
    rows = records(200)
    matrix = Features(spec).matrix(batch(rows).column("decision")).steps / 4096
    chosen = np.array([r["decision"]["action"] for r in rows])
    x = Features(spec).vector(CONTEXT).astype(np.float64)
    means, deviations = [], []
    for action in spec.actions:
        mine, y = matrix[chosen == action], scaled_rewards()[chosen == action]
        precision = policy.prior_precision * np.eye(len(x)) + mine.T @ mine / policy.noise_variance
        covariance = np.linalg.inv(precision)
        means.append(x @ covariance @ (mine.T @ y) / policy.noise_variance)
        deviations.append(policy.exploration * np.sqrt(x @ covariance @ x))
    choice = policy_of(spec).decide(CONTEXT, spec.actions)
    expected = gaussian_best(np.array(means), np.array(deviations))
    # Rewards on the grid differ from those off it by at most 1/8192.
    assert np.abs((choice.scores + 1) / 5 - means).max() < 2e-4
    assert np.abs(choice.probabilities - with_floor(expected, spec.floor)).max() < 2e-3
    assert (choice.features == x).all()


@pytest.mark.parametrize("spec", LINEAR)
def test_an_unseen_action_equals_its_prior(spec: Spec) -> None:
    """Without outcomes the mean is 0 and the precision the prior's, exactly."""
    policy = spec.policy
    assert isinstance(policy, LinearThompsonSpec)
    solved = solve(spec, learned(spec))
    dimension = len(spec.feature_names)
    factor = np.zeros((dimension, dimension))
    factor[np.tril_indices(dimension)] = solved.arrays["factor"][2]
    assert (solved.arrays["mean"][2] == 0).all()
    assert np.allclose(
        factor, np.eye(dimension) / np.sqrt(policy.prior_precision), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("name", ["linear_thompson", "lin_ucb", "square_cb"])
def test_actions_whose_sums_stayed_are_taken_over(name: str) -> None:
    """The answer is that of a whole solution, to the bit; what stayed isn't looked at again."""
    fields = linear_spec(reward=RANGE).model_dump()
    spec = Spec.model_validate({**fields, "policy": {"name": name, "prior_precision": 2.5}})
    old = learned(spec)
    new = old.update(batch(records(30, actions=ACTIONS[1:2])))
    first, whole = solve(spec, old), solve(spec, new)
    again = resume(spec, new, Solution(old.sums, first)).solved
    assert again.parameters == whole.parameters
    assert all((again.arrays[key] == array).all() for key, array in whole.arrays.items())
    marked = Solved(first.parameters, {key: array + 1.0 for key, array in first.arrays.items()})
    for key, array in resume(spec, new, Solution(old.sums, marked)).solved.arrays.items():
        assert (array[[0, 2]] == marked.arrays[key][[0, 2]]).all()
        assert (array[1] == whole.arrays[key][1]).all()
        assert not np.shares_memory(array, marked.arrays[key])


@pytest.mark.parametrize("spec", BETA)
def test_beta_posterior_equals_brute_force(spec: Spec) -> None:
    """Successes and failures are prior plus sums of r and 1 - r; the cold action is its prior."""
    policy = spec.policy
    assert isinstance(policy, BetaThompsonSpec)
    chosen = np.array([r["decision"]["action"] for r in records(200)])
    a = [policy.prior_successes + scaled_rewards()[chosen == k].sum() for k in spec.actions]
    b = [policy.prior_failures + (1 - scaled_rewards()[chosen == k]).sum() for k in spec.actions]
    solved = solve(spec, learned(spec))
    assert np.allclose(solved.arrays["successes"], a, rtol=0, atol=200 / 8192)
    assert np.allclose(solved.arrays["failures"], b, rtol=0, atol=200 / 8192)
    assert solved.arrays["successes"][2] == policy.prior_successes
    choice = policy_of(spec).decide({}, spec.actions)
    exact = beta_best(solved.arrays["successes"], solved.arrays["failures"])
    assert np.allclose(choice.probabilities, with_floor(exact, spec.floor), rtol=0, atol=1e-15)
    assert np.allclose((choice.scores + 1) / 5, np.array(a) / (np.array(a) + b), rtol=0, atol=1e-3)
    assert choice.features.shape == (0,)


@pytest.mark.parametrize("spec", [*LINEAR, *BETA])
def test_eligible_actions_decide_the_answer(spec: Spec) -> None:
    """Any order permutes it, one action is certain, the floor holds for any subset."""
    policy = policy_of(spec)
    whole = policy.decide(CONTEXT, ("red", "green", "blue"))
    turned = policy.decide(CONTEXT, ["blue", "red", "green"])
    assert np.allclose(turned.probabilities, whole.probabilities[[2, 0, 1]], rtol=0, atol=1e-12)
    assert (turned.scores == whole.scores[[2, 0, 1]]).all()
    assert policy.decide(CONTEXT, ["green"]).probabilities.tolist() == [1.0]
    pair = policy.decide(CONTEXT, ["green", "blue"])
    for choice in (whole, turned, pair):
        assert (choice.probabilities >= spec.floor).all()
        assert abs(choice.probabilities.sum() - 1) < 1e-12
    assert len(pair.scores) == 2


@pytest.mark.parametrize("spec", [LINEAR[0], BETA[0]])
@pytest.mark.parametrize(
    ("eligible", "message"),
    [
        (["red", "violet", "x"], "unknown action 'violet', 'x'; bandit 'paint' has .* red, green"),
        ([], "no action is eligible; give at least one: bandit 'paint' has the actions red"),
        (["red", "red"], r"eligible actions \['red', 'red'\] aren't distinct"),
    ],
)
def test_wrong_eligible_actions_are_refused(spec: Spec, eligible: list[str], message: str) -> None:
    """The error names the action and those that there are; also the second time."""
    policy = policy_of(spec)
    for _ in range(2):
        with pytest.raises(DecisionError, match=message):
            policy.decide(CONTEXT, eligible)


def test_more_sets_of_actions_than_the_memory_holds() -> None:
    """Ten thousand different sets of eligible actions are answered alike, again and again."""
    spec = linear_spec([f"a{i}" for i in range(8)])
    policy = policy_of(spec)
    rng = np.random.default_rng(0)
    whole = policy.decide(CONTEXT, spec.actions).scores
    for _ in range(6_000):
        indexes = rng.permutation(8)[: rng.integers(1, 9)]
        choice = policy.decide(CONTEXT, [spec.actions[i] for i in indexes])
        assert (choice.scores == whole[indexes]).all()


def test_served_frequencies_match_logged_propensities() -> None:
    """Over 20,000 decisions on changing contexts, chosen actions follow their propensities."""
    policy = policy_of(LINEAR[1], 20)
    rng = np.random.default_rng(2)
    expected, seen = np.zeros(3), np.zeros(3)
    for seed in range(20_000):
        context = {"age": float(rng.uniform(0, 80)), "land": "ch", "page": f"/{seed % 5}"}
        probabilities = policy.decide(context, ACTIONS).probabilities
        expected += probabilities
        seen[draw(probabilities, seed)] += 1
    assert chisquare(seen, expected).pvalue > 1e-4


@pytest.mark.parametrize("spec", [*LINEAR, *BETA])
def test_snapshots_round_trip_through_kafka_bytes(spec: Spec) -> None:
    """A snapshot read back decides to the bit as the one that was built."""
    statistics = learned(spec)
    snapshot = build(spec, statistics, 7, "7-10-ab", {0: 12, 3: 5})
    wire = Wire.single_object()
    back = wire.loads("snapshot", wire.dumps("snapshot", snapshot))
    assert back == snapshot
    assert back["version"] == f"7-200-{statistics.digest()[:16]}"
    assert newer(back["version"], back["parent"])
    assert back["source_offsets"] == {"0": 12, "3": 5}
    assert (back["newest"], back["outcomes"]) == (1_199, 200)
    first, second = (policy_from_snapshot(s).decide(CONTEXT, ACTIONS) for s in (snapshot, back))
    assert (first.probabilities == second.probabilities).all()
    assert (first.scores == second.scores).all()


def test_a_snapshot_of_nothing_is_the_prior() -> None:
    """Before the first outcome there is a snapshot to serve, and all actions are equal."""
    for spec in (*LINEAR, *BETA):
        snapshot = build(spec, Statistics.empty(spec), 0, "", {})
        assert snapshot["newest"] is None
        choice = policy_from_snapshot(snapshot).decide({}, ACTIONS)
        assert np.allclose(choice.probabilities, 1 / 3, rtol=0, atol=1e-12)


def test_a_stranger_reads_a_snapshot_with_fastavro_and_numpy(tmp_path: Path) -> None:
    """Thirty lines without Bandstand give the means and deviations that serving uses."""
    spec = LINEAR[0]
    snapshot = build(spec, learned(spec), 1, "", {0: 200})
    schema, file = tmp_path / "snapshot.avsc", tmp_path / "snapshot.bin"
    schema.write_text(codec.schema_json("snapshot"))
    file.write_bytes(Wire.single_object().dumps("snapshot", snapshot))
    reader = Path(__file__).with_name("reader.py")
    assert "bandstand" not in reader.read_text().split('"""')[2]
    vector = Features(spec).vector(CONTEXT).tolist()
    columns = json.dumps(dict(zip(spec.feature_names, vector, strict=True)))
    command = [sys.executable, "-I", str(reader), str(schema), str(file)]
    ran = subprocess.run(command, input=columns, capture_output=True, text=True, check=True)
    read = json.loads(ran.stdout)
    assert read["version"] == snapshot["version"]
    assert [action for action, _, _ in read["actions"]] == list(spec.actions)
    mean, deviation = np.array([numbers for _, *numbers in read["actions"]]).T
    choice = policy_from_snapshot(snapshot).decide(CONTEXT, spec.actions)
    assert np.allclose((choice.scores + 1) / 5, mean, rtol=0, atol=1e-12)
    probabilities = with_floor(gaussian_best(mean, deviation), spec.floor)
    assert np.allclose(choice.probabilities, probabilities, rtol=0, atol=1e-12)


def test_a_damaged_snapshot_is_refused() -> None:
    """Missing, short, misshapen and not finite arrays, and foreign specs, are named."""
    spec = LINEAR[0]
    snapshot = build(spec, learned(spec), 1, "", {})
    factor, mean = snapshot["arrays"]
    poisoned = {**mean, "data": b"\xff" * len(mean["data"])}
    for arrays, message in (
        ([factor], "array 'mean' has shape None"),
        ([factor, {**mean, "shape": [8, 3]}], r"array 'mean' has shape \(8, 3\)"),
        ([factor, {**mean, "data": mean["data"][:-8]}], "array 'mean' has 184 bytes"),
        ([factor, poisoned], "numbers that aren't finite"),
    ):
        with pytest.raises(StateError, match=message):
            policy_from_snapshot({**snapshot, "arrays": arrays})
    with pytest.raises(SpecError):
        policy_from_snapshot({**snapshot, "spec": "{}"})


def test_a_posterior_that_cannot_be_solved_is_named() -> None:
    """Sums that aren't those of any rows give an error that says what to do."""
    spec = LINEAR[0]
    arrays = Statistics.empty(spec).arrays()
    arrays["products"][1, 0] = -(2**40)
    broken = Statistics.from_arrays(spec, arrays, {}, 1, None)
    with pytest.raises(StateError, match=r"'green' isn't positive definite.*larger prior"):
        solve(spec, broken)


def test_positive_definite_after_many_dependent_outcomes() -> None:
    """A hundred thousand outcomes of one subject keep the posterior solvable and sane."""
    spec = linear_spec(prior_precision=1e-3, noise_variance=0.01)
    table = batch([outcome("red", [1.0], numeric={"age": 80.0, "spend": -3.0})] * 1000)
    statistics = Statistics.empty(spec)
    for _ in range(100):
        statistics = statistics.update(table)
    policy = policy_from_snapshot(build(spec, statistics, 1, "", {}))
    choice = policy.decide({"age": 80.0, "spend": -3.0}, ACTIONS)
    assert abs(choice.scores[0] - 1.0) < 1e-3
    assert np.isfinite(choice.probabilities).all()


@pytest.mark.parametrize("version", ["1-2", "a-2-ff", "1-2-xyz", "1-2-ff-3"])
def test_what_is_no_version_is_refused(version: str) -> None:
    """A malformed version can't be ordered."""
    with pytest.raises(StateError, match="isn't a version"):
        newer("1-1-aa", version)


def test_versions_are_ordered_by_epoch_then_outcomes() -> None:
    """As numbers, not as text; equal counts with other digests don't follow each other."""
    ordered = ["", "0-0-aa", "0-9-aa", "0-10-aa", "2-0-aa", "10-0-aa"]
    for i, a in enumerate(ordered):
        for j, b in enumerate(ordered):
            assert newer(a, b) == (i > j)
    assert not newer("1-5-aa", "1-5-bb")
