"""What learners without context share: three sums an action, and a policy that looks at nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bandstand.learners.grid import STEPS
from bandstand.learners.probabilities import with_floor
from bandstand.learners.protocols import Choice, Rows, Whole, eligible_indexes
from bandstand.schemas.spec import Spec

__all__ = [
    "WEIGHTED",
    "ContextlessPolicy",
    "Floats",
    "Moments",
    "counted",
    "mean_rewards",
    "sample_variance",
]

CACHE = 4096
"""Sets of eligible actions whose probabilities a policy remembers."""

Floats = npt.NDArray[np.float64]

_NO_FEATURES = np.zeros(0, dtype=np.float32)


WEIGHTED: Final = {"outcomes": STEPS * STEPS, "reward": STEPS}
"""By how much finer these sums are where outcomes have weights."""


class Moments:
    """Number, sum and sum of squares of the scaled rewards of each action."""

    weighted = WEIGHTED
    actions_apart = True

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``outcomes``, ``reward`` (in 2**-12) and ``squares`` (in 2**-24) per action."""
        return dict.fromkeys(("outcomes", "reward", "squares"), (len(spec.actions),))

    def sums(self, spec: Spec, rows: Rows) -> Whole:
        """Sum up outcomes, exactly."""
        count, reward = len(spec.actions), rows.steps[:, -1]
        squares = np.bincount(rows.actions, weights=reward * reward, minlength=count)
        return {**counted(rows, count), "squares": squares.astype(np.int64)}

    def means(self, sums: Whole, absent: float) -> Floats:
        """Give each action's mean scaled reward; `absent` for one without outcomes."""
        return mean_rewards(sums, absent)


def mean_rewards(sums: Whole, absent: float) -> Floats:
    """Give each action's mean scaled reward; `absent` for one without outcomes."""
    outcomes = sums["outcomes"]
    known = np.where(outcomes > 0, outcomes, 1)
    return np.where(outcomes > 0, sums["reward"] / STEPS / known, absent)


def counted(rows: Rows, actions: int) -> Whole:
    """Sum up ``outcomes`` and ``reward`` per action, exactly.

    In 1 and 2**-12; both in 2**-24 where outcomes have weights (`WEIGHTED`).
    """
    outcomes, reward = None, rows.steps[:, -1]
    if rows.roots is not None:
        outcomes, reward = rows.roots * rows.roots, rows.roots * reward
    found = {
        "outcomes": np.bincount(rows.actions, weights=outcomes, minlength=actions),
        "reward": np.bincount(rows.actions, weights=reward, minlength=actions),
    }
    return {name: array.astype(np.int64) for name, array in found.items()}


def sample_variance(sums: Whole) -> Floats:
    """Give the variance of each action's scaled rewards around their mean; 0 without outcomes.

    Computed from whole numbers of any size, so that nothing cancels; from floats where outcomes
    have weights.
    """
    return np.array(
        [
            max(0, n * squares - total * total) / (n * n * STEPS * STEPS) if n else 0.0
            for n, total, squares in zip(
                sums["outcomes"].tolist(),
                sums["reward"].tolist(),
                sums["squares"].tolist(),
                strict=True,
            )
        ]
    )


class ContextlessPolicy:
    """Decides alike for everybody, so each set of eligible actions is computed once.

    All actions are when the policy is made, another set when it is first asked for.

    Parameters
    ----------
    spec
        The spec in force.
    means
        float64[K], expected scaled rewards.
    probabilities
        From indexes among the spec's actions, int[k], to their probabilities without the floor,
        float64[k].
    """

    def __init__(
        self,
        spec: Spec,
        means: Floats,
        probabilities: Callable[[npt.NDArray[np.intp]], Floats],
    ) -> None:
        self.spec = spec
        low, high = spec.reward.low, spec.reward.high
        self._scores = low + (high - low) * means
        self._probabilities = probabilities
        self._known: dict[tuple[str, ...], Choice] = {}
        self.decide({}, spec.actions)

    def decide(
        self,
        context: Mapping[str, Any],  # noqa: ARG002 - the protocol's; without context by design
        eligible: Sequence[str],
    ) -> Choice:
        """Give the probability of every eligible action; the context doesn't matter."""
        key = tuple(eligible)
        choice = self._known.get(key)
        if choice is None:
            choice = self._choice(eligible_indexes(self.spec, eligible))
            if len(self._known) >= CACHE:
                self._known = {}
            self._known[key] = choice
        return choice

    def _choice(self, indexes: npt.NDArray[np.intp]) -> Choice:
        probabilities = with_floor(self._probabilities(indexes), self.spec.floor)
        scores = self._scores[indexes]
        for array in (probabilities, scores):
            array.flags.writeable = False  # shared by all decisions that follow
        return Choice(probabilities, scores, _NO_FEATURES)
