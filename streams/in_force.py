"""What a bandit's spec in force is, and what a change of it means."""

from __future__ import annotations

from typing import NamedTuple

from bandstand.schemas.spec import Spec

__all__ = ["InForce", "SpecChange"]


class InForce(NamedTuple):
    """A spec and since when it holds.

    Parameters
    ----------
    spec
        The spec.
    epoch
        Offset of its record in ``specs``.
    """

    spec: Spec
    epoch: int


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
