"""From statistics to a policy, and from a snapshot to the same policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from bandstand.errors import StateError
from bandstand.learners.draw import draw, uniform
from bandstand.learners.evidence import Evidence, added
from bandstand.learners.mixture import Mixture
from bandstand.learners.new_actions import least_shapes, tried
from bandstand.learners.protocols import Arrays, Choice, Learner, Policy, Rows, Solution, Solved
from bandstand.learners.registry import learner_of, resuming_of
from bandstand.learners.smoothing import allocation_shapes, smoothed
from bandstand.learners.statistics import Statistics
from bandstand.learners.stored import read
from bandstand.learners.transition import PROMISED, Part, kept, parts
from bandstand.schemas.spec import Spec

__all__ = [
    "Choice",
    "Learner",
    "Policy",
    "Rows",
    "Solution",
    "Solved",
    "draw",
    "policy_from_snapshot",
    "resume",
    "solve",
    "uniform",
]

_ALL: Final = 1.0 + 1e-9
"""Weights that add up to 1, but for rounding."""


def solve(spec: Spec, statistics: Statistics) -> Solved:
    """Add the prior to the statistics and solve.

    Raises
    ------
    StateError
        If a posterior can't be solved.
    """
    return resume(spec, statistics).solved


def resume(
    spec: Spec,
    statistics: Statistics,
    before: Solution | None = None,
    evidence: Evidence | None = None,
) -> Solution:
    """Solve as `solve` does, to the same bits, and only what has changed where that can be told.

    Parameters
    ----------
    spec
        The spec in force.
    statistics
        What was learned under it.
    before
        An earlier solution under the same spec, if there is one: a learner that solves each action
        on its own takes over those whose sums stayed.
    evidence
        What was known before any outcome.

    Raises
    ------
    StateError
        If a posterior can't be solved.
    """
    sums, resuming = added(spec, statistics.solvable(), evidence), resuming_of(spec)
    if resuming is None:
        return Solution(sums, learner_of(spec).solve(spec, sums))
    return Solution(sums, resuming.solve(spec, sums, before))


def policy_from_snapshot(snapshot: Mapping[str, Any]) -> Policy:
    """Make the policy that a snapshot holds.

    Parameters
    ----------
    snapshot
        A record of the snapshot schema.

    Raises
    ------
    SpecError
        If its spec, or that of an earlier solution, isn't one that this version knows.
    StateError
        If its arrays don't fit, e.g. because they were cut short, or its weights.
    """
    where = f"snapshot {snapshot['version']!r} of bandit {snapshot['bandit']!r}"
    *earlier, own = parts(snapshot)
    weights = [part.weight for part in earlier]
    if not all(0.0 < weight <= 1.0 for weight in weights) or sum(weights) > _ALL:
        raise StateError(
            f"{where}: its earlier solutions have the weights {weights}; allowed: above 0, all"
            " together at most 1"
        )
    policy = _solution(own, where)
    if earlier:
        spec = Spec.from_canonical(own.spec).at(snapshot["newest"])
        before = [(part.weight, _solution(part, where)) for part in earlier]
        policy = Mixture(spec, before, policy)
    promised = read(snapshot["arrays"]).get(PROMISED)
    if promised is not None:
        _check({PROMISED: promised}, {PROMISED: (len(snapshot["actions"]),)}, where)
    return kept(policy, promised)


def _solution(part: Part, where: str) -> Policy:
    """Make the policy of one solution."""
    spec, arrays = Spec.from_canonical(part.spec), read(part.arrays)
    learner = learner_of(spec)
    wanted = {**learner.solved_shapes(spec), **least_shapes(spec), **allocation_shapes(spec)}
    _check(arrays, wanted, where)
    policy = learner.policy(spec.at(part.newest), Solved(part.parameters, arrays))
    return tried(smoothed(policy, arrays), arrays)


def _check(arrays: Arrays, wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    for name, shape in wanted.items():
        given = arrays.get(name)
        if given is None or given.shape != shape or not np.isfinite(given).all():
            found = None if given is None else given.shape
            raise StateError(
                f"{where}: array {name!r} has shape {found} or numbers that aren't finite; its"
                f" spec asks for {shape}"
            )
