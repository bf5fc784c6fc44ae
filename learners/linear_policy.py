"""The policy of all models that are linear in the features: a mean and a width an action."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bandstand.learners.features import Features
from bandstand.learners.probabilities import with_floor
from bandstand.learners.protocols import Choice, eligible_indexes
from bandstand.learners.triangles import Floats, lower_of
from bandstand.schemas.spec import Spec

__all__ = ["LinearPolicy", "Moments", "Weigh", "disjoint"]

CACHE = 4096
"""Sets of eligible actions whose indexes a policy remembers."""

Moments = Callable[[Floats], tuple[Floats, Floats]]
"""From the features, float64[d], to mean and standard deviation of each action, float64[K]."""

Weigh = Callable[[Floats, Floats], Floats]
"""From mean and deviation of the eligible actions, both free to be written to, to probabilities."""

_ALL = slice(None)


def _means(mean: Floats, deviation: Floats) -> Floats:  # noqa: ARG001 - a score by the mean alone
    return mean


class LinearPolicy:
    """Decides by mean and standard deviation of each action.

    Parameters
    ----------
    spec
        The spec in force.
    moments
        Of all actions, in the order of the spec.
    weigh
        Probabilities without the floor.
    expected
        From means and deviations to expected scaled rewards; the means by default.
    """

    def __init__(
        self,
        spec: Spec,
        moments: Moments,
        weigh: Weigh,
        expected: Weigh = _means,
    ) -> None:
        self.spec = spec
        self._features = Features(spec)
        self._moments = moments
        self._weigh = weigh
        self._expected = expected
        self._low = spec.reward.low
        self._range = spec.reward.high - spec.reward.low
        self._indexes: dict[tuple[str, ...], npt.NDArray[np.intp] | slice] = {spec.actions: _ALL}

    def decide(self, context: Mapping[str, Any], eligible: Sequence[str]) -> Choice:
        """Give the probability of every eligible action."""
        key = tuple(eligible)
        known = self._indexes.get(key)
        indexes = self._remember(key) if known is None else known
        features = self._features.vector(context)
        mean, deviation = self._moments(features.astype(np.float64))
        if indexes is not _ALL:
            mean, deviation = mean[indexes], deviation[indexes]
        scores = self._low + self._range * self._expected(mean, deviation)
        probabilities = with_floor(self._weigh(mean, deviation), self.spec.floor)
        return Choice(probabilities, scores, features)

    def _remember(self, key: tuple[str, ...]) -> npt.NDArray[np.intp]:
        indexes = eligible_indexes(self.spec, key)
        if len(self._indexes) >= CACHE:
            self._indexes = {self.spec.actions: _ALL}
        self._indexes[key] = indexes
        return indexes


def disjoint(mean: Floats, factor: Floats) -> Moments:
    """Give the moments of models that are apart for each action.

    Parameters
    ----------
    mean
        float64[K, d], of the weights.
    factor
        float64[K, d * (d + 1) / 2], lower triangles F, row by row: ``|F x|**2`` is the variance.
    """
    actions, dimension = mean.shape
    # One product with x gives all means and all the vectors whose lengths are the deviations.
    stacked = np.concatenate([mean, lower_of(factor, dimension).reshape(-1, dimension)])

    def moments(features: Floats) -> tuple[Floats, Floats]:
        product = stacked @ features
        parts = product[actions:].reshape(actions, dimension)
        return product[:actions], np.sqrt(np.einsum("ij,ij->i", parts, parts))

    return moments
