"""Worlds that answer decisions: what each action would bring, known here and to no policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from bandstand.errors import SpecError
from bandstand.learners.features import Features
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_features import Categorical, Hashed, Numeric
from bandstand.simulation.labelled import Classification

__all__ = ["ENVIRONMENTS", "Environment", "environment"]

Floats = npt.NDArray[np.float64]
Options = dict[str, str]

WORDS: Final = 20
"""Different words of a hashed feature."""

OWN: Final = (
    Numeric(name="world.first", low=-1.0, high=1.0),
    Numeric(name="world.second", low=-1.0, high=1.0),
)
"""What distinguishes subjects where no spec has features."""


class Environment(Protocol):
    """A world; all chance comes from the generator that it is given."""

    @property
    def notes(self) -> Sequence[str]:
        """What it makes of the specs that their owners may not expect, a line each."""

    def contexts(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        """Give the attributes of the next subjects."""

    def chances(self, contexts: list[dict[str, Any]], start: int) -> Floats:
        """Give the chance of a reward of every action, float64[n, K], from decision `start` on."""


class _Anybody:
    """Subjects whom nothing distinguishes."""

    notes: Sequence[str] = ()

    def contexts(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        del random
        return [{}] * count


class Bernoulli(_Anybody):
    """Chances evenly spaced from ``low`` (0.05) to ``high`` (0.15), in an order by the seed."""

    def __init__(
        self, specs: Sequence[Spec], random: np.random.Generator, options: Options
    ) -> None:
        low, high = _number(options, "low", 0.05, 0, 1), _number(options, "high", 0.15, 0, 1)
        self._chances = random.permutation(np.linspace(low, high, len(specs[0].actions)))
        names = sorted({feature.name for spec in specs for feature in spec.features})
        if names:
            absent = ", ".join(map(repr, names))
            self.notes = [f"subjects have no attributes in this world, so {absent} are unknown"]

    def chances(self, contexts: list[dict[str, Any]], start: int) -> Floats:
        del start
        return np.tile(self._chances, (len(contexts), 1))


class Drifting(Bernoulli):
    """Bernoulli whose actions change places every 2,000 decisions, or ``every``."""

    def __init__(
        self, specs: Sequence[Spec], random: np.random.Generator, options: Options
    ) -> None:
        super().__init__(specs, random, options)
        self._every = int(_number(options, "every", 2_000, 1, 1e12))

    def chances(self, contexts: list[dict[str, Any]], start: int) -> Floats:
        turns = (start + np.arange(len(contexts))) // self._every
        return np.stack([np.roll(self._chances, turn) for turn in turns])


class Linear:
    """Chances linear in the specs' features: ``base`` (0.3) and weights of size ``scale`` (0.15).

    Cut to 0 to 1. Numbers are even over their range, words over those that the spec names. Subjects
    have the features of all specs, of which each policy sees its own; where no spec has any, they
    have two numbers that no policy sees.
    """

    link: Callable[[Floats], Floats] = staticmethod(lambda score: np.clip(score, 0.0, 1.0))
    base, scale = 0.3, 0.15

    def __init__(
        self, specs: Sequence[Spec], random: np.random.Generator, options: Options
    ) -> None:
        base = _number(options, "base", self.base, -100, 100)
        scale = _number(options, "scale", self.scale, 0, 100)
        subjects = _subjects(specs)
        self._drawn, self._features = subjects.features, Features(subjects)
        self._weights = random.normal(0, scale, (len(subjects.actions), self._features.dimension))
        self._weights[:, 0] += base
        self.notes = _unseen(specs)

    def contexts(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        columns: dict[str, list[Any]] = {}
        for feature in self._drawn:
            if isinstance(feature, Numeric):
                columns[feature.name] = random.uniform(feature.low, feature.high, count).tolist()
            else:
                hashed = [f"word{number}" for number in range(WORDS)]
                words = feature.values if isinstance(feature, Categorical) else hashed
                columns[feature.name] = random.choice(np.array(words), count).tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def chances(self, contexts: list[dict[str, Any]], start: int) -> Floats:
        del start
        rows = np.stack([self._features.vector(context) for context in contexts])
        return type(self).link(rows.astype(np.float64) @ self._weights.T)


class Logistic(Linear):
    """Log-odds linear in the specs' features: ``base`` (-2) and weights of size ``scale`` (1)."""

    link = staticmethod(lambda score: 1.0 / (1.0 + np.exp(-score)))
    base, scale = -2.0, 1.0


