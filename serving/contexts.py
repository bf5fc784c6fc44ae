"""What a service may say about a subject, brought into the form that is logged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Final, NamedTuple

import numpy as np

from bandstand.errors import DecisionError

__all__ = ["NO_ATTRIBUTES", "Attributes", "split_context"]


class Attributes(NamedTuple):
    """A subject's attributes, by kind; no name is in both."""

    numeric: Mapping[str, float]
    categorical: Mapping[str, str]

    def merged(self) -> Mapping[str, float | str]:
        """Give all of them in one mapping."""
        return {**self.numeric, **self.categorical} if self.categorical else self.numeric


NO_ATTRIBUTES: Final = Attributes({}, {})


def split_context(context: Mapping[str, object] | None) -> Attributes:
    """Split a context into numbers and words.

    Parameters
    ----------
    context
        Attribute name to a number, a truth value (1 or 0) or a string.

    Raises
    ------
    DecisionError
        If a value is anything else, or not finite; names its key.

    Examples
    --------
    >>> split_context({"age": 41, "member": True, "country": "no"})
    Attributes(numeric={'age': 41.0, 'member': 1.0}, categorical={'country': 'no'})
    >>> split_context({"age": None})
    Traceback (most recent call last):
    bandstand.errors.DecisionError: context 'age' is None (NoneType); allowed: a finite number, \
True or False, or a string; leave out what isn't known
    """
    if not context:
        return NO_ATTRIBUTES
    for kind in set(map(type, context)):
        if not issubclass(kind, str):
            raise DecisionError(f"context has a key of type {kind.__name__}; allowed: strings")
    numeric: dict[str, float] = {}
    categorical: dict[str, str] = {}
    for name, value in context.items():
        if isinstance(value, str):
            categorical[name] = value
        else:
            numeric[name] = value if type(value) is float else _number(name, value)
    if not math.isfinite(sum(numeric.values())):
        _refuse_infinite(numeric)
    return Attributes(numeric, categorical)


def _number(name: str, value: object) -> float:
    if isinstance(value, Real | np.bool_):
        try:
            return float(value)
        except OverflowError:
            pass
    raise _refusal(name, value)


def _refuse_infinite(numeric: Mapping[str, float]) -> None:
    for name, value in numeric.items():
        if not math.isfinite(value):
            raise _refusal(name, value)


def _refusal(name: str, value: object) -> DecisionError:
    return DecisionError(
        f"context {name!r} is {value!r} ({type(value).__name__}); allowed: a finite number, "
        "True or False, or a string; leave out what isn't known"
    )
