"""A policy on top of another: the same scores, other probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bandstand.learners.protocols import Choice, Policy, eligible_indexes
from bandstand.schemas.spec import Spec

__all__ = ["Adjust", "Adjusted"]

CACHE: Final = 4096
"""Sets of eligible actions of which is remembered what they alone decide."""

Adjust = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""From the other policy's probabilities, not to be written to, to these."""


class Adjusted:
    """Decides as another policy does, with probabilities that are adjusted.

    Parameters
    ----------
    policy
        The other one.
    adjusting
        From indexes among the spec's actions, int[k], to what is done to their probabilities;
        asked once for each set of eligible actions.
    """

    def __init__(self, policy: Policy, adjusting: Callable[[npt.NDArray[np.intp]], Adjust]) -> None:
        self._policy = policy
        self._adjusting = adjusting
        self._known: dict[tuple[str, ...], Adjust] = {}

    @property
    def spec(self) -> Spec:
        """The spec in force."""
        return self._policy.spec

    def decide(self, context: Mapping[str, Any], eligible: Sequence[str]) -> Choice:
        """Give the probability of every eligible action."""
        choice = self._policy.decide(context, eligible)
        key = tuple(eligible)
        adjust = self._known.get(key)
        if adjust is None:
            if len(self._known) >= CACHE:
                self._known = {}
            adjust = self._known[key] = self._adjusting(eligible_indexes(self.spec, eligible))
        return replace(choice, probabilities=adjust(choice.probabilities))
