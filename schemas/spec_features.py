"""Context features of a spec: what they are, and the columns that they become.

A feature definition says how a subject's attributes turn into numbers. Its hash goes with every
logged vector, so that a learner knows whether it may use the vector as it stands.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from bandstand.schemas.spec_words import Number, Word, refuse_repeats

__all__ = ["ENCODING", "INTERCEPT", "Categorical", "Feature", "Hashed", "Numeric", "column_names"]

ENCODING = 1
"""Version of the rules by which features become columns; part of the features' hash."""

INTERCEPT = "intercept"
"""Name of the first column, which is always 1."""

FeatureName = Annotated[Word, Field(pattern=r"^[^=#]+$")]


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
        Usual range, in the attribute's own unit; low < high. Values outside are scaled alike and
        are cut only at 16 ranges from the middle, so the range need not be sharp.
    """

    kind: Literal["numeric"] = "numeric"
    low: Number
    high: Number

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: float, info: ValidationInfo) -> float:
        low = info.data.get("low")
        if low is not None and not (low < high and math.isfinite(high - low)):
            raise ValueError(f"must be greater than low ({low:g}), by a finite amount")
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


Feature = Annotated[Numeric | Categorical | Hashed, Field(discriminator="kind")]


def column_names(features: tuple[Numeric | Categorical | Hashed, ...]) -> tuple[str, ...]:
    """Names of all columns, the intercept first, then each feature's in the order of the spec.

    Examples
    --------
    >>> column_names((Numeric(name="age", low=0, high=100), Hashed(name="page", buckets=2)))
    ('intercept', 'age', 'page#0', 'page#1')
    """
    return (INTERCEPT, *(column for feature in features for column in feature.columns))
