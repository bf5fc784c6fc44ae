"""The sections of a spec for a cold start: what is believed before any data, and new actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from bandstand.schemas.spec_features import ActionCategorical, ActionNumeric, own_columns
from bandstand.schemas.spec_policy import PolicySpec
from bandstand.schemas.spec_reward import Reward
from bandstand.schemas.spec_words import Number, Word, without

__all__ = ["Belief", "NewActions", "Prior", "check_prior"]

Strength = Annotated[float, Field(strict=True, ge=0.1, le=1e9)]


class Belief(BaseModel):
    """What an action is expected to bring.

    Parameters
    ----------
    mean
        Expected reward, in the reward's own unit and range.
    strength
        Outcomes that this is worth, 0.1 to 1e9.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Number
    strength: Strength


class Prior(BaseModel):
    """What is believed before any data; it takes the place of the policy's own prior.

    Parameters
    ----------
    mean, strength
        The belief about every action that isn't among `actions`, such as a base rate; both or none.
    actions
        Beliefs about single actions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Number | None = None
    strength: Strength | None = Field(default=None, validate_default=True)
    actions: Mapping[Word, Belief] = Field(default={}, validate_default=True)

    @field_validator("strength")
    @classmethod
    def _both(cls, strength: float | None, info: ValidationInfo) -> float | None:
        if "mean" in info.data and (info.data["mean"] is None) != (strength is None):
            raise ValueError("needs a mean beside it, and a mean a strength; give both or none")
        return strength

    @field_validator("actions")
    @classmethod
    def _something(
        cls, actions: Mapping[str, Belief], info: ValidationInfo
    ) -> Mapping[str, Belief]:
        if not actions and info.data.get("mean", 0) is None:
            raise ValueError("must say something where mean isn't given")
        return actions

    def beliefs(self, actions: tuple[str, ...]) -> list[Belief | None]:
        """Give the belief about each action; None where the policy's own prior holds.

        Examples
        --------
        >>> Prior(actions={"b": {"mean": 0.5, "strength": 3}}).beliefs(("a", "b"))
        [None, Belief(mean=0.5, strength=3.0)]
        """
        rest = None
        if self.mean is not None and self.strength is not None:
            rest = Belief(mean=self.mean, strength=self.strength)
        return [self.actions.get(action, rest) for action in actions]


def check_prior(
    prior: Prior,
    actions: tuple[str, ...],
    policy: PolicySpec,
    reward: Reward,
    features: Sequence[ActionNumeric | ActionCategorical],
) -> None:
    """Check that a policy can believe what a prior says of a spec's actions.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    unknown = without(prior.actions, actions)
    if unknown:
        raise ValueError(
            f"speaks of unknown actions: {', '.join(map(repr, unknown))};"
            f" allowed: {', '.join(actions)}"
        )
    if not policy.informed:
        raise ValueError(f"can't be used: {policy.name} has no prior; remove it")
    apart = set(actions if policy.own_weights else own_columns(features, actions))
    for action, belief in zip(actions, prior.beliefs(actions), strict=True):
        if belief is None:
            continue
        if not reward.low <= belief.mean <= reward.high:
            raise ValueError(
                f"expects {belief.mean:g} of {action!r}, which must lie between the"
                f" reward's low ({reward.low:g}) and high ({reward.high:g})"
            )
        if action not in apart:
            raise ValueError(
                f"speaks of {action!r}, but all weights of {policy.name} are shared, and no word of"
                f" a categorical feature is that of {action!r} alone: others would be believed the"
                " same; give it one, or take hybrid_lin_ucb"
            )
        policy.check_belief(action, reward.scaled(belief.mean), belief.strength)


class NewActions(BaseModel):
    """What an action gets until it is known.

    Parameters
    ----------
    share
        Least probability of an eligible action with fewer outcomes, above 0 to 1 / number of
        actions.
    outcomes
        How many it takes, 1 to 1e9.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: Annotated[float, Field(strict=True, gt=0, le=1)]
    outcomes: Annotated[int, Field(strict=True, ge=1, le=10**9)]
