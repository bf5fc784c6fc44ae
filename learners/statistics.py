"""What a learner keeps of outcomes, as a value: counted, digested, merged and restored."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.errors import StateError
from bandstand.learners.arrow import room
from bandstand.learners.features import Features
from bandstand.learners.grid import CHUNK, to_steps, weigh
from bandstand.learners.keepers import keeper_of
from bandstand.learners.protocols import Rows, Whole
from bandstand.learners.rewards import activated, earn, weights
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_drift import moment_ms

__all__ = ["Read", "Statistics", "read"]

_INT64: Final = np.dtype(np.int64)

_SPECS: Final = 4096
"""Specs of which is kept what only depends on them."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the outcomes of one bandit taught: a value, never changed in place.

    With an additive learner, the sums, the number of outcomes and the counters are a commutative
    group under `merge` and `subtract`: they and the digest depend on which outcomes were added, not
    on how. Where the spec forgets, that holds but for `subtract`. With a chained learner they
    depend on the order of the outcomes, but not on how these were cut into batches; `merge` takes
    its parts in the order of partitions.

    Parameters
    ----------
    spec
        What is learned.
    sums
        Named int64 arrays: whole numbers on the grid, or the bits of a chain's state. Not to be
        written to.
    counters
        What was rejected, cut or absent, by name; see `update`.
    outcomes
        Number of outcomes learned; rejected ones aren't among them.
    newest
        Newest decision time among them, ms since 1970; none before the first. After `subtract`
        still that of the minuend.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> spec = parse_spec('''
    ... {bandit: b, actions: [x, y], policy: {name: beta_thompson}, reward: {name: click}}
    ... ''', "b.yaml")
    >>> def outcome(action, clicks):
    ...     rewards = [{"name": "click", "value": 1.0} for _ in range(clicks)]
    ...     return {"rewards": rewards, "decision": {"action": action, "ts": 7}}
    >>> def batch(*outcomes):
    ...     return pa.RecordBatch.from_pylist(list(outcomes))
    >>> some = Statistics.empty(spec).update(batch(outcome("x", 1), outcome("y", 0)))
    >>> more = some.update(batch(outcome("x", 1), outcome("z", 1)))
    >>> more.arrays()["reward"].tolist(), more.outcomes, more.counters
    ([8192, 0], 3, {'rejected_action': 1})
    >>> more.subtract(some).merge(some).digest() == more.digest()
    True
    """

    spec: Spec
    sums: Whole
    counters: Mapping[str, int] = field(default_factory=dict)
    outcomes: int = 0
    newest: int | None = None

    @classmethod
    def empty(cls, spec: Spec) -> Statistics:
        """Give the statistics of no outcome."""
        return cls(spec, keeper_of(spec).start())

    @classmethod
    def from_arrays(
        cls,
        spec: Spec,
        arrays: Mapping[str, npt.NDArray[np.int64]],
        counters: Mapping[str, int],
        outcomes: int,
        newest: int | None,
    ) -> Statistics:
        """Restore what `arrays` gave.

        Raises
        ------
        StateError
            If names, shapes or types aren't those of the spec's learner, a total is too large or a
            state isn't finite.
        """
        keeper = keeper_of(spec)
        wanted = {name: (_INT64, shape) for name, shape in keeper.shapes.items()}
        given = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        if given != wanted:
            are, ask = (
                {name: (str(kind), shape) for name, (kind, shape) in each.items()}
                for each in (given, wanted)
            )
            raise StateError(
                f"arrays of bandit {spec.bandit!r} are {are}, but its spec asks for {ask};"
                " they were written under another spec"
            )
        sums = {name: array.copy() for name, array in arrays.items()}
        keeper.refuse_lost(sums)
        return cls(spec, sums, dict(counters), outcomes, newest)

    def arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """Give the sums by name, to be stored."""
        return dict(self.sums)

    def digest(self) -> str:
        """SHA-256 of the sums and of the number of outcomes, hexadecimal."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(f"outcomes {self.outcomes}\n".encode())
        for name, array in sorted(self.sums.items()):
            digest.update(f"{name} {list(array.shape)}\n".encode())
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.hexdigest()

    def update(self, outcomes: pa.RecordBatch | pa.Table) -> Statistics:
        """Add outcomes.

        Parameters
        ----------
        outcomes
            Rows of this bandit with the columns ``rewards`` and ``decision`` of the outcome schema.

        Returns
        -------
        Statistics
            The sum, with these counters grown: ``rejected_no_decision`` (oversize),
            ``rejected_action`` (not in the spec), ``rejected_features_hash``,
            ``rejected_features_width``, ``rejected_features_not_finite``,
            ``rejected_reward_not_finite``, ``rejected_cost``, ``rejected_propensity`` (not above 0
            and up to 1, where the learner needs it), ``rejected_keep_probability`` count outcomes
            that weren't learned, each under its first reason; so do ``before_since`` and
            ``not_activated``, before all but the first. ``clipped_reward``, ``clipped_features``,
            ``clipped_weighted``, ``clipped_keep_probability``, ``missing_features``,
            ``unknown_categories`` count values.

        Raises
        ------
        StateError
            If a total would become too large; nothing is lost.
        """
        total = self
        for batch in _batches(outcomes):
            found = read(self.spec, batch)
            sums, newest = total.sums, None
            if len(found.times):
                sums = keeper_of(self.spec).learn(sums, found.rows, found.times)
                newest = int(found.times.max())
            total = total._grown(sums, found.counters, len(found.times), newest)
        return total

    def merge(self, other: Statistics) -> Statistics:
        """Add the outcomes of another; with a chained learner, those of the next partition.

        Raises
        ------
        StateError
            If it has another spec, or a total would become too large.
        """
        self._refuse_foreign(other)
        if self.outcomes and other.outcomes:
            sums = keeper_of(self.spec).merge(self.sums, other.sums)
        else:
            sums = self.sums if self.outcomes else other.sums
        return self._grown(sums, other.counters, other.outcomes, other.newest)

    def subtract(self, other: Statistics) -> Statistics:
        """Take away the outcomes of another, which are among this one's.

        Raises
        ------
        StateError
            If it has another spec, a total would become too large, the learner is chained or the
            spec forgets.
        """
        self._refuse_foreign(other)
        sums = keeper_of(self.spec).subtract(self.sums, other.sums)
        counters = {name: -count for name, count in other.counters.items()}
        return self._grown(sums, counters, -other.outcomes, None)

    def solvable(self) -> Mapping[str, npt.NDArray[Any]]:
        """Give the sums as a learner's `solve` takes them: faded, and in their usual steps."""
        return keeper_of(self.spec).solvable(self.sums)

    def _refuse_foreign(self, other: Statistics) -> None:
        if other.spec is not self.spec and other.spec != self.spec:
            raise StateError(
                f"statistics of {self.spec.bandit!r} under spec {self.spec.hash[:12]} and of"
                f" {other.spec.bandit!r} under {other.spec.hash[:12]} can't be added"
            )

    def _grown(
        self, sums: Whole, counters: Mapping[str, int], outcomes: int, newest: int | None
    ) -> Statistics:
        keeper_of(self.spec).refuse_lost(sums)
        total = Counter(self.counters)
        total.update(counters)
        kept = {name: count for name, count in sorted(total.items()) if count}
        times = [time for time in (self.newest, newest) if time is not None]
        return Statistics(self.spec, sums, kept, self.outcomes + outcomes, max(times, default=None))


