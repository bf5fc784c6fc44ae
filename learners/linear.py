"""What linear learners share: one ridge regression an action, and a policy on mean and width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.linalg.lapack import dtrtri

from bandstand.errors import StateError
from bandstand.learners.features import Features
from bandstand.learners.grid import STEPS
from bandstand.learners.probabilities import with_floor
from bandstand.learners.protocols import Choice, Rows, Solved, Whole, eligible_indexes
from bandstand.schemas.spec import Spec

__all__ = ["Floats", "LinearPolicy", "Regressions", "Ridge"]

CACHE = 4096
"""Sets of eligible actions whose indexes a policy remembers."""

Floats = npt.NDArray[np.float64]

Ridge = Annotated[float, Field(strict=True, ge=1e-6, le=1e9)]
"""Weight of a ridge beside which a hundred million dependent rows can still be solved."""

_ALL = slice(None)


class Regressions:
    """Products of the features and scaled rewards of each action, and their ridge regressions."""

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

    def regress(self, spec: Spec, sums: Whole, ridge: float, noise_variance: float) -> Solved:
        """Solve each action's regression.

        Parameters
        ----------
        spec
            The spec in force.
        sums
            As of `sums`.
        ridge
            Precision of each weight before any data, > 0.
        noise_variance
            Variance that a scaled reward has around its mean, > 0.

        Returns
        -------
        Solved
            ``mean`` float64[K, d]; ``factor`` float64[K, d * (d + 1) / 2]: lower triangle, row by
            row, of the inverse F of the Cholesky factor of the precision, so that the variance
            of ``x @ weights`` is ``|F x|**2``. No parameters.

        Raises
        ------
        StateError
            If a precision isn't positive definite.
        """
        width = len(spec.feature_names) + 1
        squares = _square(sums["products"] / (STEPS * STEPS * noise_variance), width)
        precision = squares[:, :-1, :-1] + ridge * np.eye(width - 1)
        factor = np.stack(
            [_inverse_factor(p, a) for p, a in zip(precision, spec.actions, strict=True)]
        )
        mean = np.einsum("kji,kjl,kl->ki", factor, factor, squares[:, :-1, -1], optimize=True)
        rows, columns = np.tril_indices(width - 1)
        return Solved({}, {"mean": mean, "factor": factor[:, rows, columns]})

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``factor`` per action; see `regress`."""
        actions, dimension = len(spec.actions), len(spec.feature_names)
        triangle = dimension * (dimension + 1) // 2
        return {"mean": (actions, dimension), "factor": (actions, triangle)}


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
            " nearly dependent for this prior: give a larger prior_precision"
        ) from error
    inverse, _ = dtrtri(lower, lower=1)
    return np.asarray(inverse)


class LinearPolicy:
    """Decides by mean and standard deviation of each action's expected scaled reward.

    Parameters
    ----------
    spec
        The spec in force.
    solved
        With the arrays of `Regressions.regress`.
    """

    def __init__(self, spec: Spec, solved: Solved) -> None:
        self.spec = spec
        self._features = Features(spec)
        mean = solved.arrays["mean"]
        self._actions, self._dimension = mean.shape
        rows, columns = np.tril_indices(self._dimension)
        factor = np.zeros((self._actions, self._dimension, self._dimension))
        factor[:, rows, columns] = solved.arrays["factor"]
        # One product with x gives all means and all the vectors whose lengths are the deviations.
        self._stacked = np.concatenate([mean, factor.reshape(-1, self._dimension)])
        self._low = spec.reward.low
        self._range = spec.reward.high - spec.reward.low
        self._indexes: dict[tuple[str, ...], npt.NDArray[np.intp] | slice] = {spec.actions: _ALL}

    def probabilities(self, mean: Floats, deviation: Floats) -> Floats:
        """Give the probabilities of the eligible actions, without the floor.

        Parameters
        ----------
        mean, deviation
            float64[k], of the scaled reward of each; the policy may write to both.
        """
        raise NotImplementedError

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
        scores = self._low + self._range * mean
        probabilities = with_floor(self.probabilities(mean, deviation), self.spec.floor)
        return Choice(probabilities, scores, features)

    def _remember(self, key: tuple[str, ...]) -> npt.NDArray[np.intp]:
        indexes = eligible_indexes(self.spec, key)
        if len(self._indexes) >= CACHE:
            self._indexes = {self.spec.actions: _ALL}
        self._indexes[key] = indexes
        return indexes
