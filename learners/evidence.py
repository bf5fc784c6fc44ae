"""Evidence from elsewhere: sums that stand for outcomes which this bandit never had.

They come from another bandit's statistics or from a log, are kept with the spec, and are added to
what was learned whenever a posterior is solved. Of a chain they are what its outcomes said, without
the prior that it began with; a chain that begins with them is put together with what was learned as
that of one more partition, before all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.errors import SpecError, StateError
from bandstand.learners.grid import STEPS
from bandstand.learners.keepers import keeper_of
from bandstand.learners.logged import PROPENSITY
from bandstand.learners.protocols import (
    Arrays,
    ChainedLearner,
    PortableChain,
    Rows,
    Whole,
)
from bandstand.learners.reading import Read, read
from bandstand.learners.registry import learner_of
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_reward import KeepProbability

__all__ = ["Evidence", "Weighed", "added", "from_outcomes", "from_statistics"]

LEAST_PROPENSITY = 0.001
"""A smaller propensity counts as this one: it bounds what one outcome can weigh."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Sums of some actions, in the units in which their learner solves or tells them.

    Parameters
    ----------
    origin
        Where they come from, for people.
    actions
        Which actions, in the order of the arrays' first axis.
    arrays
        float64, by the names of the learner's sums, or as of `PortableChain`; all in proportion to
        ``outcomes``.
    """

    origin: str
    actions: tuple[str, ...]
    arrays: Mapping[str, Floats]

    @property
    def outcomes(self) -> dict[str, float]:
        """How many outcomes each action's sums are worth."""
        return dict(zip(self.actions, self.arrays["outcomes"].tolist(), strict=True))

    def equals(self, other: Evidence | None) -> bool:
        """Whether another one says the same of the same actions, from the same origin."""
        return (
            other is not None
            and (self.origin, self.actions) == (other.origin, other.actions)
            and self.arrays.keys() == other.arrays.keys()
            and all(np.array_equal(array, other.arrays[n]) for n, array in self.arrays.items())
        )

    def at_most(self, strength: float | None) -> Evidence:
        """Give the same means with no action worth more than so many outcomes.

        Each outcome of one that is worth more counts as that share of one: its likelihood is raised
        to that power. So it is the evidence's own mean that stays, not that of the posterior, of
        which the prior is the larger part the less the evidence is worth.
        """
        if strength is None:
            return self
        worth = self.arrays["outcomes"]
        return self._scaled(np.minimum(1.0, strength / np.maximum(worth, strength)))

    def of(self, actions: Iterable[str]) -> Evidence:
        """Give what is known of some actions only."""
        places = {action: row for row, action in enumerate(self.actions)}
        kept = [action for action in actions if action in places]
        rows = [places[action] for action in kept]
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        return replace(self, actions=tuple(kept), arrays=arrays)

    def _scaled(self, factors: Floats) -> Evidence:
        arrays = {
            name: array * factors.reshape(-1, *[1] * (array.ndim - 1))
            for name, array in self.arrays.items()
        }
        return replace(self, arrays=arrays)


class Weighed(NamedTuple):
    """Evidence from a log.

    Parameters
    ----------
    evidence
        The sums.
    rows
        Number of outcomes of each action that were used.
    counters
        As of `Statistics.update`; ``rejected_propensity`` counts rows whose propensity isn't above
        0 and at most 1, or isn't there while others have one, and ``clipped_propensity`` those that
        are too small, see `LEAST_PROPENSITY`.
    """

    evidence: Evidence
    rows: dict[str, int]
    counters: Mapping[str, int]