def _batches(outcomes: pa.RecordBatch | pa.Table) -> Iterator[pa.RecordBatch]:
    if isinstance(outcomes, pa.Table):
        yield from outcomes.to_batches(max_chunksize=CHUNK)
    else:
        for start in range(0, outcomes.num_rows, CHUNK):
            yield outcomes.slice(start, CHUNK)


class Read(NamedTuple):
    """What can be learned from a batch, and what was rejected."""

    rows: Rows
    counters: Counter[str]
    times: npt.NDArray[np.int64]


def read(spec: Spec, batch: pa.RecordBatch) -> Read:
    """Read at most CHUNK rows."""
    counters: Counter[str] = Counter()
    batch = _countable(spec, batch, counters)
    decisions = batch.column("decision")
    actions = _action_indexes(spec, decisions)
    built = _features(spec).matrix(decisions)
    earned = earn(spec.reward, batch.column("rewards"), decisions)
    counters.update({**built.counters, **earned.counters})
    reasons = {"action": actions < 0, **built.rejected, **earned.rejected}
    propensities = np.ones(len(actions))
    if spec.policy.needs_propensity:
        propensities = decisions.field("propensity").to_numpy(zero_copy_only=False)
        reasons["propensity"] = ~((propensities > 0) & (propensities <= 1))
    reward = (earned.values - spec.reward.low) / (spec.reward.high - spec.reward.low)
    steps, roots = room((len(actions), built.steps.shape[1] + 1), np.float64), None
    steps[:, :-1], steps[:, -1] = built.steps, to_steps(reward)[0]
    if spec.reward.keep_probability is not None:
        weighed = weights(spec.reward.keep_probability, decisions)
        reasons.update(weighed.rejected)
        steps, roots, clipped = weigh(steps, weighed.values)
        counters.update({**weighed.counters, "clipped_weighted": clipped})
    good = _reject(counters, reasons)
    times = decisions.field("ts").view(pa.int64()).to_numpy()
    if not good.all():
        actions, steps, propensities = actions[good], steps[good], propensities[good]
        roots = None if roots is None else roots[good]
        times = times[good]
    return Read(Rows(actions, steps, propensities, roots), +counters, times)


