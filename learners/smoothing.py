"""Allocation that moves a bounded way from the snapshot before, for policies without context.

A snapshot of such a spec carries its ``allocation``, the probabilities of all actions. It lies
between that of its parent and what the policy wants: ``parent + t * (wanted - parent)``, t the
largest in [0, 1] that moves no probability by more than the spec allows. So where it goes is a
function of the statistics and of the parent that the snapshot names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bandstand.learners.new_actions import at_least
from bandstand.learners.protocols import Arrays, Choice, Policy
from bandstand.schemas.spec import Spec

__all__ = ["allocation_shapes", "smoothed", "towards"]

Floats = npt.NDArray[np.float64]

NAME: Final = "allocation"

CACHE: Final = 4096
"""Sets of eligible actions whose probabilities a policy remembers."""


def allocation_shapes(spec: Spec) -> Mapping[str, tuple[int, ...]]:
    """Name the array that a snapshot has beside its solution: none without smoothing."""
    return {} if spec.smoothing is None else {NAME: (len(spec.actions),)}


def towards(spec: Spec, wanted: Policy, parent: Policy | None) -> Arrays:
    """Give the allocation of a new snapshot.

    Parameters
    ----------
    spec
        The spec in force.
    wanted
        Its policy, as if nothing had been before.
    parent
        The policy of the snapshot before; None for the first one, which goes all the way. Actions
        that it doesn't have begin at 0, those that are gone leave their share to the others.
    """
    if spec.smoothing is None:
        return {}
    target = wanted.decide({}, spec.actions).probabilities
    if parent is None:
        return {NAME: target.copy()}
    kept = [action for action in spec.actions if action in parent.spec.actions]
    if not kept:
        return {NAME: target.copy()}
    known = dict(zip(kept, parent.decide({}, kept).probabilities.tolist(), strict=True))
    start = np.array([known.get(action, 0.0) for action in spec.actions])
    furthest = np.abs(target - start).max()
    part = min(1.0, spec.smoothing.most_change / furthest) if furthest > 0 else 1.0
    return {NAME: start + part * (target - start)}


def smoothed(policy: Policy, arrays: Arrays) -> Policy:
    """Give the policy that a snapshot with an allocation holds."""
    allocation = arrays.get(NAME)
    return policy if allocation is None else _Smoothed(policy, allocation)


class _Smoothed:
    """Another policy's scores with a snapshot's own allocation."""

    def __init__(self, policy: Policy, allocation: Floats) -> None:
        self._policy = policy
        self._places = {action: place for place, action in enumerate(policy.spec.actions)}
        self._allocation = allocation
        self._known: dict[tuple[str, ...], Floats] = {}

    @property
    def spec(self) -> Spec:
        return self._policy.spec

    def decide(self, context: Mapping[str, Any], eligible: Sequence[str]) -> Choice:
        choice = self._policy.decide(context, eligible)
        key = tuple(eligible)
        probabilities = self._known.get(key)
        if probabilities is None:
            if len(self._known) >= CACHE:
                self._known = {}
            probabilities = self._known[key] = self._among(eligible, choice.probabilities)
        return replace(choice, probabilities=probabilities)

    def _among(self, eligible: Sequence[str], wanted: Floats) -> Floats:
        """Share the allocation among some actions; as the policy wants it where they have none."""
        shares = self._allocation[[self._places[action] for action in eligible]]
        total = shares.sum()
        if total > 0.0:
            wanted = at_least(shares / total, np.full(len(shares), self.spec.floor))
        wanted.flags.writeable = False
        return wanted
