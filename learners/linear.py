"""What linear learners share: exact products of the features, and ridge regressions of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.linalg.blas import dgemm, dsyrk
from scipy.linalg.lapack import dtrtri

from bandstand.errors import StateError
from bandstand.learners.arrow import room
from bandstand.learners.beliefs import beliefs
from bandstand.learners.grid import STEPS
from bandstand.learners.protocols import Rows, Solution, Solved, Whole
from bandstand.learners.triangles import Floats, triangle
from bandstand.schemas.spec import Spec

__all__ = ["Regressions", "Ridge", "inverse_factor", "squares"]

_ALL = slice(None)

WIDE = 32
"""Columns from which half of the products (syrk) take less time than all of them (gemm)."""

Ridge = Annotated[float, Field(strict=True, ge=1e-6, le=1e9)]
"""Weight of a ridge beside which a hundred million dependent rows can still be solved."""


class Regressions:
    """Products of the features and scaled rewards of each action, and their ridge regressions."""

    weighted: ClassVar[Mapping[str, int]] = {"outcomes": STEPS * STEPS}
    actions_apart: ClassVar[bool] = True

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
        order = np.argsort(rows.actions, kind="stable")
        steps = room(rows.steps.shape, np.float64)
        rows.steps.take(order, axis=0, out=steps, mode="clip")  # "raise" would buffer it once more
        ends = outcomes.cumsum().tolist()
        upper = _upper(width)
        products = np.zeros((count, len(upper)), dtype=np.int64)
        columns, square = steps.T, np.zeros((width, width), order="F")
        entries = square.T.reshape(-1)
        for action, size in enumerate(outcomes.tolist()):
            if size:
                _put_square(columns[:, ends[action] - size : ends[action]], square)
                products[action] = entries.take(upper)
        if rows.roots is not None:
            outcomes = np.bincount(rows.actions, rows.roots * rows.roots, count)
        return {"outcomes": outcomes.astype(np.int64), "products": products}

    def regress(
        self,
        spec: Spec,
        sums: Whole,
        ridge: float,
        noise_variance: float,
        before: Solution | None = None,
    ) -> Solved:
        """Solve each action's regression.

        A spec's prior of mean m and strength n is n outcomes of m at the middle of all features:
        the intercept has the mean m and the precision n / noise_variance before any data.

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
        before
            An earlier solution under the same spec; actions with the same products are taken over.

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
        kept = sums["products"]
        changed: npt.NDArray[np.bool_] | slice = _ALL
        if before is not None:
            differs = (kept != before.sums["products"]).any(axis=1)
            changed, before = (_ALL, None) if differs.all() else (differs, before)
        dimension = len(spec.feature_names)
        products = kept[changed] / (STEPS * STEPS * noise_variance)
        inner, target = _parts(dimension)
        precision = products.take(inner, axis=1)
        moments = products.take(target, axis=1)
        certain = np.full((len(products), dimension), ridge)
        if spec.prior is not None:
            mean, strength = (part[changed] for part in beliefs(spec))
            believed = ~np.isnan(mean)
            certain[believed, 0] = strength[believed] / noise_variance
            moments[believed, 0] += certain[believed, 0] * mean[believed]
        precision[:, :: dimension + 1] += certain
        names = spec.actions if before is None else np.array(spec.actions)[changed].tolist()
        factor = _inverse_factors(precision.reshape(-1, dimension, dimension), names)
        weighed = factor @ moments[:, :, None]
        arrays = {
            "mean": (factor.transpose(0, 2, 1) @ weighed)[:, :, 0],
            "factor": triangle(factor),
        }
        if before is not None:
            for name, array in arrays.items():
                whole = before.solved.arrays[name].copy()
                whole[changed] = array
                arrays[name] = whole
        return Solved({}, arrays)

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``factor`` per action; see `regress`."""
        actions, dimension = len(spec.actions), len(spec.feature_names)
        triangle = dimension * (dimension + 1) // 2
        return {"mean": (actions, dimension), "factor": (actions, triangle)}


def _put_square(block: Floats, square: Floats) -> None:
    """Write ``block @ block.T`` over the lower triangle of a square, both in Fortran's order."""
    if len(square) < WIDE:
        dgemm(1.0, block, block, 0.0, square, 0, 1, 1)
    else:
        dsyrk(1.0, block, 0.0, square, 0, 1, 1)


@cache
def _upper(width: int) -> npt.NDArray[np.intp]:
    """Positions of the upper triangle in a flattened square."""
    rows, columns = np.triu_indices(width)
    return np.asarray(rows * width + columns)


def squares(spec: Spec, sums: Whole) -> Floats:
    """Give each action's Z'Z, Z = [X, y], float64[K, d + 1, d + 1]."""
    products, width = sums["products"], len(spec.feature_names) + 1
    flat = (products / (STEPS * STEPS)).take(_places(width), axis=1)
    return np.asarray(flat.reshape(len(products), width, width))


@cache
def _parts(dimension: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Where the entries of X'X, row by row, and those of X'y are in the triangle of Z'Z."""
    places = _places(dimension + 1).reshape(dimension + 1, dimension + 1)
    return places[:-1, :-1].ravel(), places[:-1, -1].copy()


@cache
def _places(width: int) -> npt.NDArray[np.intp]:
    """Where the entries of a symmetric square, row by row, are in its upper triangle."""
    places = np.zeros((width, width), dtype=np.intp)
    rows, columns = np.triu_indices(width)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return places.reshape(-1)


def _inverse_factors(precisions: Floats, actions: Sequence[str]) -> Floats:
    """Give `inverse_factor` of each action's precision, float64[k, d, d]."""
    try:
        factors = np.linalg.cholesky(precisions)
    except np.linalg.LinAlgError:
        for precision, action in zip(precisions, actions, strict=True):
            inverse_factor(precision, f"action {action!r}")
        raise
    for factor in factors:
        dtrtri(factor.T, lower=0, overwrite_c=1)  # the transpose is what Fortran inverts in place
    return np.asarray(factors)


def inverse_factor(precision: Floats, of: str) -> Floats:
    """Give the inverse F of the Cholesky factor of a precision: ``F'F`` is its inverse.

    Parameters
    ----------
    precision
        float64[d, d], symmetric.
    of
        Whose it is, for the error.

    Raises
    ------
    StateError
        If it isn't positive definite.
    """
    try:
        lower = np.linalg.cholesky(precision)
    except np.linalg.LinAlgError as error:
        raise StateError(
            f"the precision of {of} isn't positive definite; its features are too nearly dependent"
            " for this prior: give a larger prior_precision"
        ) from error
    inverse, _ = dtrtri(lower, lower=1)
    return np.asarray(inverse)
