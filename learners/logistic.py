"""Thompson sampling on logistic models, learned outcome by outcome by Laplace's approximation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, Literal

import numpy as np

from bandstand.errors import StateError
from bandstand.learners.beliefs import beliefs, refuse_too_sure
from bandstand.learners.grid import STEPS
from bandstand.learners.linear import Ridge
from bandstand.learners.linear_policy import LinearPolicy, Moments, disjoint
from bandstand.learners.linear_thompson import sampled_best
from bandstand.learners.log_odds import expected, expecting, mode_of
from bandstand.learners.logistic_states import (
    begun,
    diagonal_begun,
    diagonal_product,
    diagonal_said,
    product,
    said,
)
from bandstand.learners.protocols import Arrays, Rows, Solved, Whole
from bandstand.learners.triangles import Floats, symmetric_of, triangle
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import NotNegative, PolicySpec

__all__ = [
    "DiagonalLogisticThompson",
    "DiagonalLogisticThompsonSpec",
    "LogisticThompson",
    "LogisticThompsonSpec",
]

WEIGHTED: Final[Mapping[str, int]] = {}
"""A chain has numbers, not steps, so with weights none become finer."""


class _LogisticSpec(PolicySpec):
    """What both have to be told."""

    contextual: ClassVar[bool] = True
    informed: ClassVar[bool] = True

    prior_precision: Ridge = 1.0
    exploration: NotNegative = 1.0

    def check_belief(self, action: str, mean: float, strength: float) -> None:
        """Refuse what has no mode in log-odds, or hardly one."""
        refuse_too_sure(action, mean, strength)

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
    ``N(0, 1 / prior_precision)``. A spec's prior of mean r and strength n is n outcomes of r at the
    middle of all features: the intercept has the precision ``n * r * (1 - r)``, the curvature that
    their likelihood has where the share of successes is r, and the mean for which the expected
    reward is r, as it is scored. That isn't the mode of their likelihood, ``log(r / (1 - r))``: of
    rare rewards one would then expect more than r, by two thirds where one success stands behind
    it, and data that confirm the prior would take it back.

    An outcome moves ``N(m, S)`` to Laplace's approximation of the product with its likelihood. That
    depends on w through ``z = x @ w`` only, so the mode and the curvature there are found exactly,
    by one number (`bandstand.learners.log_odds.mode_of`)::

        a = x @ m,  v = x' S x,  z = a + v * (y - sigmoid(z)),  c = sigmoid(z) * (1 - sigmoid(z))
        m <- m + S x * (y - sigmoid(z))
        S <- S - S x x' S * c / (1 + c * v)

    An outcome of weight w counts as w alike: its likelihood is raised to that power, so that both
    ``y - sigmoid(z)`` and c are multiplied by it.

    What several partitions know is put together as `bandstand.learners.logistic_merge` says. An
    action that only one of them has had is taken over as it is. What comes from elsewhere has lost
    the prior that it was learned with (`bandstand.learners.logistic_states`), and is one more.

    A decision compares ``N(x @ m, exploration**2 * x' S x)`` of all actions: larger log-odds are
    larger rewards. The score is the expected reward, by MacKay's
    ``sigmoid(a / sqrt(1 + pi * v / 8))``, but at most ``exp(a + v / 2)``, which the integral
    doesn't exceed, since a sigmoid lies below the exponential; so also of failures. It is within
    0.02 of the integral, and within 5 % of it where that is below 0.01 and v below 1.

    References
    ----------
    Spiegelhalter and Lauritzen, Sequential updating of conditional probabilities on directed
    graphical structures (1990), for the update; Chapelle and Li, An empirical evaluation of
    Thompson sampling (2011); MacKay, The evidence framework applied to classification networks
    (1992), for the score.
    """

    parameters = LogisticThompsonSpec
    weighted = WEIGHTED
    actions_apart = True

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
        mean, precision = _prior(spec)
        covariance = triangle(np.eye(mean.shape[1]) / precision[:, np.newaxis])
        return _bits(
            {"outcomes": np.zeros(len(mean)), "mean": mean, "covariance": covariance},
        )

    def advance(self, spec: Spec, state: Whole, rows: Rows) -> Whole:  # noqa: ARG002
        """Take outcomes one after the other.

        Sums run along rows of numpy's own, without BLAS, so that the number of its threads
        changes no bit.
        """
        outcomes, mean = _counted(state, rows), _floats(state["mean"]).copy()
        triangles = _floats(state["covariance"]).copy()
        for action, features, rewards, counts in _by_action(rows):
            weights = mean[action]
            covariance = symmetric_of(triangles[action], len(weights))
            for x, reward, count in zip(features, rewards, counts, strict=True):
                spread = np.add.reduce(covariance * x, axis=1)
                variance = float(np.add.reduce(spread * x))
                odds = float(np.add.reduce(weights * x))
                gain, curvature = mode_of(odds, variance, reward, count)
                weights += spread * gain
                covariance -= np.multiply.outer(spread, spread) * (
                    curvature / (1.0 + curvature * variance)
                )
            triangles[action] = triangle(covariance)
        return _bits({"outcomes": outcomes, "mean": mean, "covariance": triangles})

    def merge(self, spec: Spec, first: Whole, second: Whole) -> Whole:
        """Put together two posteriors that begin with the same prior."""
        return _together(spec, first, second, product)

    def evidence_of(self, spec: Spec, state: Arrays) -> Arrays:
        """``outcomes``, ``place``, ``slope`` and ``curvature`` (lower triangle) per action.

        `bandstand.learners.logistic_states` says what they are.
        """
        return _told(spec, state, said)

    def start_from(self, spec: Spec, evidence: Arrays) -> Whole:
        """Give the mode of the prior and what was said elsewhere, and the precision there."""
        return _begun(spec, self.start(spec), evidence, begun)

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
    weighted = WEIGHTED
    actions_apart = True

    def shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``outcomes``; ``mean``, ``precision`` and ``pull`` (sum of c x) per action."""
        actions, dimension = len(spec.actions), len(spec.feature_names)
        wide = (actions, dimension)
        return {"outcomes": (actions,), "mean": wide, "precision": wide, "pull": wide}

    def start(self, spec: Spec) -> Whole:
        """Give the prior."""
        mean, precision = _prior(spec)
        state = {"mean": mean, "precision": precision, "pull": np.zeros_like(mean)}
        return _bits({"outcomes": np.zeros(len(mean)), **state})

    def advance(self, spec: Spec, state: Whole, rows: Rows) -> Whole:  # noqa: ARG002
        """Take outcomes one after the other."""
        outcomes, mean = _counted(state, rows), _floats(state["mean"]).copy()
        precision, pull = _floats(state["precision"]).copy(), _floats(state["pull"]).copy()
        for action, features, rewards, counts in _by_action(rows):
            weights, precise, pulled = mean[action], precision[action], pull[action]
            for x, reward, count in zip(features, rewards, counts, strict=True):
                spread = x / precise
                variance = float(np.add.reduce(spread * x))
                odds = float(np.add.reduce(weights * x))
                gain, curvature = mode_of(odds, variance, reward, count)
                weights += spread * gain
                curved = x * curvature
                precise += x * curved
                pulled += curved
        moved = {"mean": mean, "precision": precision, "pull": pull}
        return _bits({"outcomes": outcomes, **moved})

    def merge(self, spec: Spec, first: Whole, second: Whole) -> Whole:
        """Put together two posteriors that begin with the same prior."""
        return _together(spec, first, second, diagonal_product)

    def evidence_of(self, spec: Spec, state: Arrays) -> Arrays:
        """``outcomes``, ``place``, ``slope``, ``curvature`` and ``pull`` per action."""
        return _told(spec, state, diagonal_said)

    def start_from(self, spec: Spec, evidence: Arrays) -> Whole:
        """Give the mode of the prior and what was said elsewhere, and the precision there."""
        return _begun(spec, self.start(spec), evidence, diagonal_begun)

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


def _prior(spec: Spec) -> tuple[Floats, Floats]:
    """Give mean and precision of each weight before any data, float64[K, d]."""
    assert isinstance(spec.policy, _LogisticSpec)
    mean, strength = beliefs(spec)
    means = np.zeros((len(spec.actions), len(spec.feature_names)))
    precisions = np.full(means.shape, spec.policy.prior_precision)
    believed = ~np.isnan(mean)
    share = mean[believed]
    certain = strength[believed] * share * (1.0 - share)
    means[believed, 0], precisions[believed, 0] = expecting(share, 1.0 / certain), certain
    return means, precisions


def _together(
    spec: Spec,
    first: Whole,
    second: Whole,
    product: Callable[[Sequence[Arrays], Floats, Floats], Arrays],
) -> Whole:
    """Put together posteriors of the actions that both have had, and take over all others."""
    one, two = _floats(first["outcomes"]), _floats(second["outcomes"])
    both = (one > 0.0) & (two > 0.0)
    states = [{name: _floats(state[name]) for name in state} for state in (first, second)]
    parts = [{name: array[both] for name, array in state.items()} for state in states]
    mean, precision = _prior(spec)
    merged = {"outcomes": one + two}
    for name, array in product(parts, mean[both], precision[both]).items():
        merged[name] = np.where(two[:, np.newaxis] > 0.0, states[1][name], states[0][name])
        merged[name][both] = array
    return _bits(merged)


def _told(spec: Spec, state: Arrays, say: Callable[[Arrays, Floats, Floats], Arrays]) -> Arrays:
    """Give what outcomes said of the actions that had some; 0 of all others."""
    had = state["outcomes"] > 0.0
    mean, precision = _prior(spec)
    known = {name: array[had] for name, array in state.items()}
    told = {"outcomes": state["outcomes"]}
    for name, array in say(known, mean[had], precision[had]).items():
        told[name] = np.zeros((len(had), array.shape[1]))
        told[name][had] = array
    return told


def _begun(
    spec: Spec, start: Whole, evidence: Arrays, begin: Callable[[Arrays, Floats, Floats], Arrays]
) -> Whole:
    """Begin with the prior, and with what was said elsewhere of actions that had outcomes there."""
    had = evidence["outcomes"] > 0.0
    mean, precision = _prior(spec)
    state = {name: _floats(array).copy() for name, array in start.items()}
    state["outcomes"] += evidence["outcomes"]
    known = {name: array[had] for name, array in evidence.items()}
    for name, array in begin(known, mean[had], precision[had]).items():
        state[name][had] = array
    return _bits(state)


def _named(spec: Spec) -> dict[str, float]:
    assert isinstance(spec.policy, _LogisticSpec)
    return {
        "exploration": spec.policy.exploration,
        "prior_precision": spec.policy.prior_precision,
    }


def _policy(spec: Spec, moments: Moments, solved: Solved) -> LinearPolicy:
    return LinearPolicy(spec, moments, sampled_best(solved.parameters["exploration"]), expected)


def _floats(array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Floats:
    return array.view(np.float64)


def _bits(state: Mapping[str, Floats]) -> Whole:
    return {name: np.ascontiguousarray(array).view(np.int64) for name, array in state.items()}


def _counted(state: Whole, rows: Rows) -> Floats:
    outcomes = _floats(state["outcomes"])
    weights = None if rows.roots is None else (rows.roots / STEPS) ** 2
    return outcomes + np.bincount(rows.actions, weights, len(outcomes))


def _by_action(rows: Rows) -> Iterator[tuple[int, Floats, list[float], list[float]]]:
    """Give each action's features, float64[n, d], scaled rewards and weights, in their order."""
    order = np.argsort(rows.actions, kind="stable")
    values = rows.steps.take(order, axis=0) / STEPS
    weights = np.ones(len(order))
    if rows.roots is not None:
        roots = rows.roots[order] / STEPS
        values /= roots[:, np.newaxis]
        weights = roots * roots
    actions, starts = np.unique(rows.actions[order], return_index=True)
    if not len(actions):
        return  # of no values, `split` makes one part all the same
    parts = (np.split(array, starts[1:]) for array in (values, weights))
    for action, part, counts in zip(actions.tolist(), *parts, strict=True):
        yield action, np.ascontiguousarray(part[:, :-1]), part[:, -1].tolist(), counts.tolist()
