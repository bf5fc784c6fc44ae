"""What a learner keeps of outcomes, as a value: counted, digested, merged and restored."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bandstand.errors import StateError
from bandstand.learners.grid import CHUNK
from bandstand.learners.keepers import keeper_of
from bandstand.learners.protocols import Whole
from bandstand.learners.reading import Read, read, read_together
from bandstand.schemas.spec import Spec

__all__ = ["Statistics", "update_together"]

_INT64: Final = np.dtype(np.int64)
_FULL: Final = "rejected_full"


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
        sums = {n: array.copy() if array.flags.writeable else array for n, array in arrays.items()}
        keeper.refuse_lost(sums)
        return cls(spec, sums, dict(counters), outcomes, newest)

    @property
    def full(self) -> bool:
        """Whether one outcome more would have been too many; from that one on, none is learned.

        Which one that is depends on their order, but not on how they were cut into batches.
        """
        return _FULL in self.counters

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
            digest.update(np.ascontiguousarray(array, dtype="<i8").data)
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
            ``rejected_action`` (not in the spec), ``rejected_time`` (before 1970),
            ``rejected_features_hash``, ``rejected_features_width``,
            ``rejected_features_not_finite``, ``rejected_reward_not_finite``, ``rejected_cost``,
            ``rejected_propensity`` (not above 0 and up to 1, where the learner needs it),
            ``rejected_keep_probability`` count outcomes that weren't learned, each under its first
            reason; so do ``before_since`` and ``not_activated``, before all but the first.
            ``clipped_reward``, ``clipped_features``, ``clipped_weighted``,
            ``clipped_keep_probability``, ``missing_features``, ``unknown_categories`` count values.
            ``rejected_full`` counts the first outcome that would have taken a total too far, and
            all after it: see `full`.
        """
        total = self
        for batch in _batches(outcomes):
            total = total._learned(read(self.spec, batch), batch, 0, batch.num_rows)
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
        keeper_of(self.spec).refuse_lost(sums)
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
        keeper_of(self.spec).refuse_lost(sums)
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

    def _learned(self, found: Read, batch: pa.RecordBatch, first: int, end: int) -> Statistics:
        """Add what was found in rows of a batch, up to the first outcome that is too many."""
        if self.full:
            return self._grown(self.sums, {_FULL: end - first}, 0, None)
        count = len(found.times)
        if not count:
            return self._grown(self.sums, found.counters, 0, None)
        keeper = keeper_of(self.spec)
        sums = keeper.learn(self.sums, found.rows, found.times)
        try:
            keeper.refuse_lost(sums, unseen=count - 1)
        except StateError:
            if end - first == 1:
                return self._grown(self.sums, {_FULL: 1}, 0, None)
            total = self
            for start, stop in pairwise([first, (first + end) // 2, end]):
                half = read(self.spec, batch.slice(start, stop - start))
                total = total._learned(half, batch, start, stop)
            return total
        return self._grown(sums, found.counters, count, int(found.times.max()))

    def _grown(
        self, sums: Whole, counters: Mapping[str, int], outcomes: int, newest: int | None
    ) -> Statistics:
        kept = self.counters
        if counters:
            total = Counter(kept)
            total.update(counters)
            kept = {name: count for name, count in sorted(total.items()) if count}
        times = [time for time in (self.newest, newest) if time is not None]
        return Statistics(self.spec, sums, kept, self.outcomes + outcomes, max(times, default=None))


def update_together(
    held: Sequence[Statistics], edges: npt.NDArray[np.int64], outcomes: pa.RecordBatch
) -> list[Statistics]:
    """Add outcomes to the statistics of several bandits, read at once.

    Parameters
    ----------
    held
        One of each; their specs are of one `bandstand.learners.reading.likeness`.
    edges
        Where the rows of each begin, and the end of the last, int64[len(held) + 1].
    outcomes
        Their outcomes, one bandit's after the other's, as of `Statistics.update`.

    Returns
    -------
    list
        What `Statistics.update` gives for each bandit's own rows.
    """
    grown = list(held)
    for start in range(0, outcomes.num_rows, CHUNK):
        part = outcomes.slice(start, CHUNK)
        bounds = np.clip(edges - start, 0, part.num_rows)
        some = np.flatnonzero(np.diff(bounds))
        specs = [held[number].spec for number in some.tolist()]
        ends = np.append(bounds[some], part.num_rows)
        founds = read_together(specs, ends, part)
        spans = pairwise(ends.tolist())
        for number, found, (first, end) in zip(some.tolist(), founds, spans, strict=True):
            grown[number] = grown[number]._learned(found, part, first, end)
    return grown


def _batches(outcomes: pa.RecordBatch | pa.Table) -> Iterator[pa.RecordBatch]:
    if isinstance(outcomes, pa.Table):
        yield from outcomes.to_batches(max_chunksize=CHUNK)
    elif outcomes.num_rows <= CHUNK:
        yield outcomes
    else:
        for start in range(0, outcomes.num_rows, CHUNK):
            yield outcomes.slice(start, CHUNK)
