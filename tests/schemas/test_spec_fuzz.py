"""Whatever a spec's text says, it is a spec or a mistake that is named: nothing else comes out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from bandstand.errors import SpecError
from bandstand.schemas.spec import Spec, parse_spec

ROUNDS: Final = 200

SHARED: Final = """
bandit: home
description: "a \\u00e9"
actions: [mean, b, numeric]
features:
  - {name: age, kind: numeric, low: 0, high: 9}
  - {name: land, kind: categorical, values: [x, y]}
  - {name: page, kind: hashed, buckets: 4}
action_features:
  - {name: price, kind: numeric, low: 0, high: 9, of: {mean: 1, b: 2, numeric: 3}}
  - {name: sort, kind: categorical, values: [r, g], of: {mean: r, b: g, numeric: g}}
interactions: [[age, land], [age, price]]
policy: {name: shared_linear_thompson, draws: 3}
reward:
  name: click
  weight: 0.5
  low: -5
  high: 50
  plus: [{name: buy, weight: 2}]
  cost: {actions: {mean: 1}, action_attribute: p, absent: 0}
  activation: open
  keep_probability: {attribute: k, least: 0.1}
forget: {half_life: 30d}
since: 2026-01-01T00:00:00Z
floor: 0.01
widened: {floor: 0.1, until: 2026-01-01T00:00:00Z}
new_actions: {share: 0.1, outcomes: 5}
"""

BETA: Final = """
bandit: home
actions: [mean, b, c]
policy: {name: beta_thompson, prior_successes: 1}
reward: {name: click}
drift: {step: 10m, act: explore, floor: 0.1, widen: 1d}
smoothing: {most_change: 0.1}
prior: {mean: 0.5, strength: 9, actions: {mean: {mean: 0.1, strength: 10}}}
"""

VALUES: Final[list[Any]] = [
    *(None, True, 0, -1, 1, 1e308, 5e-324, 10**400, float("nan"), float("inf"), "", " ", "a|b"),
    *("x" * 300, "\ud83d", "no", "30d", "0d", "9" * 20 + "d", "2026-01-01", 1234567890, "mean"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "intercept", "age", "exp3"),
    *([], {}, [1], ["a", "a"], {"a": 1}, {1: 2}, [[]], [["age"]], [["age", "age", "age"]]),
    *({"name": "ucb1"}, {"name": None}, {"name": ["x"]}, {"mean": {"mean": 0.1, "strngth": 1}}),
]

SNIPPETS: Final = [
    *"{}[]:,-&*!|>%@`\"'\\#? \n\t~<=0.eé\x00\x85\ud83d",
    *("\\ud83d", "\\UFFFFFFFF", "\\xZZ", "!!int ", "!!binary x", "<<: ", "--- ", "... ", "%YAML 9"),
]


def from_file(text: str) -> Spec:
    """Read a text as an operator's file."""
    return parse_spec(text, "s.yaml")


def check(read: Callable[[str], Spec], text: str) -> None:
    """Read a text, and what comes of it once more; nothing but a SpecError may come out."""
    try:
        spec = read(text)
    except SpecError:
        return
    assert Spec.from_canonical(spec.canonical()).canonical() == spec.canonical()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the path of everything in a document but the whole."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in entries:
        yield (*path, key)
        if isinstance(below, dict | list):
            yield from places(below, (*path, key))


def changed(data: Any, chance: random.Random) -> Any:
    """Replace, remove or add something somewhere."""
    data = json.loads(json.dumps(data))
    *above, last = chance.choice(list(places(data)))
    holder = data
    for key in above:
        holder = holder[key]
    match chance.randrange(4):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(["mean", "numeric", "kind", "nmae", "|"])] = chance.choice(VALUES)
        case _:
            holder[last] = chance.choice(VALUES)
    return data


@pytest.mark.parametrize("text", [SHARED, BETA])
def test_a_spec_with_other_content_is_read_or_refused(text: str) -> None:
    """Values and keys that are wrong, missing or too many, in the file and in the topic."""
    chance = random.Random(2026)
    data = json.loads(from_file(text).canonical())
    for _ in range(ROUNDS):
        mutated = changed(data, chance)
        if chance.random() < 0.3:
            mutated = changed(mutated, chance)
        check(from_file, json.dumps(mutated))
        check(Spec.from_canonical, json.dumps(mutated))


@pytest.mark.parametrize("text", [SHARED, BETA])
def test_a_spec_with_other_characters_is_read_or_refused(text: str) -> None:
    """Characters that are put in, taken out or doubled."""
    chance = random.Random(2026)
    for _ in range(ROUNDS):
        mutated = text
        for _ in range(chance.choice([1, 1, 2, 5])):
            start = chance.randrange(len(mutated) + 1)
            end = start + chance.choice([0, 0, 1, 3, 20])
            middle = chance.choice([*SNIPPETS, "", mutated[start:end] * 2])
            mutated = mutated[:start] + middle + mutated[end:]
        check(from_file, mutated)
