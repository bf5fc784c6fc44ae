"""Features of a spec: of subjects, of actions, and their products; and their columns.

A feature definition says how attributes turn into numbers. The hash of a subject's goes with every
logged vector, so that a learner knows whether it may use the vector as it stands.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from bandstand.schemas.spec_words import Number, Word, refuse_repeats, without

__all__ = [
    "ENCODING",
    "INTERCEPT",
    "ActionCategorical",
    "ActionFeature",
    "ActionNumeric",
    "Categorical",
    "Feature",
    "Hashed",
    "Interaction",
    "Numeric",
    "checked_action_features",
    "checked_interactions",
    "column_names",
    "column_ranges",
    "product_names",
]

ENCODING = 1
"""Version of the rules by which features become columns; part of the features' hash."""

INTERCEPT = "intercept"
"""Name of the first column, which is always 1."""

NARROWEST = 2 * sys.float_info.min
"""Least width of a range, half of which is still a normal number."""

FeatureName = Annotated[Word, Field(pattern=r"^[^=#*]+$")]


class _Feature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: FeatureName

    @field_validator("name")
    @classmethod
    def _not_the_intercept(cls, name: str) -> str:
        if name == INTERCEPT:
            raise ValueError("is the name of the built-in column of ones; take another name")
        return name


class Numeric(_Feature):
    """A number, scaled so that ``low`` becomes -1 and ``high`` becomes 1.

    Parameters
    ----------
    low, high
        Usual range, in the attribute's own unit; low < high, by 4.5e-308 at least. Values outside
        are scaled alike and are cut only at 16 ranges from the middle, so the range need not be
        sharp.
    """

    kind: Literal["numeric"] = "numeric"
    low: Number
    high: Number

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: float, info: ValidationInfo) -> float:
        low = info.data.get("low")
        if low is not None and not NARROWEST <= high - low < math.inf:
            raise ValueError(
                f"must be greater than low ({low:g}), by {NARROWEST:.2g} at least and by a finite"
                " amount, so that it can be divided by"
            )
        return high

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it becomes: one."""
        return (self.name,)


class Categorical(_Feature):
    """One of a few known words: a column for each, 1 where it is that word.

    Parameters
    ----------
    values
        The words, in the order of their columns. Any other word gives zeros in all of them.
    """

    kind: Literal["categorical"] = "categorical"
    values: tuple[Word, ...]

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return refuse_repeats(values, least=1)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it becomes: ``name=value`` for each value."""
        return tuple(f"{self.name}={value}" for value in self.values)


class Hashed(_Feature):
    """One of very many words: a column for each hash bucket, 1 in the bucket of the word.

    Parameters
    ----------
    buckets
        Number of columns, 2 to 4096. Words that share a bucket can't be told apart.
    """

    kind: Literal["hashed"] = "hashed"
    buckets: Annotated[int, Field(strict=True, ge=2, le=4096)]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it becomes: ``name#bucket`` for each bucket."""
        return tuple(f"{self.name}#{bucket}" for bucket in range(self.buckets))


class ActionNumeric(Numeric):
    """A number that each action has.

    Parameters
    ----------
    of
        Every action's, in the unit of `low` and `high`.
    """

    of: dict[Word, Number]


