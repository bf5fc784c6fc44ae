"""What a spec believes of its actions, as arrays."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bandstand.schemas.spec import Spec

__all__ = ["LEAST", "beliefs", "refuse_too_sure"]

Floats = npt.NDArray[np.float64]

LEAST: Final = 0.1
"""Least number of successes, or of failures, that a belief about a share may be worth."""


def beliefs(spec: Spec) -> tuple[Floats, Floats]:
    """Give the mean, scaled, and the strength of each action's prior.

    Returns
    -------
    mean, strength
        float64[K]; not-a-number where the policy's own prior holds.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> beliefs(parse_spec('''
    ... bandit: b
    ... actions: [x, y]
    ... policy: {name: beta_thompson}
    ... reward: {name: buy, high: 10}
    ... prior: {actions: {y: {mean: 5, strength: 8}}}
    ... ''', "b.yaml"))
    (array([nan, 0.5]), array([nan,  8.]))
    """
    given = spec.prior.beliefs(spec.actions) if spec.prior else [None] * len(spec.actions)
    pairs = [
        (np.nan, np.nan) if belief is None else (spec.reward.scaled(belief.mean), belief.strength)
        for belief in given
    ]
    mean, strength = np.array(pairs).T
    return mean, strength


def refuse_too_sure(action: str, mean: float, strength: float) -> None:
    """Refuse a belief about a share that is worth fewer than LEAST successes or failures.

    Parameters
    ----------
    action
        Whose, for the error.
    mean
        Scaled, 0 to 1.
    strength
        Outcomes that it is worth.

    Raises
    ------
    ValueError
        Saying how strong it must be.
    """
    rarer = min(mean, 1.0 - mean)
    if rarer * strength < LEAST:
        least = f"give at least {LEAST / rarer:.4g}" if rarer else "it can't be sure"
        raise ValueError(
            f"has a strength of {strength:g} for {action!r}, less than {LEAST:g} outcomes of"
            f" the rarer kind ({rarer:g} of them are); {least}"
        )
