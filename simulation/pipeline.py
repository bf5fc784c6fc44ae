"""One simulated bandit's way from outcomes to policies: learn, publish, act on changes."""

from __future__ import annotations

from operator import attrgetter

import pyarrow as pa

from bandstand.learners.drift import acted, look
from bandstand.learners.policies import Policy
from bandstand.learners.snapshots import Before, build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec

__all__ = ["Pipeline"]


class Pipeline:
    """What the roles `learn` and `publish` do, for one bandit and one partition.

    Parameters
    ----------
    spec
        The first one in force; acts of a drift detector put others in its place.
    """

    def __init__(self, spec: Spec) -> None:
        self.changes = 0
        """Changes of an action's rewards that were found so far."""
        self._statistics = Statistics.empty(spec)
        self._before: Before | None = None
        self._learned: list[pa.RecordBatch] = []
        self._looked = -1

    @property
    def spec(self) -> Spec:
        """The spec in force."""
        return self._statistics.spec

    def learn(self, outcomes: pa.RecordBatch) -> None:
        """Learn outcomes; those of specs that a change may replace are kept, to be learned anew."""
        if self.spec.drift is not None and self.spec.drift.act != "alert":
            self._learned.append(outcomes)
        self._statistics = self._statistics.update(outcomes)

    def publish(self) -> Policy:
        """Give the policy of a new snapshot; a change that shows is for the next one.

        Raises
        ------
        StateError
            If the spec watches for drift, and river isn't installed.
        """
        snapshot = build(self.spec, self._statistics, 0, "", {}, before=self._before)
        self._before = Before.of(snapshot)
        self._look()
        return self._before.policy

    def _look(self) -> None:
        """Look for changes whenever a step is over, and do what the spec wants done."""
        known = self._statistics
        self._looked, found = look(self.spec, known.sums, known.newest, self._looked)
        self.changes += len(found)
        if found:
            self._apply(acted(self.spec, max(found, key=attrgetter("began"))))

    def _apply(self, spec: Spec) -> None:
        """Put a spec in force; what is known under it is what all outcomes so far teach."""
        if spec == self.spec:
            return
        self._looked = -1
        self._statistics = Statistics.empty(spec)
        for outcomes in self._learned:
            self._statistics = self._statistics.update(outcomes)
