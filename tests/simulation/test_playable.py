"""Nothing of a spec is ignored without a word: it is played, or a note names it."""

from __future__ import annotations

import re

import pytest

from bandstand.schemas.spec import Reward, Spec, parse_spec
from bandstand.simulation.play import play
from bandstand.simulation.playable import playable

PLAIN = "bandit: b\nactions: [x, y, z]\npolicy: {name: beta_thompson}\nreward: {name: click}\n"


def spec_of(more: str = "", reward: str = "name: click") -> Spec:
    """Give a spec of three actions."""
    return parse_spec(PLAIN.replace("name: click", reward) + more, "b.yaml")


@pytest.mark.parametrize(
    "more",
    [
        "",
        "floor: 0.1",
        "smoothing: {most_change: 0.05}",
        "prior: {mean: 0.1, strength: 5}",
        "new_actions: {share: 0.1, outcomes: 50}",
        "forget: {half_life: 500ms}",
        "drift: {step: 50ms, act: epoch}",
        "since: 1970-01-01T00:00:00.500Z",
        "widened: {floor: 0.2, until: '1970-01-01T00:00:00.500Z'}",
    ],
)
def test_what_can_be_played_is(more: str) -> None:
    """As it stands, without a note."""
    spec = spec_of(more)
    assert playable(spec, 1_000, 1) == (spec, [])


@pytest.mark.parametrize(
    ("reward", "named"),
    [
        ("name: click, weight: 0.5", "reward.weight isn't played"),
        ("name: click, aggregate: count", "reward.aggregate isn't played"),
        ("name: click, low: -1", "reward.default isn't played: .* 1 or -1"),
        ("name: click, cost: {actions: {x: 0}}", "reward.cost isn't played"),
        ("name: click, activation: open", "reward.activation isn't played"),
        ("name: click, keep_probability: {attribute: p}", "reward.keep_probability isn't played"),
        ("name: click, plus: [{name: buy}], weight: 2", "reward.weight, reward.plus aren't played"),
    ],
)
def test_what_makes_one_reward_of_several_is_left_out(reward: str, named: str) -> None:
    """What is played has the same name and range; the policy learns of hits and misses."""
    spec = spec_of(reward=reward)
    played, (note,) = playable(spec, 1_000, 1)
    assert re.match(named, note)
    low = spec.reward.low
    assert played.reward == Reward(name="click", low=low, high=1.0, default=low)
    assert play(spec, "bernoulli,low=0,high=1", 2_000, 1, 100).best[-1] > 0.9


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("since: 2026-11-29T20:00:00Z", "since"),
        ("widened: {floor: 0.3, until: '2026-11-29T20:00:00Z'}", "widened.until"),
        (
            "drift: {step: 10ms, since: '2026-11-29T20:00:00Z'}",
            "drift.since",
        ),
    ],
)
def test_moments_outside_the_run_are_left_out(more: str, name: str) -> None:
    """A policy learns and decides as without them, and the note has the run's first and last."""
    played, notes = playable(spec_of(more), 2_000, 10)
    assert notes == [
        (
            f"{name} (2026-11-29T20:00:00.000Z) isn't played: the run lasts from"
            " 1970-01-01T00:00:00.000Z to 1970-01-01T00:00:20.000Z"
        )
    ]
    assert (played.since, played.widened) == (None, None)
    plain = spec_of("drift: {step: 10ms}" if "drift" in more else "")
    with_it, without = (
        play(spec, "bernoulli,low=0,high=1", 500, 3, 50, pace_ms=10)
        for spec in (spec_of(more), plain)
    )
    assert (with_it.regret == without.regret).all()


def test_moments_within_the_run_take_effect() -> None:
    """Nothing is learned of the first half, and a wide floor ends with it."""
    half = "1970-01-01T00:00:10Z"
    world = "bernoulli,low=0,high=1"
    late = play(spec_of(f"since: {half}"), world, 2_000, 1, 100, pace_ms=10)
    assert late.best[:10].max() < 0.5
    assert late.best[-1] > 0.9
    wide = play(
        spec_of(f"widened: {{floor: 0.3, until: {half}}}"), world, 2_000, 1, 100, pace_ms=10
    )
    assert wide.shares[:10].min() > 0.15
    assert wide.shares[-5:].min() < 0.05


@pytest.mark.parametrize(
    ("more", "note"),
    [
        (
            "forget: {half_life: 30d}",
            (
                "forget.half_life (30d) isn't shorter than the run (1s), so no outcome loses half"
                " its weight; give a longer --pace, or more decisions"
            ),
        ),
        (
            "forget: {window: 1s}",
            (
                "forget.window (1s) isn't shorter than the run (1s), so no outcome is forgotten;"
                " give a longer --pace, or more decisions"
            ),
        ),
        (
            "drift: {step: 10m}",
            (
                "drift.step (10m) isn't shorter than the run (1s), so no change can be found; give"
                " a longer --pace, or more decisions"
            ),
        ),
        (
            "drift: {step: 10ms, act: explore, floor: 0.1, widen: 1d}",
            (
                "drift.widen (1d) isn't shorter than the run (1s), so the floor stays once a change"
                " is found; give a longer --pace, or more decisions"
            ),
        ),
        (
            "forget: {half_life: 500ms}\ndrift: {step: 10ms, act: half_life}",
            (
                "drift.act half_life changes nothing: forget.half_life is 500ms, and none is"
                " shortened below 8s; give a longer one, and a longer --pace"
            ),
        ),
    ],
)
def test_what_cannot_show_in_the_run_is_noted(more: str, note: str) -> None:
    """It is played all the same; a longer pace leaves most of it without a note."""
    spec = spec_of(more)
    assert playable(spec, 1_000, 1) == (spec, [note])
    if "500ms" not in more:
        assert playable(spec, 1_000, 86_400_000).notes == []


def test_the_pace_is_that_of_the_specs_durations() -> None:
    """Ten decisions a second with a half-life of a minute forget as one a millisecond of 600 ms."""
    world = "drifting,low=0.1,high=0.9,every=500"
    slow = play(spec_of("forget: {half_life: 60s}"), world, 2_000, 1, 100, pace_ms=100)
    fast = play(spec_of("forget: {half_life: 600ms}"), world, 2_000, 1, 100)
    never = play(spec_of(), world, 2_000, 1, 100)
    assert (slow.regret == fast.regret).all()
    assert slow.regret[-1] < never.regret[-1]
