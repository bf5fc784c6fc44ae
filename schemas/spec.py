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
    interactions: [[age, country]]  # their columns are multiplied, each with each
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
      default: 0                    # where no reward came; more: docs/rewards.md
    forget: {half_life: 30d}        # or {window: 90d}; without it, all outcomes count for good
    floor: 0.01                     # least probability of every eligible action

A policy whose actions share weights takes features of actions too::

    action_features:
      - {name: price, kind: numeric, low: 0, high: 20, of: {spring: 5, summer: 12, plain: 0}}
    interactions: [[age, price]]

Only ``bandit``, ``actions``, ``policy`` (its name) and ``reward`` (its name) have to be there.
Scalars are those of YAML 1.2: ``no`` is a word, ``1e-3`` a number.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from bandstand.errors import SpecError
from bandstand.schemas.spec_drift import Drift, Moment, Widened, moment_ms
from bandstand.schemas.spec_features import (
    ENCODING,
    ActionCategorical,
    ActionFeature,
    ActionNumeric,
    Categorical,
    Feature,
    Hashed,
    Interaction,
    Numeric,
    checked_action_features,
    checked_interactions,
    column_names,
)
from bandstand.schemas.spec_forget import Forget
from bandstand.schemas.spec_policy import Policy, learner
from bandstand.schemas.spec_prior import NewActions, Prior, check_prior
from bandstand.schemas.spec_reward import Reward
from bandstand.schemas.spec_smoothing import Smoothing
from bandstand.schemas.spec_words import Name, Number, Section, Word, refuse_repeats, without
from bandstand.schemas.spec_yaml import Document, describe, read_yaml

__all__ = [
    "MOST_ACTIONS",
    "Categorical",
    "Hashed",
    "Numeric",
    "Reward",
    "Spec",
    "load_spec",
    "parse_spec",
]

MOST_ACTIONS: Final = 10_000
"""A decision says the probability of each, 29 bytes with names of 14: 0.3 MB for so many."""