ENVIRONMENTS: Final[Mapping[str, type[Any]]] = {
    "bernoulli": Bernoulli,
    "classification": Classification,
    "drifting": Drifting,
    "linear": Linear,
    "logistic": Logistic,
}
"""All of them by name."""


def environment(
    text: str, specs: Sequence[Spec], random: np.random.Generator
) -> tuple[Environment, float]:
    """Make a world.

    Parameters
    ----------
    text
        Its name, then options: ``bernoulli,low=0.01,high=0.03,delay=500``. ``delay`` is the mean
        number of decisions, exponentially distributed, until an outcome can be learned.
    specs
        The policies that are played in it, with the same actions, at least one. Its subjects have
        what any of them has features of.
    random
        What it is made of.

    Returns
    -------
    Environment
        The world.
    float
        The mean delay in decisions.

    Raises
    ------
    SpecError
        If there is no such world, an option isn't its own or out of range, or two specs mean
        different things by one feature.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> spec = parse_spec(
    ...     "{bandit: b, actions: [x, y], policy: {name: uniform}, reward: {name: click}}", "b.yaml"
    ... )
    >>> world, delay = environment("bernoulli,low=0.1,high=0.3", [spec], np.random.default_rng(1))
    >>> sorted(world.chances([{}], 0)[0].tolist()), delay
    ([0.1, 0.3], 0.0)
    """
    name, *pairs = text.split(",")
    if name not in ENVIRONMENTS:
        raise SpecError(f"unknown environment {name!r}; allowed: {', '.join(ENVIRONMENTS)}")
    options = dict(pair.partition("=")[::2] for pair in pairs)
    delay = _number(options, "delay", 0, 0, 1e12)
    world: Environment = ENVIRONMENTS[name](specs, random, options)
    if options:
        raise SpecError(f"environment {name}: it has no option {', '.join(options)}")
    return world, delay


def _number(options: Options, name: str, default: float, low: float, high: float) -> float:
    text = options.pop(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise SpecError(f"environment option {name} is {text!r}; allowed: {low:g} to {high:g}")
    return value


def _subjects(specs: Sequence[Spec]) -> Spec:
    """Give a spec that has the features and interactions of subjects of all these."""
    features: dict[str, Numeric | Categorical | Hashed] = {}
    owners: dict[str, Spec] = {}
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for spec in specs:
        for feature in spec.features:
            known = features.setdefault(feature.name, feature)
            owner = owners.setdefault(feature.name, spec)
            if known != feature:
                raise SpecError(
                    f"feature {feature.name!r} is {_described(known)} for bandit {owner.bandit!r},"
                    f" but {_described(feature)} for {spec.bandit!r}; a world's subjects have one"
                    " of a name: define it alike, or give one of them another name"
                )
        own = {feature.name for feature in spec.features}
        for pair in spec.interactions:
            if own.issuperset(pair):
                pairs.setdefault(frozenset(pair), pair)
    return Spec.model_validate(
        {
            "bandit": specs[0].bandit,
            "actions": specs[0].actions,
            "policy": {"name": "linear_thompson"},
            "reward": {"name": specs[0].reward.name},
            "features": tuple(features.values()) or OWN,
            "interactions": tuple(pairs.values()),
        }
    )


def _described(feature: Numeric | Categorical | Hashed) -> str:
    return str(feature.model_dump(mode="json", exclude={"name"}))


def _unseen(specs: Sequence[Spec]) -> list[str]:
    """Say what distinguishes subjects, but no policy can see."""
    notes = []
    if not any(spec.features for spec in specs):
        notes.append(
            "no spec has features, so subjects have two numbers of the world's own, which no policy"
            " sees"
        )
    sharing = [spec.bandit for spec in specs if spec.action_features]
    if sharing:
        notes.append(
            f"the action_features of {', '.join(map(repr, sharing))} tell nothing in this world:"
            " the weights of each action are its own, so actions have nothing in common"
        )
    return notes