def _countable(spec: Spec, batch: pa.RecordBatch, counters: Counter[str]) -> pa.RecordBatch:
    """Leave out, and count, outcomes of which nothing else matters."""
    decisions = batch.column("decision")
    if decisions.null_count:
        counters["rejected_no_decision"] = decisions.null_count
        batch = batch.filter(decisions.is_valid())
    if spec.since is not None:
        times = batch.column("decision").field("ts").view(pa.int64()).to_numpy()
        counting = times >= moment_ms(spec.since)
        counters["before_since"] = int(np.count_nonzero(~counting))
        batch = batch.filter(pa.array(counting))
    if spec.reward.activation is not None:
        counting = activated(spec.reward.activation, batch.column("rewards"))
        counters["not_activated"] = int(np.count_nonzero(~counting))
        batch = batch.filter(pa.array(counting))
    return batch


def _action_indexes(spec: Spec, decisions: pa.StructArray) -> npt.NDArray[np.int16]:
    found = pc.index_in(decisions.field("action"), options=_lookup(spec))
    return np.asarray((found.fill_null(-1) if found.null_count else found).to_numpy(), np.int16)


@lru_cache(maxsize=_SPECS)
def _lookup(spec: Spec) -> pc.SetLookupOptions:
    return pc.SetLookupOptions(pa.array(spec.actions))


@lru_cache(maxsize=_SPECS)
def _features(spec: Spec) -> Features:
    return Features(spec)


def _reject(
    counters: Counter[str], reasons: Mapping[str, npt.NDArray[np.bool_]]
) -> npt.NDArray[np.bool_]:
    """Count the rows that are rejected, each under its first reason, and give the others."""
    good: npt.NDArray[np.bool_] | None = None
    for reason, bad in reasons.items():
        first = bad if good is None else bad & good
        if first.any():
            counters[f"rejected_{reason}"] += int(np.count_nonzero(first))
        good = ~bad if good is None else good & ~bad
    assert good is not None
    return good