class ActionCategorical(Categorical):
    """A word that each action has.

    Parameters
    ----------
    of
        Every action's; one of `values`.
    """

    of: dict[Word, Word]

    @field_validator("of")
    @classmethod
    def _known(cls, of: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        values: tuple[str, ...] = info.data.get("values") or ()
        wrong = sorted(set(without(of.values(), values)))
        if values and wrong:
            raise ValueError(
                f"has words that aren't among values: {', '.join(map(repr, wrong))}; allowed:"
                f" {', '.join(values)}"
            )
        return of


Feature = Annotated[Numeric | Categorical | Hashed, Field(discriminator="kind")]

ActionFeature = Annotated[ActionNumeric | ActionCategorical, Field(discriminator="kind")]

Interaction = tuple[Word, Word]
"""Names of two features whose columns are multiplied, each with each."""

_Features = Sequence[Numeric | Categorical | Hashed]
_Actions = Sequence[ActionNumeric | ActionCategorical]


def column_names(
    features: _Features, interactions: Sequence[tuple[str, str]] = ()
) -> tuple[str, ...]:
    """Name a subject's columns: the intercept, each feature's in the order of the spec, products.

    Parameters
    ----------
    features
        Of the subject.
    interactions
        Those of two of these features give columns; others are passed over.

    Examples
    --------
    >>> age, page = Numeric(name="age", low=0, high=100), Hashed(name="page", buckets=2)
    >>> column_names((age, page), [("age", "page")])
    ('intercept', 'age', 'page#0', 'page#1', 'age*page#0', 'age*page#1')
    """
    single = (INTERCEPT, *(column for feature in features for column in feature.columns))
    return (*single, *product_names(features, features, interactions))


def column_ranges(features: _Features, start: int = 0) -> dict[str, range]:
    """Give the columns of each feature by its name, the first of all at `start`."""
    ranges: dict[str, range] = {}
    for feature in features:
        ranges[feature.name] = range(start, start + len(feature.columns))
        start += len(feature.columns)
    return ranges


def product_names(
    lefts: _Features, rights: _Features, interactions: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Name the products ``left*right`` of the interactions of two lists of features."""
    left, right = ({f.name: f.columns for f in side} for side in (lefts, rights))
    for first, second in interactions:
        if first in left and second in right:
            yield from (f"{one}*{two}" for one in left[first] for two in right[second])


def own_columns(given: _Actions, actions: Sequence[str]) -> dict[str, int]:
    """Find, for each action that has one, the first column of a word that no other action has.

    Examples
    --------
    >>> of = {"a": "warm", "b": "cold", "c": "cold"}
    >>> sort = ActionCategorical(name="sort", kind="categorical", values=("warm", "cold"), of=of)
    >>> price = ActionNumeric(name="price", kind="numeric", low=0, high=4, of=dict.fromkeys(of, 1))
    >>> own_columns((price, sort), ("a", "b", "c")), own_columns((price, sort), ("a", "b"))
    ({'a': 1}, {'a': 1, 'b': 2})
    """
    found: dict[str, int] = {}
    start = 0
    for feature in given:
        if isinstance(feature, ActionCategorical):
            owners: dict[str, list[str]] = {word: [] for word in feature.values}
            for action in actions:
                owners[feature.of[action]].append(action)
            for column, word in enumerate(feature.values, start):
                if len(owners[word]) == 1:
                    found.setdefault(owners[word][0], column)
        start += len(feature.columns)
    return found


def checked_action_features(given: _Actions, actions: Sequence[str], features: _Features) -> None:
    """Check that features of actions have names of their own, and a value for each action.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    refuse_repeats([feature.name for feature in [*features, *given]])
    for feature in given:
        missing, unknown = without(actions, feature.of), without(feature.of, actions)
        if missing or unknown:
            found = [f"misses {', '.join(map(repr, missing))}"] if missing else []
            found += [f"has {', '.join(map(repr, unknown))}, no action"] if unknown else []
            raise ValueError(f"of {feature.name!r} {' and '.join(found)}; give each action's value")


def checked_interactions(
    pairs: Sequence[tuple[str, str]], features: _Features, actions: _Actions
) -> tuple[tuple[str, str], ...]:
    """Check interactions, and give each with the subject's feature first.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    subjects = [feature.name for feature in features]
    others = [feature.name for feature in actions]
    turned: list[tuple[str, str]] = []
    for pair in pairs:
        first, second = pair if pair[0] in subjects else pair[::-1]
        unknown = [name for name in pair if name not in [*subjects, *others]]
        if unknown:
            raise ValueError(
                f"names {unknown[0]!r}, which is no feature; allowed:"
                f" {', '.join([*subjects, *others])}"
            )
        if first not in subjects:
            raise ValueError(
                f"multiplies {first!r} and {second!r}, both of actions; give their product as a"
                " feature of its own"
            )
        if (first, second) in turned or (second, first) in turned:
            raise ValueError(f"has {first!r} with {second!r} twice; remove one")
        turned.append((first, second))
    return tuple(turned)
