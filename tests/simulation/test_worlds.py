"""Any policy can be played in any world: what one doesn't see is there all the same."""

from __future__ import annotations

import numpy as np
import pytest

from bandstand.errors import SpecError
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.simulation.environments import environment
from bandstand.simulation.play import play

HEAD = "bandit: {}\nactions: [x, y, z]\nreward: {{name: click}}\npolicy: {{name: {}}}\n"
AGE = "{name: age, kind: numeric, low: 18, high: 90}"
LAND = "{name: land, kind: categorical, values: [ch, no]}"


def spec_of(policy: str, more: str = "", bandit: str = "b") -> Spec:
    """Give a spec of three actions."""
    return parse_spec(HEAD.format(bandit, policy) + more, "b.yaml")


@pytest.mark.parametrize("world", ["linear", "logistic"])
@pytest.mark.parametrize(
    ("policy", "more"),
    [
        ("uniform", ""),
        ("linear_thompson", "smoothing: {most_change: 0.3}"),
        ("ucb1", "smoothing: {most_change: 0.1}"),
        (
            "beta_thompson",
            "prior: {mean: 0.1, strength: 5}\nnew_actions: {share: 0.1, outcomes: 9}",
        ),
    ],
)
def test_policies_without_features_play_in_worlds_with_context(
    world: str, policy: str, more: str
) -> None:
    """The world makes two numbers, chances differ by them, and all sections are played."""
    spec = spec_of(policy, more)
    assert play(spec, world, 300, 1, 50).regret[-1] > 0
    random = np.random.default_rng(1)
    made, _ = environment(world, [spec], random)
    chances = made.chances(made.contexts(random, 50), 0)
    assert len(np.unique(chances, axis=0)) > 40
    (note,) = made.notes
    assert note.startswith("no spec has features, so subjects have two numbers")


def test_subjects_have_the_features_of_all_specs() -> None:
    """Each policy sees its own; the one that sees all loses less, in one and the same world."""
    both = spec_of("lin_ucb", f"features: [{AGE}, {LAND}]\ninteractions: [[land, age]]")
    some = spec_of("lin_ucb", f"features: [{LAND}]", "some")
    none = spec_of("ucb_tuned", bandit="none")
    specs = [some, none, both]
    random = np.random.default_rng(1)
    made, _ = environment("linear", specs, random)
    assert made.notes == []
    assert made.contexts(random, 1)[0].keys() == {"age", "land"}
    world = "linear,scale=0.4"
    lost = [play(spec, world, 3_000, 2, 100, specs).regret[-1] for spec in specs]
    assert lost[2] < lost[0] / 2 < lost[1] / 2


def test_interactions_of_any_spec_matter_to_all_subjects() -> None:
    """Chances at four corners aren't a sum of two effects: the product of features counts."""
    own = f"features: [{AGE}, {LAND}]"
    crossed = spec_of("lin_ucb", own + "\ninteractions: [[land, age]]", "crossed")
    corners = [{"age": age, "land": land} for age in (40, 60) for land in ("ch", "no")]

    def difference(*specs: Spec) -> float:
        made, _ = environment("linear,base=0.5,scale=0.05", specs, np.random.default_rng(4))
        a, b, c, d = made.chances(corners, 0)
        return float(np.abs(a - b - c + d).max())

    assert difference(spec_of("lin_ucb", own)) < 1e-6
    assert difference(spec_of("lin_ucb", own), crossed) > 1e-3


def test_one_name_has_one_meaning() -> None:
    """Worlds that make subjects refuse two definitions of a feature; others don't care."""
    specs = [
        spec_of("lin_ucb", f"features: [{AGE}]", "one"),
        spec_of("lin_ucb", f"features: [{AGE.replace('18', '0')}]", "two"),
    ]
    with pytest.raises(
        SpecError,
        match=r"feature 'age' is .*18.* for bandit 'one', but .*0.* for 'two'; .* define it alike",
    ):
        play(specs[0], "linear", 10, 1, 5, specs)
    played = [play(spec, "bernoulli", 200, 1, 50, specs) for spec in specs]
    assert (played[0].regret == played[1].regret).all()


def test_what_a_world_lacks_is_noted() -> None:
    """Bernoulli's subjects have no attributes; no world knows features of actions."""
    random = np.random.default_rng(1)
    made, _ = environment("drifting", [spec_of("lin_ucb", f"features: [{AGE}, {LAND}]")], random)
    assert made.notes == ["subjects have no attributes in this world, so 'age', 'land' are unknown"]
    prices = "{name: price, kind: numeric, low: 0, high: 9, of: {x: 1, y: 2, z: 3}}"
    sharing = spec_of("hybrid_lin_ucb", f"features: [{AGE}]\naction_features: [{prices}]")
    made, _ = environment("logistic", [sharing], random)
    (note,) = made.notes
    assert note.startswith("the action_features of 'b' tell nothing in this world")
