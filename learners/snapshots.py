"""Snapshots: a solved posterior under a version that names what it was learned from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bandstand.errors import StateError
from bandstand.learners import transition
from bandstand.learners.new_actions import least, tried
from bandstand.learners.policies import Policy, Solved, policy_from_snapshot, solve
from bandstand.learners.registry import learner_of
from bandstand.learners.smoothing import towards
from bandstand.learners.statistics import Statistics
from bandstand.learners.stored import stored
from bandstand.schemas.spec import Spec

__all__ = ["Before", "build", "newer", "rank", "version_of"]


class Before(NamedTuple):
    """What the next snapshot of a spec with smoothing is to be near.

    Parameters
    ----------
    snapshot
        The current one.
    policy
        What it holds.
    """

    snapshot: Mapping[str, Any]
    policy: Policy

    @classmethod
    def of(cls, snapshot: Mapping[str, Any]) -> Before:
        """Read a snapshot; raises as `policy_from_snapshot` does."""
        return cls(snapshot, policy_from_snapshot(snapshot))


def version_of(epoch: int, outcomes: int, digest: str) -> str:
    """Name a snapshot by epoch, number of outcomes and digest of the statistics.

    Examples
    --------
    >>> version_of(3, 1200, "0f" * 32)
    '3-1200-0f0f0f0f0f0f0f0f'
    """
    return f"{epoch}-{outcomes}-{digest[:16]}"


def newer(version: str, than: str) -> bool:
    """Whether a version comes after another: a later epoch, or the same and more outcomes.

    Every version comes after the empty one. Two of the same epoch and number of outcomes don't come
    after each other.

    Raises
    ------
    StateError
        If one isn't a version.

    Examples
    --------
    >>> newer("3-1200-aa", than="3-999-bb"), newer("3-1200-aa", than="4-0-bb"), newer("0-0-aa", "")
    (True, False, True)
    """
    return rank(version) > rank(than)


def rank(version: str) -> tuple[int, int]:
    """Take a version's epoch and number of outcomes out of it; -1 and -1 for the empty one.

    Raises
    ------
    StateError
        If it isn't a version.

    Examples
    --------
    >>> rank("3-1200-aa")
    (3, 1200)
    """
    if not version:
        return (-1, -1)
    match = re.fullmatch(r"(\d+)-(\d+)-[0-9a-f]+", version)
    if match is None:
        raise StateError(f"{version!r} isn't a version; allowed: epoch-outcomes-digest")
    return int(match[1]), int(match[2])


def build(
    spec: Spec,
    statistics: Statistics,
    epoch: int,
    parent: str,
    source_offsets: Mapping[int, int],
    solved: Solved | None = None,
    before: Before | None = None,
) -> dict[str, Any]:
    """Solve statistics and give them as a record of the snapshot schema.

    Parameters
    ----------
    spec
        The spec in force.
    statistics
        All that was learned under it, added up over partitions.
    epoch
        Offset of the ``specs`` record in force.
    parent
        Version of the snapshot before this one; empty for the first.
    source_offsets
        Outcome partition to the next offset to learn from.
    solved
        The statistics' solution, where it is there already.
    before
        The parent, where the spec bounds how far probabilities move.

    Raises
    ------
    StateError
        If a posterior can't be solved.
    """
    solved = solve(spec, statistics) if solved is None else solved
    arrays = {**solved.arrays, **least(spec, statistics)}
    mixing = transition.mixes(spec, before and before.snapshot)
    if spec.smoothing is not None:
        policy = learner_of(spec).policy(spec.at(statistics.newest), solved)
        near = None if mixing or before is None else before.policy
        arrays |= towards(spec, tried(policy, arrays), near)
    digest = statistics.digest()
    snapshot = {
        "bandit": spec.bandit,
        "version": version_of(epoch, statistics.outcomes, digest),
        "epoch": epoch,
        "outcomes": statistics.outcomes,
        "digest": digest,
        "parent": parent,
        "spec_hash": spec.hash,
        "spec": spec.canonical(),
        "lane": spec.lane,
        "source_offsets": {str(partition): offset for partition, offset in source_offsets.items()},
        "newest": statistics.newest,
        "policy": spec.policy.name,
        "actions": list(spec.actions),
        "features": list(spec.feature_names),
        "features_hash": spec.features_hash,
        "parameters": dict(solved.parameters),
        "arrays": stored(arrays),
        "carried": None,
        "earlier": [],
    }
    return transition.towards(snapshot, before and before.snapshot) if mixing else snapshot
