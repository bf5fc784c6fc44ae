"""What a bandit's spec in force is, and what a change of it means."""

from __future__ import annotations

from typing import Final, NamedTuple

from bandstand.learners.evidence import Evidence
from bandstand.learners.inherit import inherits
from bandstand.schemas.spec import Spec

__all__ = ["Ancestor", "InForce", "SpecChange"]

MOST_ANCESTORS: Final = 32


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
    """

    spec: Spec
    epoch: int
    ancestors: tuple[Ancestor, ...] = ()
    evidence: Evidence | None = None

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
        actions = self.spec.actions
        for ancestor in self.ancestors:
            if ancestor.epoch >= epoch:
                actions = tuple(a for a in actions if a in ancestor.spec.actions)
        return actions


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
