"""From statistics to a policy, and from a snapshot to the same policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bandstand.errors import StateError
from bandstand.learners.draw import draw, uniform
from bandstand.learners.evidence import Evidence, added
from bandstand.learners.new_actions import least_shapes, tried
from bandstand.learners.protocols import Choice, Learner, Policy, Rows, Solution, Solved
from bandstand.learners.registry import learner_of, resuming_of
from bandstand.learners.smoothing import allocation_shapes, smoothed
from bandstand.learners.statistics import Statistics
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
        If its spec isn't one that this version knows.
    StateError
        If its arrays don't fit, e.g. because they were cut short.
    """
    spec = Spec.from_canonical(snapshot["spec"])
    arrays = {array["name"]: _array(array) for array in snapshot["arrays"]}
    learner = learner_of(spec)
    wanted = {**learner.solved_shapes(spec), **least_shapes(spec), **allocation_shapes(spec)}
    for name, shape in wanted.items():
        given = arrays.get(name)
        if given is None or given.shape != shape or not np.isfinite(given).all():
            found = None if given is None else given.shape
            raise StateError(
                f"snapshot {snapshot['version']!r} of bandit {spec.bandit!r}: array {name!r} has"
                f" shape {found} or numbers that aren't finite; its spec asks for {shape}"
            )
    spec = spec.at(snapshot["newest"])
    policy = learner.policy(spec, Solved(snapshot["parameters"], arrays))
    return tried(smoothed(policy, arrays), arrays)


def _array(array: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    shape = tuple(array["shape"])
    if len(array["data"]) != 8 * math.prod(shape):
        raise StateError(
            f"array {array['name']!r} has {len(array['data'])} bytes; its shape {shape} asks for"
            f" {8 * math.prod(shape)}"
        )
    return np.frombuffer(array["data"], dtype="<f8").reshape(shape).astype(np.float64)
