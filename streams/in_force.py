"""What a bandit's spec in force is, what a change of it means, and what takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from bandstand.learners.evidence import Evidence
from bandstand.learners.inherit import inherits
from bandstand.schemas.spec import Spec

__all__ = ["Ancestor", "InForce", "SpecChange", "Start", "Wanted"]

MOST_ANCESTORS: Final = 32


class Start(NamedTuple):
    """Where the logs of a partition ended when a bandit came to its lane.

    Parameters
    ----------
    outcome
        Offset in the outcome log before which it has none.
    decision
        Offset in the decision log: the first whose outcome counts. It was looked up later, so all
        outcomes that were there come from decisions before it.
    """

    outcome: int
    decision: int


class Ancestor(NamedTuple):
    """A spec that was in force before, whose sums the newer one goes on with."""

    epoch: int
    spec: Spec


class InForce(NamedTuple):
    """A spec and since when it holds.

    Parameters
    ----------
    spec
        The spec.
    epoch
        Offset of its record in ``specs``.
    ancestors
        Those before it, the newest first, as far back as sums go on.
    evidence
        What was known before any outcome.
    starts
        Where the bandit came to its lane, by partition; of partitions that aren't here, all that is
        retained counts.
    """

    spec: Spec
    epoch: int
    ancestors: tuple[Ancestor, ...] = ()
    evidence: Evidence | None = None
    starts: tuple[Start, ...] = ()

    def start(self, partition: int) -> Start:
        """Give from where on a partition's decisions and their outcomes count.

        All of them where the partition came after the bandit.
        """
        return self.starts[partition] if partition < len(self.starts) else Start(0, 0)

    def heirs(self, spec: Spec) -> tuple[Ancestor, ...]:
        """Give the ancestors of a spec that takes the place of this one."""
        found: list[Ancestor] = []
        for ancestor in (Ancestor(self.epoch, self.spec), *self.ancestors):
            if not inherits(spec, ancestor.spec) or len(found) == MOST_ANCESTORS:
                break
            found.append(ancestor)
        return tuple(found)

    def ancestor(self, epoch: int) -> Spec | None:
        """Give the spec of an epoch whose sums go on; None if they don't."""
        return next((a.spec for a in self.ancestors if a.epoch == epoch), None)

    def kept(self, epoch: int) -> tuple[str, ...]:
        """Give the actions that were there all the time since an ancestor's epoch.

        One that was taken away meanwhile is a new one, also for a learner that slept through it:
        what is learned doesn't depend on when it looked.
        """
        since = [set(a.spec.actions) for a in self.ancestors if a.epoch >= epoch]
        return tuple(a for a in self.spec.actions if all(a in actions for actions in since))


class SpecChange(NamedTuple):
    """What a new record in ``specs`` means.

    Parameters
    ----------
    bandit
        Name of the bandit.
    now
        What is in force now; None where the bandit was removed.
    before
        What was in force; None where the bandit is new.
    """

    bandit: str
    now: InForce | None
    before: InForce | None


class Wanted(NamedTuple):
    """A spec that somebody wants in force.

    Parameters
    ----------
    spec
        The spec.
    reason
        Why; kept with the record.
    evidence
        What is known before any outcome, instead of what was said before.
    instead_of
        Only where this epoch is in force: what somebody else has applied meanwhile stays.
    retained
        Decisions from before the bandit came to its lane count, too, as far as their outcomes are
        retained.
    """

    spec: Spec
    reason: str = ""
    evidence: Evidence | None = None
    instead_of: int | None = None
    retained: bool = False

    def is_due(self, specs: Mapping[str, InForce]) -> bool:
        """Tell whether something must change for it, given what is in force."""
        before = specs.get(self.spec.bandit)
        if self.instead_of is not None and (before is None or before.epoch != self.instead_of):
            return False
        return (
            before is None
            or before.spec.hash != self.spec.hash
            or (self.evidence is not None and not self.evidence.equals(before.evidence))
            or self._reaches_back(before)
        )

    def after(
        self, specs: Mapping[str, InForce], ends: Callable[[str], tuple[Start, ...]]
    ) -> InForce:
        """Give what is to take the place of what is in force; the epoch is -1 until it is written.

        Evidence that came with an earlier spec stays as long as sums go on. Where the bandit began
        stays as long as its lane.

        Parameters
        ----------
        specs
            What is in force.
        ends
            Tells where the partitions of a lane end now.
        """
        spec, before = self.spec, specs.get(self.spec.bandit)
        if before is None or before.spec.lane != spec.lane:
            starts = () if self.retained else ends(spec.lane)
            return InForce(spec, -1, (), self.evidence, starts)
        heirs = before.heirs(spec)
        evidence = self.evidence or (before.evidence if heirs else None)
        if self._reaches_back(before):
            return InForce(spec, -1, (), evidence)
        return InForce(spec, -1, heirs, evidence, before.starts)

    def loses(self, specs: Mapping[str, InForce]) -> Evidence | None:
        """Give what was known before any outcome, where the new spec can't go on with it."""
        before = specs.get(self.spec.bandit)
        gone = before is not None and self.evidence is None and not before.heirs(self.spec)
        return before.evidence if before is not None and gone else None

    def _reaches_back(self, before: InForce) -> bool:
        return self.retained and bool(before.starts)
