"""The spec of a bandit: one YAML file, read whole or refused with every mistake named.

A complete file::

    bandit: homepage                # ASCII letters, digits, dot, underscore, hyphen
    description: Banner on the front page
    lane: default                   # its topics, and so its attribution window
    actions: [spring, summer, plain]
    features:                       # attributes of the subject; the order is that of the columns
      - {name: age, kind: numeric, low: 18, high: 90}
      - {name: country, kind: categorical, values: [ch, de, no]}
      - {name: referrer, kind: hashed, buckets: 16}
    policy:
      name: linear_thompson         # docs/learners.md has them all
      prior_precision: 1.0
      noise_variance: 0.25
      exploration: 1.0
    reward:
      name: click                   # rewards with other names don't count
      aggregate: first              # first, last, sum, max, min, mean, count
      low: 0                        # range of the aggregate; values outside are cut and counted
      high: 1
      default: 0                    # where no reward came
    floor: 0.01                     # least probability of every eligible action

Only ``bandit``, ``actions``, ``policy`` (its name) and ``reward`` (its name) have to be there.
Scalars are those of YAML 1.2: ``no`` is a word, ``1e-3`` a number.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from bandstand.errors import SpecError
from bandstand.schemas.spec_features import (
    ENCODING,
    Categorical,
    Feature,
    Hashed,
    Numeric,
    column_names,
)
from bandstand.schemas.spec_policy import Policy
from bandstand.schemas.spec_words import Name, Number, Word, refuse_repeats
from bandstand.schemas.spec_yaml import Document, describe, read_yaml

__all__ = [
    "Categorical",
    "Hashed",
    "Numeric",
    "Reward",
    "Spec",
    "load_spec",
    "parse_spec",
]


class Reward(BaseModel):
    """How the raw rewards of an outcome become one number.

    Parameters
    ----------
    name
        Which rewards count.
    aggregate
        What is made of several; ``count`` is their number.
    low, high
        Range of the aggregate, in the reward's own unit; values outside are cut and counted.
    default
        The number where no reward came; in [low, high].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Word
    aggregate: Literal["first", "last", "sum", "max", "min", "mean", "count"] = "first"
    low: Number = 0.0
    high: Number = Field(default=1.0, validate_default=True)
    default: Number = Field(default=0.0, validate_default=True)

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: float, info: ValidationInfo) -> float:
        low = info.data.get("low")
        if low is not None and not (low < high and high - low < float("inf")):
            raise ValueError(f"must be greater than low ({low:g}), by a finite amount")
        return high

    @field_validator("default")
    @classmethod
    def _in_range(cls, default: float, info: ValidationInfo) -> float:
        low, high = info.data.get("low"), info.data.get("high")
        if low is not None and high is not None and not low <= default <= high:
            raise ValueError(f"must lie between low ({low:g}) and high ({high:g})")
        return default


class Spec(BaseModel):
    """One bandit, as its owner wants it.

    Parameters
    ----------
    bandit
        Its name.
    description
        For people.
    lane
        Lane of its events.
    actions
        What it may do, in the order of the arrays' action axis; distinct.
    policy
        How it chooses, with parameters.
    reward
        What is to be maximised.
    features
        What it knows about a subject; none for a policy without context.
    floor
        Least probability of every eligible action, 0 to 1 / number of actions.

    Examples
    --------
    >>> text = "{bandit: a, actions: [x, y], policy: {name: beta_thompson}, reward: {name: click}}"
    >>> spec = parse_spec(text, "a.yaml")
    >>> spec.actions
    ('x', 'y')
    >>> Spec.from_canonical(spec.canonical()) == spec
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bandit: Name
    description: str = ""
    lane: Name = "default"
    actions: tuple[Word, ...]
    policy: Policy
    reward: Reward
    features: tuple[Feature, ...] = ()
    floor: Number = 0.0

    @field_validator("actions")
    @classmethod
    def _distinct_actions(cls, actions: tuple[str, ...]) -> tuple[str, ...]:
        return refuse_repeats(actions, least=1)

    @field_validator("features")
    @classmethod
    def _usable_features(
        cls, features: tuple[Numeric | Categorical | Hashed, ...], info: ValidationInfo
    ) -> tuple[Numeric | Categorical | Hashed, ...]:
        refuse_repeats([feature.name for feature in features])
        policy = info.data.get("policy")
        if features and policy is not None and not policy.contextual:
            raise ValueError(
                f"{policy.name} learns without context; remove the features, or take a policy"
                " with context, such as linear_thompson"
            )
        return features

    @field_validator("floor")
    @classmethod
    def _leaves_room(cls, floor: float, info: ValidationInfo) -> float:
        most = 1.0 / len(info.data["actions"]) if info.data.get("actions") else 1.0
        if not 0.0 <= floor <= most:
            raise ValueError(f"must lie between 0 and 1 / number of actions ({most:g})")
        return floor

    @property
    def evaluable(self) -> bool:
        """Whether its logs can be used to evaluate other policies: any action may be taken."""
        return self.floor > 0.0 or self.policy.explores

    def canonical(self) -> str:
        """Give the one JSON text of this spec: all fields, sorted keys, no spaces."""
        return _canonical(self.model_dump(mode="json"))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text, hexadecimal."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @cached_property
    def features_hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all that the feature columns depend on."""
        features = [feature.model_dump(mode="json") for feature in self.features]
        text = _canonical({"encoding": ENCODING, "features": features})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the feature columns, the intercept first; none for a policy without context."""
        return column_names(self.features) if self.policy.contextual else ()

    @staticmethod
    def from_canonical(text: str) -> Spec:
        """Read the canonical text back.

        Raises
        ------
        SpecError
            If it isn't the text of a spec that this version knows.
        """
        return _from_canonical(text)


def load_spec(path: str | Path) -> Spec:
    """Read a spec from a YAML file.

    Raises
    ------
    SpecError
        If the file can't be read, or with all mistakes that are in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: can't be read: {error}; give a UTF-8 YAML file") from error
    return parse_spec(text, str(path))


def parse_spec(text: str, source: str) -> Spec:
    """Read a spec from YAML text.

    Parameters
    ----------
    text
        YAML; see the head of this module.
    source
        What to call it in errors, e.g. the file's path.

    Raises
    ------
    SpecError
        Naming, for every mistake, source, line, value and what is allowed.
    """
    document = read_yaml(text, source)
    try:
        spec = Spec.model_validate(document.data)
    except ValidationError as error:
        raise _refusal(source, [*document.problems, *describe(error, document, Spec)]) from error
    if document.problems:
        raise _refusal(source, document.problems)
    return spec


@lru_cache(maxsize=4096)
def _from_canonical(text: str) -> Spec:
    try:
        return Spec.model_validate_json(text)
    except ValidationError as error:
        source = "canonical spec"
        raise _refusal(source, describe(error, Document(source), Spec)) from error


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _refusal(source: str, problems: list[str]) -> SpecError:
    if len(problems) == 1:
        return SpecError(problems[0])
    return SpecError(f"{source} has {len(problems)} mistakes:\n  " + "\n  ".join(problems))