def added(
    spec: Spec, sums: Mapping[str, npt.NDArray[Any]], evidence: Evidence | None
) -> Mapping[str, npt.NDArray[Any]]:
    """Add evidence to what a learner solves, each action's to its own.

    Raises
    ------
    StateError
        If it isn't of this spec's kind.
    """
    if evidence is None:
        return sums
    learner = learner_of(spec)
    if not isinstance(learner, ChainedLearner):
        return _summed(spec, sums, evidence)
    chain = cast(PortableChain, learner)
    nothing = chain.evidence_of(spec, _numbers(chain.start(spec)))
    first = chain.start_from(spec, _summed(spec, nothing, evidence))
    merged = chain.merge(spec, first, {n: a.view(np.int64) for n, a in sums.items()})
    return _numbers(merged)


def _summed(
    spec: Spec, sums: Mapping[str, npt.NDArray[Any]], evidence: Evidence
) -> dict[str, Floats]:
    mine = evidence.of(spec.actions)
    places = {action: row for row, action in enumerate(spec.actions)}
    rows = [places[action] for action in mine.actions]
    total = {}
    for name, array in sums.items():
        more = mine.arrays.get(name)
        if more is None or more.shape[1:] != array.shape[1:]:
            raise StateError(
                f"the prior of {spec.bandit!r} from {evidence.origin} has no {name} of this spec's"
                " shape; apply the spec with another prior"
            )
        total[name] = array.astype(np.float64)
        total[name][rows] += more
    return total


def from_statistics(spec: Spec, source: Statistics, origin: str) -> Evidence:
    """Take over what another bandit's outcomes say of the actions that both have.

    Its own prior, in its spec or from elsewhere, isn't among it.

    Raises
    ------
    SpecError
        If its sums don't mean the same, or it shares no action.
    """
    theirs = source.spec
    _refuse_unfit(spec)
    learner = learner_of(spec)
    ours = learner.shapes(spec.model_copy(update={"actions": theirs.actions}))
    chained = isinstance(learner, ChainedLearner)
    differences = {
        "features": spec.features_hash != theirs.features_hash,
        "the reward's range": (spec.reward.low, spec.reward.high)
        != (theirs.reward.low, theirs.reward.high),
        "what the policy sums up": ours != learner_of(theirs).shapes(theirs)
        or (chained and spec.policy.name != theirs.policy.name),
        "all actions": not set(spec.actions) & set(theirs.actions),
    }
    found = ", ".join(what for what, differs in differences.items() if differs)
    if found:
        raise SpecError(
            f"{spec.bandit!r} can't start from {theirs.bandit!r}: they differ in {found}; take"
            " another bandit, or write mean and strength of the actions into the spec's prior"
        )
    arrays = {n: np.asarray(a, dtype=np.float64) for n, a in source.solvable().items()}
    if isinstance(learner, PortableChain):
        arrays = dict(learner.evidence_of(theirs, arrays))
    return Evidence(origin, theirs.actions, arrays).of(spec.actions)


