"""Worlds that answer decisions: what each action would bring, known here and to no policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from bandstand.errors import SpecError
from bandstand.learners.features import Features
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_features import Categorical, Numeric

__all__ = ["ENVIRONMENTS", "Environment", "environment"]

Floats = npt.NDArray[np.float64]
Options = dict[str, str]

WORDS: Final = 20
"""Different words of a hashed feature."""


class Environment(Protocol):
    """A world; all chance comes from the generator that it is given."""

    def contexts(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        """Give the attributes of the next subjects."""

    def chances(self, contexts: list[dict[str, Any]], start: int) -> Floats:
        """Give the chance of a reward of every action, float64[n, K], from decision `start` on."""


class _Anybody:
    """Subjects whom nothing distinguishes."""

    def contexts(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        del random
        return [{}] * count


class Bernoulli(_Anybody):
    """Chances evenly spaced from ``low`` (0.05) to ``high`` (0.15), in an order by the seed."""

    def __init__(self, spec: Spec, random: np.random.Generator, options: Options) -> None:
        low, high = _number(options, "low", 0.05, 0, 1), _number(options, "high", 0.15, 0, 1)
        self._chances = random.permutation(np.linspace(low, high, len(spec.actions)))

    def chances(self, contexts: list[dict[str, Any]], start: int) -> Floats:
        del start
        return np.tile(self._chances, (len(contexts), 1))


class Drifting(Bernoulli):
    """Bernoulli whose actions change places every 2,000 decisions, or ``every``."""

    def __init__(self, spec: Spec, random: np.random.Generator, options: Options) -> None:
        super().__init__(spec, random, options)
        self._every = int(_number(options, "every", 2_000, 1, 1e12))

    def chances(self, contexts: list[dict[str, Any]], start: int) -> Floats:
        turns = (start + np.arange(len(contexts))) // self._every
        return np.stack([np.roll(self._chances, turn) for turn in turns])


class Linear:
    """Chances linear in the spec's features: ``base`` (0.3) and weights of size ``scale`` (0.15).

    Cut to 0 to 1. Numbers are even over their range, words over those that the spec names.
    """

    link: Callable[[Floats], Floats] = staticmethod(lambda score: np.clip(score, 0.0, 1.0))
    base, scale = 0.3, 0.15

    def __init__(self, spec: Spec, random: np.random.Generator, options: Options) -> None:
        base = _number(options, "base", self.base, -100, 100)
        scale = _number(options, "scale", self.scale, 0, 100)
        self._spec, self._features = spec, Features(_with_context(spec))
        self._weights = random.normal(0, scale, (len(spec.actions), self._features.dimension))
        self._weights[:, 0] += base

    def contexts(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        columns: dict[str, list[Any]] = {}
        for feature in self._spec.features:
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
    """Log-odds linear in the spec's features: ``base`` (-2) and weights of size ``scale`` (1)."""

    link = staticmethod(lambda score: 1.0 / (1.0 + np.exp(-score)))
    base, scale = -2.0, 1.0


class Classification:
    """A table with labels, as a bandit: a reward for the action that is the row's label.

    ``file`` is CSV or Parquet, ``label`` its column of labels (label); every other column is an
    attribute. Rows are drawn with replacement.
    """

    def __init__(self, spec: Spec, random: np.random.Generator, options: Options) -> None:
        del random
        path, label = Path(options.pop("file", "")), options.pop("label", "label")
        try:
            read = pa.parquet.read_table if path.suffix == ".parquet" else pa.csv.read_csv
            table: pa.Table = read(path)
            labels = table[label].cast(pa.string()).to_pylist()
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise SpecError(
                f"environment classification: file {str(path)!r} with a column {label!r} can't be"
                f" read: {error}; give classification,file=FILE.csv,label=COLUMN"
            ) from None
        others = {action: number for number, action in enumerate(spec.actions)}
        unknown = sorted(set(labels) - others.keys())
        if unknown:
            raise SpecError(
                f"environment classification: labels {unknown[:5]} of {path} are no actions of"
                f" bandit {spec.bandit!r}; allowed: {', '.join(spec.actions)}"
            )
        numeric = {feature.name for feature in spec.features if isinstance(feature, Numeric)}
        rows = table.drop_columns([label]).to_pylist()
        self._rows = [
            {k: float(v) if k in numeric else str(v) for k, v in row.items() if v is not None}
            for row in rows
        ]
        self._right = np.eye(len(others))[[others[label] for label in labels]]
        self._drawn: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def contexts(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        self._drawn = random.integers(len(self._rows), size=count)
        return [self._rows[row] for row in self._drawn]

    def chances(self, contexts: list[dict[str, Any]], start: int) -> Floats:
        del contexts, start
        return self._right[self._drawn]


ENVIRONMENTS: Final[Mapping[str, type[Any]]] = {
    "bernoulli": Bernoulli,
    "classification": Classification,
    "drifting": Drifting,
    "linear": Linear,
    "logistic": Logistic,
}
"""All of them by name."""


def environment(text: str, spec: Spec, random: np.random.Generator) -> tuple[Environment, float]:
    """Make a world.

    Parameters
    ----------
    text
        Its name, then options: ``bernoulli,low=0.01,high=0.03,delay=500``. ``delay`` is the mean
        number of decisions, exponentially distributed, until an outcome can be learned.
    spec
        Whose actions and features it has.
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
        If there is no such world, or an option isn't its own or out of range.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> spec = parse_spec(
    ...     "{bandit: b, actions: [x, y], policy: {name: uniform}, reward: {name: click}}", "b.yaml"
    ... )
    >>> world, delay = environment("bernoulli,low=0.1,high=0.3", spec, np.random.default_rng(1))
    >>> sorted(world.chances([{}], 0)[0].tolist()), delay
    ([0.1, 0.3], 0.0)
    """
    name, *pairs = text.split(",")
    if name not in ENVIRONMENTS:
        raise SpecError(f"unknown environment {name!r}; allowed: {', '.join(ENVIRONMENTS)}")
    options = dict(pair.partition("=")[::2] for pair in pairs)
    delay = _number(options, "delay", 0, 0, 1e12)
    world: Environment = ENVIRONMENTS[name](spec, random, options)
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


def _with_context(spec: Spec) -> Spec:
    """Give the spec with a policy that has features, so that a world can use them."""
    if spec.policy.contextual:
        return spec
    given = {**spec.model_dump(mode="json"), "policy": {"name": "linear_thompson"}}
    return Spec.model_validate(given)
