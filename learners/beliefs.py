"""What a spec believes of its actions, as arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandstand.schemas.spec import Spec

__all__ = ["beliefs"]

Floats = npt.NDArray[np.float64]


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
