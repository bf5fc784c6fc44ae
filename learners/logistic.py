"""Thompson sampling on logistic models, learned outcome by outcome by Laplace's approximation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np

from bandstand.errors import StateError
from bandstand.learners.grid import STEPS
from bandstand.learners.linear import Ridge
from bandstand.learners.linear_policy import LinearPolicy, Moments, disjoint
from bandstand.learners.linear_thompson import sampled_best
from bandstand.learners.protocols import Rows, Solved, Whole
from bandstand.learners.triangles import Floats, symmetric_of, triangle
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import NotNegative, PolicySpec

__all__ = [
    "DiagonalLogisticThompson",
    "DiagonalLogisticThompsonSpec",
    "LogisticThompson",
    "LogisticThompsonSpec",
]


class _LogisticSpec(PolicySpec):
    """What both have to be told."""

    contextual: ClassVar[bool] = True

    prior_precision: Ridge = 1.0
    exploration: NotNegative = 1.0

    @property
    def explores(self) -> bool:
        """Whether exploration is positive."""
        return self.exploration > 0


class LogisticThompsonSpec(_LogisticSpec):
    """Thompson sampling on one logistic model an action, with all covariances of its weights.

    Parameters
    ----------
    prior_precision
        1 / variance of each weight before any data, 1e-6 to 1e9; weights are in log-odds.
    exploration
        Standard deviations are multiplied by this before actions compete, 0 to 1e6; 1 is Thompson
        sampling, 0 takes the best mean.
    """

    name: Literal["logistic_thompson"] = "logistic_thompson"


class DiagonalLogisticThompsonSpec(_LogisticSpec):
    """Thompson sampling on one logistic model an action, its weights taken for independent.

    Parameters
    ----------
    prior_precision, exploration
        As of `LogisticThompsonSpec`.
    """

    name: Literal["diagonal_logistic_thompson"] = "diagonal_logistic_thompson"


class LogisticThompson:
    """Gaussian posteriors of the weights, one an action, moved by each outcome in turn ("chained").

    The scaled reward y, 0 to 1, of action a is a success with probability ``sigmoid(x @ w_a)``; one
    in between counts as that share of a success. Each weight has a prior
    ``N(0, 1 / prior_precision)``. An outcome moves ``N(m, S)`` to Laplace's approximation of the
    product with its likelihood. That depends on w through ``z = x @ w`` only, so the mode and the
    curvature there are found exactly, by one number (`_mode`)::

        a = x @ m,  v = x' S x,  z = a + v * (y - sigmoid(z)),  c = sigmoid(z) * (1 - sigmoid(z))
        m <- m + S x * (y - sigmoid(z))
        S <- S - S x x' S * c / (1 + c * v)

    Posteriors of several partitions multiply: their precisions, less the prior that all but one
    hold too often, add, and so do precisions times means.

    A decision compares ``N(x @ m, exploration**2 * x' S x)`` of all actions: larger log-odds are
    larger rewards. The score is the expected reward, by MacKay's
    ``sigmoid(a / sqrt(1 + pi * v / 8))``, within 0.02 of the integral.

    References
    ----------
    Spiegelhalter and Lauritzen, Sequential updating of conditional probabilities on directed
    graphical structures (1990), for the update; Chapelle and Li, An empirical evaluation of
    Thompson sampling (2011); MacKay, The evidence framework applied to classification networks
    (1992), for the score.
    """

    parameters = LogisticThompsonSpec

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``outcomes``, ``mean`` and ``covariance`` (lower triangle, row by row) per action."""
        actions, dimension = len(spec.actions), len(spec.feature_names)
        return {
            "outcomes": (actions,),
            "mean": (actions, dimension),
            "covariance": (actions, dimension * (dimension + 1) // 2),
        }

    def start(self, spec: Spec) -> Whole:
        """Give the prior."""
        actions, dimension = len(spec.actions), len(spec.feature_names)
        covariance = np.eye(dimension) / _precision(spec)
        return _bits(
            {
                "outcomes": np.zeros(actions),
                "mean": np.zeros((actions, dimension)),
                "covariance": np.tile(triangle(covariance), (actions, 1)),
            }
        )

    def advance(self, spec: Spec, state: Whole, rows: Rows) -> Whole:  # noqa: ARG002
        """Take outcomes one after the other.

        Sums run along rows of numpy's own, without BLAS, so that the number of its threads
        changes no bit.
        """
        outcomes, mean = _counted(state, rows), _floats(state["mean"]).copy()
        triangles = _floats(state["covariance"]).copy()
        for action, features, rewards in _by_action(rows):
            weights = mean[action]
            covariance = symmetric_of(triangles[action], len(weights))
            for x, reward in zip(features, rewards, strict=True):
                spread = np.add.reduce(covariance * x, axis=1)
                variance = float(np.add.reduce(spread * x))
                gain, curvature = _mode(float(np.add.reduce(weights * x)), variance, reward)
                weights += spread * gain
                covariance -= np.multiply.outer(spread, spread) * (
                    curvature / (1.0 + curvature * variance)
                )
            triangles[action] = triangle(covariance)
        return _bits({"outcomes": outcomes, "mean": mean, "covariance": triangles})

    def merge(self, spec: Spec, first: Whole, second: Whole) -> Whole:
        """Multiply two posteriors that begin with the same prior."""
        dimension = len(spec.feature_names)
        precision = -_precision(spec) * np.eye(dimension)
        pull = np.zeros(_floats(first["mean"]).shape)
        for state in (first, second):
            inverse = np.linalg.inv(symmetric_of(_floats(state["covariance"]), dimension))
            precision = precision + inverse
            pull += np.einsum("kij,kj->ki", inverse, _floats(state["mean"]))
        covariance = np.linalg.inv((precision + precision.swapaxes(1, 2)) / 2)
        return _bits(
            {
                "outcomes": _floats(first["outcomes"]) + _floats(second["outcomes"]),
                "mean": np.einsum("kij,kj->ki", covariance, pull),
                "covariance": triangle((covariance + covariance.swapaxes(1, 2)) / 2),
            }
        )

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Factor the covariances.

        Returns
        -------
        Solved
            ``mean`` float64[K, d]; ``factor`` float64[K, d * (d + 1) / 2]: lower triangle F, row
            by row, so that the variance of the log-odds is ``|F x|**2``.

        Raises
        ------
        StateError
            If a covariance isn't positive definite.
        """
        covariance = symmetric_of(sums["covariance"], len(spec.feature_names))
        try:  # from the last row up: then F'F, not FF', is the covariance
            factor = np.linalg.cholesky(covariance[:, ::-1, ::-1])[:, ::-1, ::-1].swapaxes(1, 2)
        except np.linalg.LinAlgError as error:
            raise StateError(
                f"a covariance of bandit {spec.bandit!r} isn't positive definite any more; give a"
                " larger prior_precision, which begins a new epoch"
            ) from error
        arrays = {"mean": sums["mean"], "factor": triangle(np.asarray(factor, np.float64))}
        return Solved(_named(spec), arrays)

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``factor`` per action; see `solve`."""
        shapes = self.shapes(spec)
        return {"mean": shapes["mean"], "factor": shapes["covariance"]}

    def policy(self, spec: Spec, solved: Solved) -> LinearPolicy:
        """Make the policy of a posterior."""
        moments = disjoint(solved.arrays["mean"], solved.arrays["factor"])
        return _policy(spec, moments, solved)


class DiagonalLogisticThompson:
    """As `LogisticThompson`, but keeps only the precision of each weight: for wide features.

    ``a = x @ m`` and ``v = sum(x**2 / q)``; z and c as there::

        m <- m + x / q * (y - sigmoid(z))
        q <- q + c * x**2

    The time for an outcome grows with d, not with its square, and so does a snapshot. What the
    features share is lost: where they go together, deviations come out too small.

    References
    ----------
    Chapelle and Li, An empirical evaluation of Thompson sampling (2011), algorithm 3, outcome by
    outcome.
    """

    parameters = DiagonalLogisticThompsonSpec

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``outcomes``, ``mean`` and ``precision`` per action."""
        actions, dimension = len(spec.actions), len(spec.feature_names)
        wide = (actions, dimension)
        return {"outcomes": (actions,), "mean": wide, "precision": wide}

    def start(self, spec: Spec) -> Whole:
        """Give the prior."""
        shapes = self.shapes(spec)
        state = {name: np.zeros(shape) for name, shape in shapes.items()}
        return _bits({**state, "precision": np.full(shapes["precision"], _precision(spec))})

    def advance(self, spec: Spec, state: Whole, rows: Rows) -> Whole:  # noqa: ARG002
        """Take outcomes one after the other."""
        outcomes, mean = _counted(state, rows), _floats(state["mean"]).copy()
        precision = _floats(state["precision"]).copy()
        for action, features, rewards in _by_action(rows):
            weights, precise = mean[action], precision[action]
            for x, reward in zip(features, rewards, strict=True):
                spread = x / precise
                variance = float(np.add.reduce(spread * x))
                gain, curvature = _mode(float(np.add.reduce(weights * x)), variance, reward)
                weights += spread * gain
                precise += x * x * curvature
        return _bits({"outcomes": outcomes, "mean": mean, "precision": precision})

    def merge(self, spec: Spec, first: Whole, second: Whole) -> Whole:
        """Multiply two posteriors that begin with the same prior."""
        one, two = _floats(first["precision"]), _floats(second["precision"])
        precision = one + two - _precision(spec)
        mean = (one * _floats(first["mean"]) + two * _floats(second["mean"])) / precision
        outcomes = _floats(first["outcomes"]) + _floats(second["outcomes"])
        return _bits({"outcomes": outcomes, "mean": mean, "precision": precision})

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Give ``mean`` and ``variance`` of each weight, float64[K, d]."""
        arrays = {"mean": sums["mean"], "variance": 1.0 / sums["precision"]}
        return Solved(_named(spec), arrays)

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``variance`` per action; see `solve`."""
        wide = (len(spec.actions), len(spec.feature_names))
        return {"mean": wide, "variance": wide}

    def policy(self, spec: Spec, solved: Solved) -> LinearPolicy:
        """Make the policy of a posterior."""
        mean, variance = solved.arrays["mean"], solved.arrays["variance"]

        def moments(features: Floats) -> tuple[Floats, Floats]:
            return mean @ features, np.sqrt(variance @ (features * features))

        return _policy(spec, moments, solved)


def _precision(spec: Spec) -> float:
    assert isinstance(spec.policy, _LogisticSpec)
    return spec.policy.prior_precision


def _named(spec: Spec) -> dict[str, float]:
    assert isinstance(spec.policy, _LogisticSpec)
    return {
        "exploration": spec.policy.exploration,
        "prior_precision": spec.policy.prior_precision,
    }


def _policy(spec: Spec, moments: Moments, solved: Solved) -> LinearPolicy:
    return LinearPolicy(spec, moments, sampled_best(solved.parameters["exploration"]), _expected)


def _expected(mean: Floats, deviation: Floats) -> Floats:
    odds = mean / np.sqrt(1.0 + math.pi / 8.0 * deviation * deviation)
    return np.asarray(0.5 + 0.5 * np.tanh(odds / 2.0))


def _floats(array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Floats:
    return array.view(np.float64)


def _bits(state: Mapping[str, Floats]) -> Whole:
    return {name: np.ascontiguousarray(array).view(np.int64) for name, array in state.items()}


def _counted(state: Whole, rows: Rows) -> Floats:
    outcomes = _floats(state["outcomes"])
    return outcomes + np.bincount(rows.actions, minlength=len(outcomes))


def _by_action(rows: Rows) -> Iterator[tuple[int, Floats, list[float]]]:
    """Give each action's features, float64[n, d], and scaled rewards, in their order."""
    order = np.argsort(rows.actions, kind="stable")
    values = rows.steps.take(order, axis=0) / STEPS
    actions, starts = np.unique(rows.actions[order], return_index=True)
    if not len(actions):
        return  # of no values, `split` makes one part all the same
    for action, part in zip(actions.tolist(), np.split(values, starts[1:]), strict=True):
        yield action, np.ascontiguousarray(part[:, :-1]), part[:, -1].tolist()


def _mode(mean: float, variance: float, reward: float) -> tuple[float, float]:
    """Find the mode of N(mean, variance) times a Bernoulli likelihood, over log-odds z.

    ``z = mean + variance * (reward - sigmoid(z))`` has one root, since its right side falls; it
    lies between the values of that side at sigmoids of 1 and 0. Newton's steps, halved where they
    leave what is known of the root.

    Returns
    -------
    gain
        ``reward - sigmoid(z)``, so that ``z = mean + variance * gain``.
    curvature
        ``sigmoid(z) * (1 - sigmoid(z))``.
    """
    low, high = mean + variance * (reward - 1.0), mean + variance * reward
    z = min(max(mean, low), high)
    for _ in range(_MOST_STEPS):
        share = _sigmoid(z)
        excess = z - mean - variance * (reward - share)
        if excess > 0.0:
            high = z
        else:
            low = z
        ahead = z - excess / (1.0 + variance * share * (1.0 - share))
        if not low < ahead < high:
            ahead = 0.5 * (low + high)
        if abs(ahead - z) <= 1e-14 * (1.0 + abs(z)):
            break
        z = ahead
    share = _sigmoid(z)
    return reward - share, share * (1.0 - share)


_MOST_STEPS = 100
"""More than halving needs, from the widest bracket to the last bit."""


def _sigmoid(z: float) -> float:
    if z >= 0.0:
        return 1.0 / (1.0 + math.exp(-z)) if z < 700.0 else 1.0
    return math.exp(z) / (1.0 + math.exp(z)) if z > -700.0 else 0.0
