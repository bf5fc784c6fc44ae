"""A snapshot, loaded: all that a decision needs, behind one reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bandstand.errors import DecisionError
from bandstand.learners.policies import Policy, policy_from_snapshot
from bandstand.serving.encoding import DecisionEncoder, Layouts

__all__ = ["Fallback", "Model", "load_model", "uniform_model"]

Fallback = Literal["live", "last_good", "bootstrap", "default"]
"""Step of the fall-back ladder."""


@dataclass(frozen=True)
class Model:
    """One way to choose for one bandit; never changed, only replaced.

    Parameters
    ----------
    bandit
        Name of the bandit.
    version
        Version of the snapshot; empty where there is none.
    lane
        Lane that its decisions are logged to.
    policy
        What gives the probabilities; None: all are equal.
    actions
        All actions of the snapshot, in its order; empty where there is none.
    published
        When the snapshot was published, seconds since 1970, UTC; None where there is none.
    step
        Best step of the ladder that an answer from it can have.
    encoder
        Writes its decisions.
    """

    bandit: str
    version: str
    lane: str
    policy: Policy | None
    actions: tuple[str, ...]
    published: float | None
    step: Fallback
    encoder: DecisionEncoder

    def eligible(self, actions: Sequence[str] | None) -> tuple[str, ...]:
        """Give the actions to choose from; the policy refuses those that it doesn't know."""
        return self.actions if actions is None else tuple(actions)


def load_model(
    snapshot: Mapping[str, Any], *, published: float, step: Fallback, layouts: Layouts
) -> Model:
    """Make a snapshot ready to choose.

    Parameters
    ----------
    snapshot
        The record, decoded.
    published
        When it was published, seconds since 1970, UTC.
    step
        Where it came from: ``live`` or ``bootstrap``.
    layouts
        Where the encoder keeps its layouts.

    Raises
    ------
    BandstandError
        If this version of Bandstand can't use it.
    """
    bandit, version = snapshot["bandit"], snapshot["version"]
    features_hash = snapshot["features_hash"] if snapshot["features"] else ""
    return Model(
        bandit=bandit,
        version=version,
        lane=snapshot["lane"],
        policy=policy_from_snapshot(dict(snapshot)),
        actions=tuple(snapshot["actions"]),
        published=published,
        step=step,
        encoder=DecisionEncoder(bandit, version, snapshot["policy"], features_hash, layouts),
    )


def uniform_model(
    bandit: str, lane: str, actions: Sequence[str] | None, known: Sequence[str], layouts: Layouts
) -> Model:
    """Make the model for a bandit of which no snapshot is at hand.

    Parameters
    ----------
    bandit
        Name of the bandit.
    lane
        Lane to log to.
    actions
        What the service allows.
    known
        Bandits that there are snapshots of, for the message.
    layouts
        Where the encoder keeps its layouts.

    Raises
    ------
    DecisionError
        If the service gave no actions: then nothing says what could be chosen.
    """
    if actions is None:
        raise DecisionError(
            f"no snapshot of bandit {bandit!r} is at hand, and no actions were given; "
            f"known: {', '.join(sorted(known)) or 'none'}; apply its spec ('bandstand apply'), see "
            "that 'bandstand publish' runs, call wait_ready first, give a bootstrap file, or pass "
            "actions to choose among them uniformly"
        )
    return Model(
        bandit=bandit,
        version="",
        lane=lane,
        policy=None,
        actions=(),
        published=None,
        step="default",
        encoder=DecisionEncoder(bandit, "", "uniform", "", layouts),
    )
