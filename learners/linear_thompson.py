"""Thompson sampling on linear models: one Gaussian posterior of the weights an action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dtrtri

from bandstand.errors import StateError
from bandstand.learners.algorithm import Choice, Rows, Solved, Whole, eligible_indexes
from bandstand.learners.features import Features
from bandstand.learners.grid import STEPS
from bandstand.learners.probabilities import gaussian_best, with_floor
from bandstand.schemas.spec import LinearThompson, Spec

__all__ = ["LinearThompsonAlgorithm", "LinearThompsonPolicy"]

CACHE = 4096
"""Sets of eligible actions whose indexes a policy remembers."""

Floats = npt.NDArray[np.float64]

_ALL = slice(None)


class LinearThompsonAlgorithm:
    """Gaussian posteriors of the weights, apart for each action ("disjoint").

    The scaled reward of action a is ``x @ weights_a`` plus noise of variance ``noise_variance``,
    and each weight has a prior ``N(0, 1 / prior_precision)``. With X and y the features and scaled
    rewards of the outcomes of that action::

        precision = prior_precision * I + X'X / noise_variance
        mean      = precision**-1 @ X'y / noise_variance

    A decision compares ``N(mean @ x, exploration**2 * x' precision**-1 x)`` of all actions, each on
    its own, so the probability of each is an integral over one number (`gaussian_best`).

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), eq. 3.50 and 3.51. Agrawal and Goyal,
    Thompson sampling for contextual bandits with linear payoffs (2013).
    """

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``outcomes`` per action; ``products`` per action.

        Products are the upper triangle, row by row, of Z'Z with Z = [X, y], in steps of 2**-24.
        """
        actions, width = len(spec.actions), len(spec.feature_names) + 1
        return {"outcomes": (actions,), "products": (actions, width * (width + 1) // 2)}

    def sums(self, spec: Spec, rows: Rows) -> Whole:
        """Sum up outcomes, exactly: see `bandstand.learners.grid` for why."""
        count, width = len(spec.actions), rows.steps.shape[1]
        outcomes = np.bincount(rows.actions, minlength=count)
        steps = rows.steps.take(np.argsort(rows.actions, kind="stable"), axis=0)
        ends = outcomes.cumsum().tolist()
        upper = _upper(width)
        products = np.zeros((count, len(upper)), dtype=np.int64)
        square = np.empty((width, width))
        for action, size in enumerate(outcomes.tolist()):
            if size:
                block = steps[ends[action] - size : ends[action]]
                np.dot(block.T, block, out=square)
                products[action] = square.take(upper)
        return {"outcomes": outcomes.astype(np.int64), "products": products}

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Solve each action's posterior.

        Returns
        -------
        Solved
            ``mean`` float64[K, d]; ``factor`` float64[K, d * (d + 1) / 2]: lower triangle, row by
            row, of the inverse F of the Cholesky factor of the precision, so that the variance
            of ``x @ weights`` is ``|F x|**2``; ``exploration``.

        Raises
        ------
        StateError
            If a precision isn't positive definite.
        """
        prior = spec.policy
        assert isinstance(prior, LinearThompson)
        width = len(spec.feature_names) + 1
        squares = _square(sums["products"] / (STEPS * STEPS * prior.noise_variance), width)
        precision = squares[:, :-1, :-1] + prior.prior_precision * np.eye(width - 1)
        factor = np.stack(
            [_inverse_factor(p, a) for p, a in zip(precision, spec.actions, strict=True)]
        )
        mean = np.einsum("kji,kjl,kl->ki", factor, factor, squares[:, :-1, -1], optimize=True)
        rows, columns = np.tril_indices(width - 1)
        return Solved(
            {
                "exploration": prior.exploration,
                "noise_variance": prior.noise_variance,
                "prior_precision": prior.prior_precision,
            },
            {"mean": mean, "factor": factor[:, rows, columns]},
        )

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``factor`` per action; see `solve`."""
        actions, dimension = len(spec.actions), len(spec.feature_names)
        triangle = dimension * (dimension + 1) // 2
        return {"mean": (actions, dimension), "factor": (actions, triangle)}

    def policy(self, spec: Spec, solved: Solved) -> LinearThompsonPolicy:
        """Make the policy of a posterior."""
        return LinearThompsonPolicy(spec, solved)


@cache
def _upper(width: int) -> npt.NDArray[np.intp]:
    """Positions of the upper triangle in a flattened square."""
    rows, columns = np.triu_indices(width)
    return np.asarray(rows * width + columns)


def _square(triangles: Floats, width: int) -> Floats:
    """Symmetric squares from upper triangles."""
    rows, columns = np.triu_indices(width)
    square = np.empty((len(triangles), width, width))
    square[:, rows, columns] = triangles
    square[:, columns, rows] = triangles
    return square


def _inverse_factor(precision: Floats, action: str) -> Floats:
    try:
        lower = np.linalg.cholesky(precision)
    except np.linalg.LinAlgError as error:
        raise StateError(
            f"the precision of action {action!r} isn't positive definite; its features are too"
            " nearly dependent for this prior_precision: give a larger one"
        ) from error
    inverse, _ = dtrtri(lower, lower=1)
    return np.asarray(inverse)


class LinearThompsonPolicy:
    """Takes each action with the probability that its sampled reward is the largest."""

    def __init__(self, spec: Spec, solved: Solved) -> None:
        self.spec = spec
        self._features = Features(spec)
        mean = solved.arrays["mean"]
        self._actions, self._dimension = mean.shape
        rows, columns = np.tril_indices(self._dimension)
        factor = np.zeros((self._actions, self._dimension, self._dimension))
        factor[:, rows, columns] = solved.arrays["factor"]
        factor *= solved.parameters["exploration"]
        # One product with x gives all means and all the vectors whose lengths are the deviations.
        self._stacked = np.concatenate([mean, factor.reshape(-1, self._dimension)])
        self._low = spec.reward.low
        self._range = spec.reward.high - spec.reward.low
        self._indexes: dict[tuple[str, ...], npt.NDArray[np.intp] | slice] = {spec.actions: _ALL}

    def decide(self, context: Mapping[str, Any], eligible: Sequence[str]) -> Choice:
        """Give the probability of every eligible action."""
        key = tuple(eligible)
        known = self._indexes.get(key)
        indexes = self._remember(key) if known is None else known
        features = self._features.vector(context)
        product = self._stacked @ features.astype(np.float64)
        mean = product[: self._actions]
        parts = product[self._actions :].reshape(self._actions, self._dimension)
        deviation = np.sqrt(np.einsum("ij,ij->i", parts, parts))
        if indexes is not _ALL:
            mean, deviation = mean[indexes], deviation[indexes]
        probabilities = with_floor(gaussian_best(mean, deviation), self.spec.floor)
        return Choice(probabilities, self._low + self._range * mean, features)

    def _remember(self, key: tuple[str, ...]) -> npt.NDArray[np.intp]:
        indexes = eligible_indexes(self.spec, key)
        if len(self._indexes) >= CACHE:
            self._indexes = {self.spec.actions: _ALL}
        self._indexes[key] = indexes
        return indexes
