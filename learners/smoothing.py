"""Allocation that moves a bounded way from the snapshot before, for policies without context.

A snapshot of such a spec carries its ``allocation``, the probabilities of all actions. It lies
between that of its parent and what the policy wants: ``parent + t * (wanted - parent)``, t the
largest in [0, 1] that moves no probability by more than the spec allows. So where it goes is a
function of the statistics and of the parent that the snapshot names.

Least probabilities (the floor, also a widened one, and the share of new actions) are promises that
come first: the allocation is raised to them, at once. An action then moves by no more than the
bound and all that these raise together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from bandstand.learners.adjusted import Adjust, Adjusted
from bandstand.learners.new_actions import at_least
from bandstand.learners.protocols import Arrays, Policy
from bandstand.schemas.spec import Spec

__all__ = ["allocation_shapes", "smoothed", "towards"]

NAME: Final = "allocation"


def allocation_shapes(spec: Spec) -> Mapping[str, tuple[int, ...]]:
    """Name the array that a snapshot has beside its solution: none without smoothing."""
    if spec.smoothing is None or spec.policy.contextual:
        return {}
    return {NAME: (len(spec.actions),)}


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
    if spec.smoothing is None or spec.policy.contextual:
        return {}
    target = wanted.decide({}, spec.actions).probabilities
    if parent is None:
        return {NAME: target.copy()}
    before = set(parent.spec.actions)
    kept = [action for action in spec.actions if action in before]
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
    if allocation is None:
        return policy

    def adjusting(indexes: npt.NDArray[np.intp]) -> Adjust:
        """Share the allocation among some actions; as the policy wants it where they have none."""
        shares = allocation[indexes]
        total = shares.sum()
        if total <= 0.0:
            return lambda wanted: wanted
        probabilities = at_least(shares / total, np.full(len(shares), policy.spec.floor))
        probabilities.flags.writeable = False  # shared by all decisions that follow
        return lambda _: probabilities

    return Adjusted(policy, adjusting)
