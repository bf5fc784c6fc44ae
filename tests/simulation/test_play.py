"""Simulated policies decide and learn as served ones, in worlds that are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandstand.errors import SpecError
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.simulation.environments import ENVIRONMENTS, environment
from bandstand.simulation.play import play

SPEC = (
    "bandit: b\nactions: [x, y, z]\nreward: {name: click, low: -2, high: 6}\npolicy: {name: %s}\n"
)
FEATURES = """\
features:
  - {name: age, kind: numeric, low: 18, high: 90}
  - {name: land, kind: categorical, values: [ch, no]}
  - {name: page, kind: hashed, buckets: 4}
"""


def spec_of(policy: str, features: str = "") -> Spec:
    """Give a spec of three actions."""
    return parse_spec(SPEC % policy + features, "b.yaml")


def test_the_uniform_policys_regret_is_the_mean_gap() -> None:
    """Chances of 0, 0.5 and 1: half a reward is lost with each decision, within four sigma."""
    played = play(spec_of("uniform"), "bernoulli,low=0,high=1", 4_000, 3, 250)
    assert played.regret.shape == played.best.shape == (16,)
    assert abs(played.regret[-1] - 2_000) < 4 * np.sqrt(4_000 / 6)
    assert (np.diff(played.regret) >= 0).all()
    assert np.allclose(played.shares.sum(axis=1), 1)
    assert abs(played.best.mean() - 1 / 3) < 0.03


@pytest.mark.parametrize("policy", ["beta_thompson", "ucb_tuned", "exp3", "epsilon_greedy"])
def test_a_policy_finds_the_best_action(policy: str) -> None:
    """Most decisions at the end take it, and a seed gives the same again, to the bit."""
    one, two = (play(spec_of(policy), "bernoulli,low=0,high=1", 3_000, 5, 100) for _ in range(2))
    assert one.best[-5:].mean() > 0.85
    assert (one.regret == two.regret).all()
    assert (one.shares == two.shares).all()
    other = play(spec_of(policy), "bernoulli,low=0,high=1", 3_000, 6, 100)
    assert (one.regret != other.regret).any()


@pytest.mark.parametrize("world", ["linear", "logistic"])
def test_context_pays_where_the_world_has_some(world: str) -> None:
    """A linear policy loses less than half of what one without context does."""
    spec = spec_of("linear_thompson", FEATURES)
    ours = play(spec, world, 4_000, 2, 100).regret[-1]
    theirs = play(spec_of("beta_thompson"), world, 4_000, 2, 100, subjects=[spec]).regret[-1]
    assert ours < theirs / 2


def test_smoothing_bounds_how_fast_shares_move() -> None:
    """With most_change 0.02, a policy's shares move slower than without it, and lose more."""
    plain = spec_of("beta_thompson")
    smooth = Spec.model_validate(
        {**plain.model_dump(mode="json"), "smoothing": {"most_change": 0.02}}
    )
    fast, slow = (
        play(spec, "bernoulli,low=0,high=1", 4_000, seed=3, publish_every=200)
        for spec in (plain, smooth)
    )
    assert fast.best[5] > 0.9
    assert slow.best[5] < 0.5
    assert slow.regret[-1] > 2 * fast.regret[-1]


def test_actions_change_places_in_a_drifting_world() -> None:
    """After so many decisions each action has the chance of the one before it."""
    world, _ = environment("drifting,every=10", [spec_of("uniform")], np.random.default_rng(1))
    chances = world.chances([{}] * 30, 5)
    assert (chances[0] == chances[4]).all()
    assert (chances[5] == np.roll(chances[0], 1)).all()
    assert (chances[15] == np.roll(chances[0], 2)).all()


def test_late_outcomes_are_learned_late() -> None:
    """As long as none is due the policy is that of the prior; late, it still learns from all."""
    spec = spec_of("beta_thompson")
    never = play(spec, "bernoulli,low=0,high=1,delay=1e9", 1_000, 1, 100)
    assert np.allclose(never.shares, 1 / 3, atol=0.2)
    at_once = play(spec, "bernoulli,low=0.4,high=0.6", 8_000, 1, 100)
    late = play(spec, "bernoulli,low=0.4,high=0.6,delay=2000", 8_000, 1, 100)
    assert at_once.regret[-1] < late.regret[-1]
    assert late.best[-5:].mean() > 0.7


def test_a_table_with_labels_is_a_bandit(tmp_path: Path) -> None:
    """Each label is an action; a contextual policy learns to name it from the attributes."""
    rows = "".join(
        f"{age},{'ch' if age < 50 else 'no'},{'x' if age < 50 else 'y'}\n" for age in range(18, 90)
    )
    (tmp_path / "people.csv").write_text("age,land,who\n" + rows)
    world = f"classification,file={tmp_path / 'people.csv'},label=who"
    played = play(spec_of("linear_thompson", FEATURES), world, 2_000, 1, 50)
    assert played.best[-10:].mean() > 0.95
    (tmp_path / "people.csv").write_text("age,land,who\n20,ch,nobody\n")
    with pytest.raises(SpecError, match=r"labels that are no actions \('nobody'\)"):
        play(spec_of("uniform"), world, 10, 1, 5)
    with pytest.raises(SpecError, match="can't be read"):
        play(spec_of("uniform"), "classification,file=/nowhere.csv", 10, 1, 5)


@pytest.mark.parametrize(
    ("world", "message"),
    [
        ("moon", f"unknown environment 'moon'; allowed: {', '.join(ENVIRONMENTS)}"),
        ("bernoulli,colour=red", "environment bernoulli: it has no option colour"),
        ("bernoulli,low=two", "option low is 'two'; allowed: 0 to 1"),
        ("linear,scale=-1", "option scale is '-1'; allowed: 0 to 100"),
        ("bernoulli,delay=nan", "option delay is 'nan'"),
    ],
)
def test_a_world_that_is_none_is_refused(world: str, message: str) -> None:
    """The error names the option, its value and what is allowed."""
    with pytest.raises(SpecError, match=message):
        play(spec_of("uniform"), world, 10, 1, 5)


def test_attributes_are_within_the_spec() -> None:
    """Numbers lie in their range, words are the spec's, and chances are chances."""
    spec = spec_of("linear_thompson", FEATURES)
    for name in ("linear", "logistic"):
        rng = np.random.default_rng(1)
        world, _ = environment(name, [spec], rng)
        contexts: list[dict[str, Any]] = world.contexts(rng, 200)
        chances = world.chances(contexts, 0)
        assert {context["land"] for context in contexts} == {"ch", "no"}
        assert all(18 <= context["age"] <= 90 for context in contexts)
        assert chances.shape == (200, 3)
        assert ((chances >= 0) & (chances <= 1)).all()
