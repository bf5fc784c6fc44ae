"""From snapshot to snapshot in bounded steps, for policies with context: a mixture of solutions.

Where each subject has probabilities of its own there is no one allocation to move
(`bandstand.learners.smoothing`), so a snapshot carries solutions with weights, and its
probabilities are the mixture of theirs (`bandstand.learners.mixture`). The last of its solutions is
where it goes, the *target*; the record has that as its own, the others under ``earlier``.

With each snapshot up to ``most_change`` of weight goes from the others to the target, from the
oldest first; so no probability moves by more, at no context. Once the target has all weight, or
where the spec is another one, the newest solution becomes the target. Until then the target
stays: if it were replaced, the weight that it has would move with it.

Least probabilities come first: the array ``promised`` says what each action has at least, whatever
is mixed. It rises at once to what is due now, and falls in steps, for which up to half of
``most_change`` is taken; at once where each solution keeps to it by itself.

All this is a function of the statistics and of the parent that the snapshot names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bandstand.learners.adjusted import Adjusted
from bandstand.learners.mixture import common_actions
from bandstand.learners.new_actions import at_least, least_of
from bandstand.learners.protocols import Policy
from bandstand.learners.stored import read, stored
from bandstand.schemas.spec import Spec

__all__ = ["PROMISED", "Part", "kept", "mixes", "parts", "towards"]

Floats = npt.NDArray[np.float64]

PROMISED: Final = "promised"
"""Name of the array with the least probability of each action, on top of the mixture."""

NONE: Final = 1e-12
"""Weight that is gone, but for rounding."""


class Part(NamedTuple):
    """A solution with its weight, in the fields of the schema's ``SnapshotPart``."""

    weight: float
    version: str
    spec: str
    newest: int | None
    parameters: Mapping[str, float]
    arrays: list[dict[str, Any]]


def parts(snapshot: Mapping[str, Any]) -> list[Part]:
    """Give the solutions of a snapshot, the oldest first; the last one has the rest of the weight.

    Parameters
    ----------
    snapshot
        A record of the snapshot schema.
    """
    earlier = [Part(**part) for part in snapshot["earlier"]]
    made_for = snapshot["carried"] or snapshot
    arrays = [array for array in snapshot["arrays"] if array["name"] != PROMISED]
    own = Part(
        weight=1.0 - sum(part.weight for part in earlier),
        version=made_for["version"],
        spec=snapshot["spec"],
        newest=made_for["newest"],
        parameters=snapshot["parameters"],
        arrays=arrays,
    )
    return [*earlier, own]


def mixes(spec: Spec, parent: Mapping[str, Any] | None) -> bool:
    """Whether a snapshot moves from its parent by mixing: where one of them has context."""
    if spec.smoothing is None:
        return False
    if spec.policy.contextual or parent is None:
        return spec.policy.contextual
    return bool(parent["earlier"]) or Spec.from_canonical(parent["spec"]).policy.contextual


def towards(snapshot: Mapping[str, Any], parent: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give a new snapshot as it follows its parent.

    Parameters
    ----------
    snapshot
        The newest solution's record, as if nothing had been before; its spec smooths.
    parent
        The record of the snapshot before; None for the first one, which goes all the way.
    """
    spec = Spec.from_canonical(snapshot["spec"])
    assert spec.smoothing is not None
    most = spec.smoothing.most_change
    own = parts(snapshot)[-1]
    known = [] if parent is None else parts(parent)
    on_the_way = len(known) > 1 and known[-1].spec == own.spec
    lowest, spent = _promised(spec.actions, _least(own, spec.actions), parent, most / 2)
    moving = _usable(known if on_the_way else [*known, own._replace(weight=0.0)])
    *earlier, target = _moved(moving, most - spent)
    promised = stored({PROMISED: lowest} if lowest.any() else {})
    carried = {"version": target.version, "newest": target.newest} if on_the_way else None
    return {
        **snapshot,
        "parameters": target.parameters,
        "arrays": [*target.arrays, *promised],
        "carried": carried,
        "earlier": [part._asdict() for part in earlier],
    }


def kept(policy: Policy, promised: Floats | None) -> Policy:
    """Give a policy that keeps to the least probabilities on top of a mixture."""
    if promised is None:
        return policy
    return Adjusted(policy, lambda indexes: partial(at_least, lowest=promised[indexes]))


def _usable(moving: Sequence[Part]) -> list[Part]:
    """Leave out the oldest that have no action any more; the next newer has their weight."""
    common = common_actions([Spec.from_canonical(part.spec).actions for part in moving])
    gone = sum(not actions for actions in common)
    weight = sum(part.weight for part in moving[: gone + 1])
    return [moving[gone]._replace(weight=weight), *moving[gone + 1 :]]


def _moved(moving: Sequence[Part], step: float) -> list[Part]:
    """Take weight for the last one, from the oldest first; what has none any more is left out."""
    *earlier, target = moving
    left = []
    for part in earlier:
        weight = part.weight - min(step, part.weight)
        step -= part.weight - weight
        if weight > NONE:
            left.append(part._replace(weight=weight))
    return [*left, target]


def _promised(
    actions: Sequence[str], due: Floats, parent: Mapping[str, Any] | None, most: float
) -> tuple[Floats, float]:
    """Give each action's least probability on top of the mixture, and what its fall may change."""
    before = {} if parent is None else _to_fall(parent)
    falling = np.maximum(np.array([before.get(action, 0.0) for action in actions]) - due, 0.0)
    total = float(falling.sum())
    if total == 0.0:
        return due, 0.0
    spent = min(most, total)
    room = max(0.0, 1.0 - float(due.sum()))  # less than that where actions were added
    return due + falling * (min(total - spent, room) / total), spent


def _to_fall(parent: Mapping[str, Any]) -> dict[str, float]:
    """Give what a snapshot promised on top, by action; nothing where that has changed nothing."""
    promised = read(parent["arrays"]).get(PROMISED)
    if promised is None:
        return {}
    actions, known = parent["actions"], parts(parent)
    common = common_actions([Spec.from_canonical(part.spec).actions for part in known])
    for part, usable in zip(known, common, strict=True):
        theirs = np.isin(actions, list(usable))
        if (np.where(theirs, _least(part, actions), 0.0) < promised).any():
            return dict(zip(actions, promised.tolist(), strict=True))
    return {}


def _least(part: Part, actions: Sequence[str]) -> Floats:
    """Give what a solution by itself gives each of some actions at least, 0 if it has it not."""
    spec = Spec.from_canonical(part.spec)
    lowest = least_of(spec.at(part.newest), read(part.arrays))
    known = dict(zip(spec.actions, lowest.tolist(), strict=True))
    return np.array([known.get(action, 0.0) for action in actions])
