"""Forced exploration: an action gets its share until it has had so many outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bandstand.learners.protocols import Arrays, Choice, Policy, eligible_indexes
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec

__all__ = ["at_least", "least", "least_shapes", "tried"]

Floats = npt.NDArray[np.float64]

CACHE: Final = 4096
"""Sets of eligible actions whose least probabilities a policy remembers."""

_NAME: Final = "least"


def least_shapes(spec: Spec) -> Mapping[str, tuple[int, ...]]:
    """Name the array that a snapshot has beside its solution: none where nothing is forced."""
    return {} if spec.new_actions is None else {_NAME: (len(spec.actions),)}


def least(spec: Spec, statistics: Statistics) -> Arrays:
    """Give the least probability of each action by the outcomes that it has had.

    Outcomes count as they do for the learner: by weight, and less as they fade.
    """
    if spec.new_actions is None:
        return {}
    young = statistics.solvable()["outcomes"] < spec.new_actions.outcomes
    return {_NAME: np.where(young, max(spec.floor, spec.new_actions.share), spec.floor)}


def tried(policy: Policy, arrays: Arrays) -> Policy:
    """Give a policy that keeps to what `least` said."""
    lowest, floor = arrays.get(_NAME), policy.spec.floor
    if lowest is None or (lowest <= floor).all():
        return policy
    return _Tried(policy, np.maximum(lowest, floor))  # a floor may be widened for a while


def at_least(probabilities: Floats, lowest: Floats) -> Floats:
    """Raise probabilities to their least, at the cost of what the others have above theirs.

    ``p'_a = l_a + (p_a - l_a)^+ * (1 - sum of l) / (sum of (p - l)^+)``. Nothing changes where each
    has its least already.

    Parameters
    ----------
    probabilities
        float64[k], >= 0, sum 1.
    lowest
        float64[k], > 0 somewhere, sum at most 1.

    Examples
    --------
    >>> at_least(np.array([0.75, 0.25, 0.0]), np.array([0.0, 0.0, 0.2]))
    array([0.6, 0.2, 0.2])
    """
    above = np.maximum(probabilities - lowest, 0.0)
    total = above.sum()
    if total == 0.0 or (probabilities >= lowest).all():
        return probabilities
    return np.asarray(lowest + above * (max(0.0, 1.0 - lowest.sum()) / total))


class _Tried:
    """Another policy, whose new actions get their share."""

    def __init__(self, policy: Policy, lowest: Floats) -> None:
        self._policy = policy
        self._lowest = lowest
        self._known: dict[tuple[str, ...], Floats] = {}

    @property
    def spec(self) -> Spec:
        return self._policy.spec

    def decide(self, context: Mapping[str, Any], eligible: Sequence[str]) -> Choice:
        choice = self._policy.decide(context, eligible)
        key = tuple(eligible)
        lowest = self._known.get(key)
        if lowest is None:
            if len(self._known) >= CACHE:
                self._known = {}
            lowest = self._known[key] = self._lowest[eligible_indexes(self.spec, eligible)]
        return replace(choice, probabilities=at_least(choice.probabilities, lowest))
