"""A policy that mixes the probabilities of several, which may differ in actions and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bandstand.errors import DecisionError
from bandstand.learners.protocols import Choice, Policy
from bandstand.schemas.spec import Spec

__all__ = ["Mixture", "common_actions"]

CACHE: Final = 4096
"""Sets of eligible actions of which is remembered what each policy has of them."""


class _Share(NamedTuple):
    """What one policy gives of a set of eligible actions."""

    weight: float
    policy: Policy
    eligible: tuple[str, ...]
    """Those that count for it, at least one."""
    places: npt.NDArray[np.intp]
    """Where these stand in the set."""


class Mixture:
    """Decides as earlier policies do with their weights, and as the newest with the rest.

    An action counts for a policy only if all newer ones have it, too; else its probability is 0
    there. A policy that has none of the eligible actions, or can't read the context (an attribute
    is of another kind since), leaves its weight to the next newer one that can decide. So where
    weight moves from earlier policies to the newest, no probability moves by more than that weight,
    whatever the context and the eligible actions. Scores and features are the newest one's.

    Parameters
    ----------
    spec
        The spec in force.
    earlier
        Weight and policy, the oldest first; weights above 0, all together at most 1.
    newest
        The policy that has the rest of the weight; it knows the actions of the spec.
    """

    def __init__(self, spec: Spec, earlier: Sequence[tuple[float, Policy]], newest: Policy) -> None:
        self.spec = spec
        self._earlier = earlier
        self._newest = newest
        actions = common_actions([*(policy.spec.actions for _, policy in earlier), spec.actions])
        self._actions = actions[:-1]
        self._known: dict[tuple[str, ...], tuple[list[_Share], float]] = {}

    def decide(self, context: Mapping[str, Any], eligible: Sequence[str]) -> Choice:
        """Give the probability of every eligible action."""
        choice = self._newest.decide(context, eligible)
        key = tuple(eligible)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= CACHE:
                self._known = {}
            known = self._known[key] = self._shares(key)
        shares, rest = known
        mixed = np.zeros(len(key))
        left = 0.0
        for weight, policy, of_these, places in shares:
            left += weight
            try:
                probabilities = policy.decide(context, of_these).probabilities
            except DecisionError:  # the newest has read it, but to this one it is of another kind
                continue
            mixed[places] += left * probabilities
            left = 0.0
        mixed += (left + rest) * choice.probabilities
        return replace(choice, probabilities=mixed)

    def _shares(self, eligible: tuple[str, ...]) -> tuple[list[_Share], float]:
        """Give what earlier policies have of the eligible actions, and the newest one's weight.

        Those that have none are the oldest: what counts for one counts for all that are newer.
        """
        shares, left, rest = list[_Share](), 0.0, 1.0
        for (weight, policy), actions in zip(self._earlier, self._actions, strict=True):
            left += weight
            places = [place for place, action in enumerate(eligible) if action in actions]
            if places:
                of_these = tuple(eligible[place] for place in places)
                shares.append(_Share(left, policy, of_these, np.array(places, dtype=np.intp)))
                rest, left = rest - left, 0.0
        return shares, rest


def common_actions(actions: Sequence[Sequence[str]]) -> list[frozenset[str]]:
    """Give of each list of actions those that all lists behind it have, too.

    Examples
    --------
    >>> [sorted(common) for common in common_actions(["abc", "ac", "ab"])]
    [['a'], ['a'], ['a', 'b']]
    """
    found: list[frozenset[str]] = []
    for names in reversed(actions):
        found.append(frozenset(names) & found[-1] if found else frozenset(names))
    return found[::-1]
