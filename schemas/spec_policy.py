"""The policies that a spec may name: each is described by the learner behind its name.

Learners are found by the entry points of the group ``bandstand.learners``, Bandstand's own as well
as others': the entry point's name is the policy's, its value a class without arguments that follows
`bandstand.learners.protocols.Learner`. None is loaded before a spec names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny
from pydantic_core import PydanticCustomError

from bandstand.errors import SpecError

__all__ = [
    "GROUP",
    "NotNegative",
    "Policy",
    "PolicySpec",
    "Positive",
    "Share",
    "learner",
    "learner_names",
]

GROUP: Final = "bandstand.learners"

Positive = Annotated[float, Field(strict=True, ge=1e-9, le=1e9)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=1e6)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]


class PolicySpec(BaseModel):
    """The section ``policy`` of a spec; a learner's own parameters are a subclass.

    Parameters
    ----------
    name
        Which learner.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    contextual: ClassVar[bool] = False
    """Whether it learns from the features of a spec."""
    shares_weights: ClassVar[bool] = False
    """Whether it has weights that actions share, told apart by features of actions."""
    own_weights: ClassVar[bool] = True
    """Whether each action has something of its own; else a belief needs a feature that does."""
    needs_propensity: ClassVar[bool] = False
    """Whether an outcome teaches nothing without the propensity of its action."""
    informed: ClassVar[bool] = False
    """Whether it takes a spec's beliefs about its actions, see `Prior`."""

    name: str

    def check_belief(self, action: str, mean: float, strength: float) -> None:
        """Refuse a belief that this policy can't hold, by a ValueError; `mean` is scaled."""

    @property
    def explores(self) -> bool:
        """Whether every action keeps a positive probability, or nearly so, without a floor."""
        return True

    @classmethod
    def chosen(cls, section: object) -> type[PolicySpec]:
        """Give the model of a section of a spec; this one where its name isn't known."""
        name = section.get("name") if isinstance(section, Mapping) else None
        return learner(name).parameters if name in learner_names() else cls


@cache
def _found() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def learner_names() -> list[str]:
    """Give the names of all policies that a spec may have."""
    return sorted(_found())


@cache
def learner(name: str) -> Any:
    """Give the learner of a name.

    Raises
    ------
    SpecError
        If there is none, several packages have one, or it can't be loaded.

    Examples
    --------
    >>> learner("beta_thompson").parameters().name
    'beta_thompson'
    """
    points = _found().get(name, [])
    if len(points) != 1:
        where = ", ".join(str(point.dist and point.dist.name) for point in points)
        raise SpecError(
            f"policy {name!r} is in several packages: {where}; remove all but one"
            if points
            else f"unknown policy {name!r}; allowed: {', '.join(learner_names())}"
        )
    try:
        loaded = points[0].load()()
    except Exception as error:
        raise SpecError(
            f"policy {name!r} can't be loaded from {points[0].value!r}: {error!r}"
        ) from error
    model = getattr(loaded, "parameters", None)
    if not (isinstance(model, type) and issubclass(model, PolicySpec)):
        raise SpecError(
            f"policy {name!r}: {points[0].value!r} is no learner: its 'parameters' must be a"
            " subclass of PolicySpec"
        )
    return loaded


def _parsed(section: object) -> PolicySpec:
    if isinstance(section, PolicySpec):
        return section
    if not isinstance(section, Mapping):
        raise PydanticCustomError("dict_type", "isn't a mapping")
    name = section.get("name")
    if name not in learner_names():
        raise PydanticCustomError(
            "unknown_name", "unknown name", {"given": name, "allowed": learner_names()}
        )
    parsed: PolicySpec = learner(name).parameters.model_validate(dict(section))
    return parsed


Policy = Annotated[SerializeAsAny[PolicySpec], BeforeValidator(_parsed)]
