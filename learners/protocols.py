"""What a learner is: what it keeps of outcomes, how that is solved, and how its policy decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bandstand.errors import DecisionError
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import PolicySpec

__all__ = [
    "AdditiveLearner",
    "Arrays",
    "ChainedLearner",
    "Choice",
    "Learner",
    "Policy",
    "PortableChain",
    "ResumingLearner",
    "Rows",
    "Solution",
    "Solved",
    "Whole",
    "eligible_indexes",
]

Arrays = Mapping[str, npt.NDArray[np.float64]]
Whole = Mapping[str, npt.NDArray[Any]]
"""Sums by name: int64, whole steps."""


@dataclass(frozen=True)
class Rows:
    """Outcomes as a learner sees them, at most `grid.CHUNK` of them.

    Parameters
    ----------
    actions
        int[n], indexes into the spec's actions.
    steps
        float64[n, d + 1], whole steps of the grid: the features, then the scaled reward (0 to 1).
    propensities
        float64[n], above 0 and at most 1; all 1 for a learner that doesn't need them.
    roots
        float64[n], the square root of each outcome's weight, in whole steps; the rows in `steps`
        are multiplied by it. None where each counts once.
    """

    actions: npt.NDArray[np.integer[Any]]
    steps: npt.NDArray[np.float64]
    propensities: npt.NDArray[np.float64]
    roots: npt.NDArray[np.float64] | None = None

    def pick(self, which: npt.NDArray[np.bool_] | slice) -> Rows:
        """Give some of them."""
        roots = None if self.roots is None else self.roots[which]
        return Rows(self.actions[which], self.steps[which], self.propensities[which], roots)


@dataclass(frozen=True)
class Solved:
    """A policy in numbers: what a snapshot carries.

    Parameters
    ----------
    parameters
        Named numbers.
    arrays
        Named float64 arrays.
    """

    parameters: Mapping[str, float]
    arrays: Arrays


@dataclass(frozen=True)
class Solution:
    """What was solved, and what it was solved from.

    Parameters
    ----------
    sums
        What a learner kept.
    solved
        What it made of that.
    """

    sums: Whole
    solved: Solved


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy knows about one decision, in the order of the eligible actions.

    Parameters
    ----------
    probabilities
        float64[k], >= 0, sum 1, none below the spec's floor. Not to be written to.
    scores
        float64[k], expected rewards in the reward's own unit.
    features
        float32[d], the vector that the policy saw; empty for a policy without context.
    """

    probabilities: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]


class Policy(Protocol):
    """Decides by one solved posterior; safe to use from several threads."""

    @property
    def spec(self) -> Spec:
        """The spec in force."""

    def decide(self, context: Mapping[str, Any], eligible: Sequence[str]) -> Choice:
        """Give the probability of every eligible action.

        Parameters
        ----------
        context
            Attributes of the subject by name.
        eligible
            Actions that may be taken, distinct; the order is that of the answer.

        Raises
        ------
        DecisionError
            If no action is eligible, one is unknown or repeated, or an attribute isn't of its
            feature's kind.
        """


class Learner(Protocol):
    """What stands behind a policy's name, whatever it keeps; one is additive or chained.

    Storing, counting and digesting what it keeps is the same for all learners, see
    `bandstand.learners.statistics.Statistics`. A learner keeps nothing itself.

    One that can learn from outcomes with weights (`Rows.roots`) has an attribute ``weighted``: by
    how much finer each sum's steps are then, by name, 1 where it isn't there; nothing of a chain's.
    `solve` is given such sums in their usual steps, as float64.

    One whose sums are apart for each action says ``actions_apart = True``: they depend on nothing
    in the section ``policy``, the first axis of each is that of the actions, and ``outcomes`` is
    their number per action. They then survive a change of the spec (`bandstand.learners.inherit`),
    and may come from elsewhere, as a prior. A chain may say so, too, if the policy and the prior
    decide where it starts and nothing else, and if `merge` takes over the state of an action that
    only one of the two has had, bit by bit. If it is a `PortableChain`, it may come from elsewhere.
    """

    @property
    def parameters(self) -> type[PolicySpec]:
        """The section ``policy`` of its specs, named as the learner by default."""

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """Name the arrays that it keeps, and their shapes."""

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Add the prior and solve."""

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """Name the arrays that `solve` gives, and their shapes."""

    def policy(self, spec: Spec, solved: Solved) -> Policy:
        """Make the policy of a posterior."""


@runtime_checkable
class AdditiveLearner(Learner, Protocol):
    """Keeps whole numbers on the grid, so that they add, and subtract, to the same bits."""

    def sums(self, spec: Spec, rows: Rows) -> Whole:
        """Sum up outcomes, exactly: each adds up to 2**36 steps, all of them less than 2**53."""


@runtime_checkable
class ChainedLearner(Learner, Protocol):
    """Keeps a state that each outcome changes in turn, one chain an outcome partition.

    The arrays are the bits of float64 numbers (``array.view(np.int64)``), all finite. They are the
    same however the outcomes of a partition are cut into batches, on one type of machine; they
    can't be subtracted. `solve` is given the numbers themselves.
    """

    def start(self, spec: Spec) -> Whole:
        """Give the state before any outcome."""

    def advance(self, spec: Spec, state: Whole, rows: Rows) -> Whole:
        """Give the state after some more outcomes, in their order; `state` stays as it is."""

    def merge(self, spec: Spec, first: Whole, second: Whole) -> Whole:
        """Give the state that two partitions come to together, the one of lower number first."""


@runtime_checkable
class PortableChain(ChainedLearner, Protocol):
    """Can tell what outcomes said from the prior that its chain began with, and begin with both.

    What they said is float64 arrays by name, all in proportion to the number of outcomes, so that a
    share of each is the same knowledge from fewer of them. The first axis is that of the actions,
    ``outcomes`` is how many each has had, and all is 0 where that is.
    """

    def evidence_of(self, spec: Spec, state: Arrays) -> Arrays:
        """Give what the outcomes of a chain said, without the prior that the spec gave it."""

    def start_from(self, spec: Spec, evidence: Arrays) -> Whole:
        """Give the state of a chain that begins with the spec's prior and with evidence.

        Where that is 0, it is the state of `start`, bit by bit.
        """


class ResumingLearner(Learner, Protocol):
    """Solves its actions one by one, so that those whose sums stayed are taken over.

    It says so: ``resumes = True``.
    """

    def solve(self, spec: Spec, sums: Whole, before: Solution | None = None) -> Solved:
        """Add the prior and solve, to the same bits with and without an earlier solution.

        Parameters
        ----------
        spec
            The spec in force.
        sums
            What is to be solved.
        before
            An earlier solution under the same spec.
        """


def eligible_indexes(spec: Spec, eligible: Sequence[str]) -> npt.NDArray[np.intp]:
    """Give the indexes of eligible actions among the spec's.

    Raises
    ------
    DecisionError
        If there is none, or one is unknown or repeated.
    """
    known = {action: index for index, action in enumerate(spec.actions)}
    unknown = [action for action in eligible if action not in known]
    allowed = f"bandit {spec.bandit!r} has the actions {', '.join(spec.actions)}"
    if unknown:
        raise DecisionError(f"unknown action {', '.join(map(repr, unknown))}; {allowed}")
    if not eligible:
        raise DecisionError(f"no action is eligible; give at least one: {allowed}")
    if len(set(eligible)) < len(eligible):
        raise DecisionError(f"eligible actions {list(eligible)} aren't distinct; give each once")
    return np.array([known[action] for action in eligible], dtype=np.intp)
