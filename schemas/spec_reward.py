"""The section ``reward`` of a spec: how an outcome becomes one number, and how much it counts.

A file with all that may stand here is in ``docs/rewards.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bandstand.schemas.spec_words import Number, Section, Word, refuse_repeats

__all__ = ["Addend", "Aggregate", "Cost", "KeepProbability", "Reward"]

Aggregate = Literal["first", "last", "sum", "max", "min", "mean", "count"]

Weight = Annotated[float, Field(strict=True, ge=-1e9, le=1e9)]
Probability = Annotated[float, Field(strict=True, gt=0, le=1)]


class Addend(BaseModel):
    """Rewards of one name, as a part of the whole.

    Parameters
    ----------
    name
        Which rewards count.
    aggregate
        What is made of several; ``count`` is their number.
    weight
        What the aggregate is multiplied by, -1e9 to 1e9.
    default
        The aggregate where no such reward came.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Word
    aggregate: Aggregate = "first"
    weight: Weight = 1.0
    default: Number = 0.0


class Cost(BaseModel):
    """What is subtracted from the rewards, in the unit of the whole; parts are added up.

    Parameters
    ----------
    actions
        What each action costs; one that isn't here costs nothing.
    action_attribute
        Numeric attribute of the chosen action, among the decision's eligible ones.
    subject_attribute
        Numeric attribute of the decision's subject.
    absent
        What counts where an attribute isn't there. Without it, such outcomes aren't learned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    actions: Mapping[Word, Number] = {}
    action_attribute: Word | None = None
    subject_attribute: Word | None = None
    absent: Number | None = None

    @field_validator("absent")
    @classmethod
    def _of_an_attribute(cls, absent: float | None, info: ValidationInfo) -> float | None:
        attributes = [info.data.get(f"{of}_attribute", True) for of in ("action", "subject")]
        if absent is not None and not any(attributes):
            raise ValueError("is for attributes; give action_attribute or subject_attribute too")
        return absent

    @model_validator(mode="after")
    def _something_costs(self) -> Cost:
        if not (self.actions or self.action_attribute or self.subject_attribute):
            raise ValueError(
                "names nothing that costs; give actions, action_attribute or subject_attribute"
            )
        return self


class KeepProbability(BaseModel):
    """How the share of decisions that a service logs is made up for.

    An outcome that was kept with probability p counts as 1 / p outcomes.

    Parameters
    ----------
    attribute
        Numeric attribute of the decision's subject: p, above 0 and at most 1.
    least
        A smaller p counts as this one, 0.001 to 1: it bounds what one outcome can weigh.
    absent
        What counts where the attribute isn't there. Without it, such outcomes aren't learned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: Word
    least: Annotated[float, Field(strict=True, ge=0.001, le=1)] = 0.01
    absent: Probability | None = None


class Reward(Section):
    """How the raw rewards of an outcome become one number.

    ``weight * aggregate``, and the same of each part of ``plus``, minus the cost, cut to
    ``[low, high]``. What learners see of it is scaled: 0 is ``low``, 1 is ``high``, in steps of
    1/4096, so a range that is far wider than usual values costs resolution.

    Parameters
    ----------
    name, aggregate, weight, default
        As in `Addend`.
    low, high
        Range of the whole, in its own unit; values outside are cut and counted.
    plus
        Rewards that are added, distinct in name and aggregate.
    cost
        What is subtracted.
    activation
        Name of the reward without which a decision doesn't count, whatever its value.
    keep_probability
        With which probability the service logged the decision.
    """

    # What is left out of the canonical text at its default came later: older specs keep their hash.
    name: Word
    aggregate: Aggregate = "first"
    weight: Weight = Field(default=1.0, exclude_if=lambda weight: weight == 1.0)
    plus: tuple[Addend, ...] = Field(default=(), exclude_if=lambda plus: not plus)
    low: Number = 0.0
    high: Number = Field(default=1.0, validate_default=True)
    default: Number = Field(default=0.0, validate_default=True)
    cost: Cost | None = Field(default=None, exclude_if=lambda cost: cost is None)
    activation: Word | None = Field(default=None, exclude_if=lambda name: name is None)
    keep_probability: KeepProbability | None = Field(
        default=None, exclude_if=lambda keep: keep is None
    )

    @cached_property
    def addends(self) -> tuple[Addend, ...]:
        """All parts that are added, the section's own first."""
        own = Addend(
            name=self.name, aggregate=self.aggregate, weight=self.weight, default=self.default
        )
        return (own, *self.plus)

    def scaled(self, value: float) -> float:
        """Give a number of the whole as learners see it: 0 at low, 1 at high."""
        return (value - self.low) / (self.high - self.low)

    @field_validator("plus")
    @classmethod
    def _distinct(cls, plus: tuple[Addend, ...], info: ValidationInfo) -> tuple[Addend, ...]:
        own = [f"{info.data.get('aggregate')} of {info.data.get('name')}"]
        refuse_repeats(own + [f"{part.aggregate} of {part.name}" for part in plus])
        return plus

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
        whole = _nothing_came(default, info)
        if whole is not None and not info.data["low"] <= whole <= info.data["high"]:
            given = "" if whole == default else f"gives {whole:g} where no reward came, which "
            raise ValueError(f"{given}must lie between {_range(info)}")
        return default

    @field_validator("cost")
    @classmethod
    def _affordable(cls, cost: Cost | None, info: ValidationInfo) -> Cost | None:
        whole = _nothing_came(info.data.get("default"), info)
        for action, price in cost.actions.items() if cost and whole is not None else ():
            if whole is not None and not info.data["low"] <= whole - price <= info.data["high"]:
                raise ValueError(
                    f"leaves {whole - price:g} of {action!r} where no reward came, which must lie"
                    f" between {_range(info)}; widen the range"
                )
        return cost


def _nothing_came(default: float | None, info: ValidationInfo) -> float | None:
    """Give what an outcome without rewards is worth; None if a mistake was found before."""
    if default is None or not {"weight", "plus", "low", "high"} <= info.data.keys():
        return None
    return float(
        sum((a.weight * a.default for a in info.data["plus"]), info.data["weight"] * default)
    )


def _range(info: ValidationInfo) -> str:
    return f"low ({info.data['low']:g}) and high ({info.data['high']:g})"