class Spec(Section):
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
        What it may do, in the order of the arrays' action axis; distinct, up to 10,000.
    policy
        How it chooses, with parameters.
    reward
        What is to be maximised.
    features
        What it knows about a subject; none for a policy without context.
    action_features
        What it knows about actions; only for a policy whose actions share weights, which needs it.
    interactions
        Pairs of features whose columns are multiplied, each with each: two of the subject, or one
        of the subject and one of the actions.
    forget
        How long an outcome counts; for good by default.
    since
        Outcomes of decisions before this aren't learned.
    drift
        How a change of rewards is noticed, and what it leads to.
    floor
        Least probability of every eligible action, 0 to 1 / number of actions.
    widened
        A higher floor for a while.
    smoothing
        How far a snapshot's probabilities may lie from those of the one before.
    prior
        What is believed of the actions before any data, instead of the policy's own prior.
    new_actions
        What an action gets until it has had enough outcomes.

    Examples
    --------
    >>> text = "{bandit: a, actions: [x, y], policy: {name: beta_thompson}, reward: {name: click}}"
    >>> spec = parse_spec(text, "a.yaml")
    >>> spec.actions
    ('x', 'y')
    >>> Spec.from_canonical(spec.canonical()) == spec
    True
    """

    # What is left out of the canonical text at its default came later: older specs keep their hash.
    bandit: Name
    description: str = ""
    lane: Name = "default"
    actions: tuple[Word, ...]
    policy: Policy
    reward: Reward
    features: tuple[Feature, ...] = ()
    action_features: tuple[ActionFeature, ...] = Field(
        default=(), validate_default=True, exclude_if=lambda given: not given
    )
    interactions: tuple[Interaction, ...] = Field(default=(), exclude_if=lambda pairs: not pairs)
    forget: Forget | None = Field(default=None, exclude_if=lambda forget: forget is None)
    since: Moment | None = Field(default=None, exclude_if=lambda since: since is None)
    drift: Drift | None = Field(default=None, exclude_if=lambda drift: drift is None)
    floor: Number = 0.0
    widened: Widened | None = Field(default=None, exclude_if=lambda widened: widened is None)
    smoothing: Smoothing | None = Field(default=None, exclude_if=lambda bound: bound is None)
    prior: Prior | None = Field(default=None, exclude_if=lambda prior: prior is None)
    new_actions: NewActions | None = Field(default=None, exclude_if=lambda new: new is None)

    @field_validator("actions")
    @classmethod
    def _distinct_actions(cls, actions: tuple[str, ...]) -> tuple[str, ...]:
        return refuse_repeats(actions, least=1, most=MOST_ACTIONS)

    @field_validator("reward")
    @classmethod
    def _of_this_bandit(cls, reward: Reward, info: ValidationInfo) -> Reward:
        known, policy = info.data.get("actions"), info.data.get("policy")
        costs = reward.cost.actions if reward.cost and known is not None else ()
        unknown = without(costs, known or ())
        if unknown:
            raise ValueError(
                f"has a cost of unknown actions: {', '.join(map(repr, unknown))};"
                f" allowed: {', '.join(known or ())}"
            )
        if reward.keep_probability and policy and not hasattr(learner(policy.name), "weighted"):
            raise ValueError(f"has a keep_probability, but {policy.name} can't weigh outcomes")
        return reward

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

    @field_validator("action_features")
    @classmethod
    def _usable_action_features(
        cls, given: tuple[ActionNumeric | ActionCategorical, ...], info: ValidationInfo
    ) -> tuple[ActionNumeric | ActionCategorical, ...]:
        policy = info.data.get("policy")
        if policy is not None and given and not policy.shares_weights:
            raise ValueError(
                f"{policy.name} has weights of its own for each action, to which its features add"
                " nothing; remove them, or take a policy that shares weights, such as"
                " shared_linear_thompson"
            )
        if policy is not None and policy.shares_weights and not given:
            raise ValueError(
                f"must have at least one: {policy.name} shares weights between actions, and can't"
                " tell them apart without"
            )
        if "actions" in info.data and "features" in info.data:
            checked_action_features(given, info.data["actions"], info.data["features"])
        return given

    @field_validator("interactions")
    @classmethod
    def _usable_interactions(
        cls, pairs: tuple[tuple[str, str], ...], info: ValidationInfo
    ) -> tuple[tuple[str, str], ...]:
        if "features" not in info.data or "action_features" not in info.data:
            return pairs
        return checked_interactions(pairs, info.data["features"], info.data["action_features"])

    @field_validator("forget")
    @classmethod
    def _can_forget(cls, forget: Forget | None, info: ValidationInfo) -> Forget | None:
        policy = info.data.get("policy")
        if forget and policy and not hasattr(learner(policy.name), "sums"):
            raise ValueError(
                f"{policy.name} keeps a chain of outcomes, from which none can be taken back;"
                " remove it, or take another policy"
            )
        return forget

    @field_validator("drift")
    @classmethod
    def _can_act(cls, drift: Drift | None, info: ValidationInfo) -> Drift | None:
        if drift is None:
            return drift
        forget, reward = info.data.get("forget"), info.data.get("reward")
        if drift.act == "half_life" and "forget" in info.data and not (forget and forget.half_life):
            raise ValueError("shortens the half-life, but the spec has no forget: {half_life: …}")
        if reward is not None and reward.keep_probability is not None:
            raise ValueError("can't be looked for where outcomes have weights (keep_probability)")
        most = 1.0 / len(info.data["actions"]) if info.data.get("actions") else 1.0
        if drift.floor is not None and drift.floor > most:
            raise ValueError(f"has a floor above 1 / number of actions ({most:g})")
        return drift

    @field_validator("widened")
    @classmethod
    def _widens(cls, widened: Widened | None, info: ValidationInfo) -> Widened | None:
        most = 1.0 / len(info.data["actions"]) if info.data.get("actions") else 1.0
        if widened is not None and widened.floor > most:
            raise ValueError(f"has a floor above 1 / number of actions ({most:g})")
        return widened

    @field_validator("floor")
    @classmethod
    def _leaves_room(cls, floor: float, info: ValidationInfo) -> float:
        most = 1.0 / len(info.data["actions"]) if info.data.get("actions") else 1.0
        if not 0.0 <= floor <= most:
            raise ValueError(f"must lie between 0 and 1 / number of actions ({most:g})")
        return floor

    @field_validator("prior")
    @classmethod
    def _believable(cls, prior: Prior | None, info: ValidationInfo) -> Prior | None:
        known = ("actions", "policy", "reward", "action_features")
        if prior is not None and info.data.keys() >= set(known):
            check_prior(prior, *(info.data[name] for name in known))
        return prior

    @field_validator("new_actions")
    @classmethod
    def _room_to_try(cls, new: NewActions | None, info: ValidationInfo) -> NewActions | None:
        actions, policy = info.data.get("actions"), info.data.get("policy")
        if new is None or not actions or policy is None:
            return new
        if new.share * len(actions) > 1.0:
            raise ValueError(
                f"has a share of {new.share:g}; allowed: up to 1 / number of actions"
                f" ({1 / len(actions):g})"
            )
        if not getattr(learner(policy.name), "actions_apart", False):
            raise ValueError(f"can't be used: {policy.name} doesn't count the actions' outcomes")
        return new

    def __eq__(self, other: object) -> bool:
        """Compare texts, found once: specs are keys of caches on the way of every batch."""
        return self is other or (isinstance(other, Spec) and self.hash == other.hash)

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(self.hash)

    @property
    def evaluable(self) -> bool:
        """Whether its logs can be used to evaluate other policies: any action may be taken."""
        return self.floor > 0.0 or self.policy.explores

    def at(self, newest: int | None) -> Spec:
        """Give the spec as it decides once an outcome of that decision time is known.

        Parameters
        ----------
        newest
            Newest decision time among the outcomes learned, ms since 1970; None if there is none.
        """
        widened = self.widened
        if widened is None or (newest is not None and newest >= moment_ms(widened.until)):
            return self
        return self.model_copy(update={"floor": max(self.floor, widened.floor)})

    def canonical(self) -> str:
        """Give the one JSON text of this spec: sorted keys, no spaces, defaults filled in."""
        return self._text

    @cached_property
    def _text(self) -> str:
        return _canonical(self.model_dump(mode="json"))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text, hexadecimal."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @cached_property
    def features_hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all that the feature columns depend on."""
        features = [feature.model_dump(mode="json") for feature in self.features]
        own = {feature.name for feature in self.features}
        products = [pair for pair in self.interactions if own.issuperset(pair)]
        columns = {"encoding": ENCODING, "features": features}
        text = _canonical({**columns, "products": products} if products else columns)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of a subject's columns, the intercept first; none for a policy without context."""
        return column_names(self.features, self.interactions) if self.policy.contextual else ()

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
        document = Document("canonical spec", _data(text))
        raise _refusal(document.source, describe(error, document, Spec)) from error


def _data(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _refusal(source: str, problems: list[str]) -> SpecError:
    if len(problems) == 1:
        return SpecError(problems[0])
    return SpecError(f"{source} has {len(problems)} mistakes:\n  " + "\n  ".join(problems))
