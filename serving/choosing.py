"""The choice itself: probabilities first, then a draw from exactly those; no clock, no Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandstand.errors import DecisionError
from bandstand.learners.policies import Policy, draw
from bandstand.serving.contexts import Attributes, split_context

__all__ = ["Drawn", "choose"]

Floats = NDArray[np.float64]

_NO_FEATURES: Final = np.empty(0, np.float32)


class Drawn(NamedTuple):
    """One action, drawn, with all that went into it."""

    eligible: tuple[str, ...]
    probabilities: list[float]
    """Of each eligible action, in [0, 1]; they sum to 1."""
    action: str
    propensity: float
    """Probability of the action, as it stands in the list; in (0, 1]."""
    seed: int
    attributes: Attributes
    features: NDArray[np.float32]
    """What the policy saw; empty where it sees nothing."""
    score: float | None
    optimality_gap: float | None


def choose(
    policy: Policy | None,
    context: Mapping[str, object] | None,
    eligible: tuple[str, ...],
    seed: int,
) -> Drawn:
    """Draw one of the eligible actions.

    Parameters
    ----------
    policy
        Gives the probabilities; None: all are equal.
    context
        The subject's attributes.
    eligible
        Actions to choose from, distinct, at least 1; the draw depends on their order.
    seed
        Seed of the draw, 0 <= seed < 2^63: the same one draws the same action.

    Raises
    ------
    DecisionError
        If the context can't be used, or an action is unknown or there twice.

    Examples
    --------
    >>> drawn = choose(None, {"age": 41}, ("spring", "summer"), seed=42)
    >>> drawn.action, drawn.propensity
    ('summer', 0.5)
    """
    for kind in set(map(type, eligible)):
        if not issubclass(kind, str):
            raise DecisionError(
                f"an eligible action is of type {kind.__name__}; allowed: strings, the actions'"
                " names"
            )
    attributes = split_context(context)
    if policy is None:
        weights, features, scores = _uniform(eligible), _NO_FEATURES, None
    else:
        choice = policy.decide(attributes.merged(), eligible)
        weights, features = choice.probabilities, choice.features
        scores = choice.scores.tolist()
    index = draw(weights, seed)
    probabilities = weights.tolist()
    return Drawn(
        eligible=eligible,
        probabilities=probabilities,
        action=eligible[index],
        propensity=probabilities[index],
        seed=seed,
        attributes=attributes,
        features=features,
        score=scores and scores[index],
        optimality_gap=scores and max(scores) - scores[index],
    )


def _uniform(eligible: Sequence[str]) -> Floats:
    if not eligible or len(set(eligible)) < len(eligible):
        raise DecisionError(
            f"eligible actions are {list(eligible)}; give at least one, and each of them once"
        )
    return np.full(len(eligible), 1.0 / len(eligible))
