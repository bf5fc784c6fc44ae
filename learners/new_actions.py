"""Forced exploration: an action gets its share until it has had so many outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from bandstand.learners.adjusted import Adjusted
from bandstand.learners.protocols import Arrays, Policy
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec

__all__ = ["at_least", "least", "least_of", "least_shapes", "tried"]

Floats = npt.NDArray[np.float64]

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


def least_of(spec: Spec, arrays: Arrays) -> Floats:
    """Give the least probability of each action in a snapshot of a spec, float64[K]."""
    lowest = np.full(len(spec.actions), spec.floor)  # it may be widened for a while
    return np.maximum(lowest, arrays[_NAME]) if _NAME in arrays else lowest


def tried(policy: Policy, arrays: Arrays) -> Policy:
    """Give a policy that keeps to what `least` said."""
    raised = least_of(policy.spec, arrays)
    if (raised <= policy.spec.floor).all():
        return policy
    return Adjusted(policy, lambda indexes: partial(at_least, lowest=raised[indexes]))


def at_least(probabilities: Floats, lowest: Floats) -> Floats:
    """Raise probabilities to their least, at the cost of what the others have above theirs.

    ``p'_a = l_a + (p_a - l_a)^+ * (1 - sum of l) / (sum of (p - l)^+)``, never less than ``l_a``,
    not by rounding either. Nothing changes where each has its least already.

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
    if (probabilities >= lowest).all():
        return probabilities
    above = np.maximum(probabilities - lowest, 0.0)
    total = above.sum()
    if total == 0.0:  # the least leave nothing over, and only rounding differs from them
        return lowest
    return np.asarray(lowest + above * (max(0.0, 1.0 - lowest.sum()) / total))