def from_outcomes(spec: Spec, outcomes: Iterable[pa.RecordBatch], origin: str) -> Weighed:
    """Learn a log as evidence, each outcome weighed by 1 / its propensity.

    So the sums are those of subjects as they come, not as the policy that wrote the log picked them
    for an action. Each action's are scaled to the number of outcomes that its weights are worth,
    ``(sum of w)**2 / sum of w**2`` (Kish): uneven weights know less than they count. A chain learns
    the outcomes in their order, from the spec's prior, with weights that are scaled so before.

    A learner that divides by propensities itself gets no weights.

    Parameters
    ----------
    spec
        Whose features, reward function and learner.
    outcomes
        Batches as of `bandstand.learners.logged.outcomes`, of at most `grid.CHUNK` rows.
    origin
        Where they come from.

    Raises
    ------
    SpecError
        If the learner can't use evidence.
    StateError
        If no outcome can be used.
    """
    _refuse_unfit(spec)
    weighing, count = _for_logs(spec), len(spec.actions)
    learner = learner_of(weighing)
    sums, chained = dict[str, npt.NDArray[np.int64]](), list[Rows]()
    used, total, squares = np.zeros(count), np.zeros(count), np.zeros(count)
    counters = Counter[str]()
    for batch in outcomes:
        if weighing.policy.needs_propensity:
            found = read(weighing, batch)
        else:
            found = _weighed(weighing, batch)
        counters.update(found.counters)
        rows, roots = found.rows, found.rows.roots
        weights = np.ones(len(rows.actions)) if roots is None else (roots / STEPS) ** 2
        used += np.bincount(rows.actions, minlength=count)
        total += np.bincount(rows.actions, weights, count)
        squares += np.bincount(rows.actions, weights * weights, count)
        if isinstance(learner, ChainedLearner):
            chained.append(rows)
            continue
        for name, array in learner.sums(weighing, rows).items():
            sums[name] = sums.get(name, 0) + array
    if not used.any():
        why = ", ".join(f"{name} {n}" for name, n in sorted(counters.items())) or "it is empty"
        raise StateError(f"{origin} has no outcome that {spec.bandit!r} can learn from: {why}")
    worth = total / np.maximum(squares, 1e-300)
    if isinstance(learner, PortableChain):
        arrays = _chained(learner, weighing, chained, worth)
        evidence = Evidence(origin, spec.actions, arrays)
    else:
        arrays = {n: a.astype(np.float64) for n, a in keeper_of(weighing).solvable(sums).items()}
        evidence = Evidence(origin, spec.actions, arrays)._scaled(worth)
    return Weighed(
        evidence,
        dict(zip(spec.actions, used.astype(int).tolist(), strict=True)),
        dict(counters),
    )


def _chained(learner: PortableChain, spec: Spec, outcomes: Iterable[Rows], worth: Floats) -> Arrays:
    """Learn outcomes in their order, the weights of each action's multiplied by what one is worth.

    Scaled afterwards, what an outcome of a large weight says at the beginning would have moved the
    chain as far as so many outcomes do, and curvatures would be those of where it went.
    """
    state = learner.start(spec)
    for rows in outcomes:
        weighed = rows
        if rows.roots is not None:
            scale = np.sqrt(worth[rows.actions])
            steps, roots = rows.steps * scale[:, np.newaxis], rows.roots * scale
            weighed = replace(rows, steps=steps, roots=roots)
        state = learner.advance(spec, state, weighed)
    return learner.evidence_of(spec, _numbers(state))


def _numbers(state: Whole) -> dict[str, Floats]:
    """Give a chain's numbers for their bits."""
    return {name: array.view(np.float64) for name, array in state.items()}


def _weighed(weighing: Spec, batch: pa.RecordBatch) -> Read:
    """Read outcomes whose keep probability is made from their propensity, and count by that."""
    shares = pc.map_lookup(batch.column("decision").field("subject_numeric"), PROPENSITY, "first")
    found = read(weighing, batch.filter(shares.is_valid()))
    counters = Counter({"rejected_propensity": shares.null_count, **found.counters})
    counters["clipped_propensity"] = counters.pop("clipped_keep_probability", 0)
    return found._replace(counters=+counters)


def _for_logs(spec: Spec) -> Spec:
    """Give the spec for learning a log: all of it counts, by propensities where there are any."""
    changed: dict[str, Any] = {"forget": None, "since": None, "drift": None}
    if not spec.policy.needs_propensity:
        keep = KeepProbability.model_construct(
            attribute=PROPENSITY, least=LEAST_PROPENSITY, absent=None
        )
        changed["reward"] = spec.reward.model_copy(update={"keep_probability": keep})
    return spec.model_copy(update=changed)


def _refuse_unfit(spec: Spec) -> None:
    learner = learner_of(spec)
    sealed = isinstance(learner, ChainedLearner) and not isinstance(learner, PortableChain)
    if sealed or not getattr(learner, "actions_apart", False):
        raise SpecError(
            f"{spec.bandit!r} can't start from what others know: {spec.policy.name} doesn't keep"
            " its actions apart, as sums or as chains that can tell what outcomes said; take"
            " another policy"
        )
