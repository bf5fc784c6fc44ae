"""Linear models whose actions share weights: Thompson sampling, and LinUCB's hybrid form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from bandstand.learners.action_features import ActionFeatures
from bandstand.learners.beliefs import beliefs
from bandstand.learners.lin_ucb import BoundSpec, largest_bound
from bandstand.learners.linear import Regressions, inverse_factor, squares
from bandstand.learners.linear_policy import LinearPolicy, Moments, disjoint
from bandstand.learners.linear_thompson import GaussianWeightsSpec, sampled_best
from bandstand.learners.protocols import Solved, Whole
from bandstand.learners.triangles import Floats, lower_of, triangle
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_features import own_columns

__all__ = [
    "HybridLinUCB",
    "HybridLinUCBSpec",
    "SharedLinearThompson",
    "SharedLinearThompsonSpec",
]

SEED: Final = 2010
"""Of the draws that every snapshot of a policy with joint draws has in common."""


class SharedLinearThompsonSpec(GaussianWeightsSpec):
    """Thompson sampling on one linear model of all actions.

    Parameters
    ----------
    prior_precision, noise_variance, exploration
        As of `LinearThompsonSpec`.
    draws
        0: each action competes by its own marginal. Otherwise so many joint draws of the weights,
        up to 100,000, are counted; see `SharedLinearThompson`.
    """

    shares_weights: ClassVar[bool] = True
    own_weights: ClassVar[bool] = False

    name: Literal["shared_linear_thompson"] = "shared_linear_thompson"
    draws: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 0


class HybridLinUCBSpec(BoundSpec):
    """LinUCB with weights of each action and weights that all share; deterministic.

    Parameters
    ----------
    alpha, prior_precision
        As of `LinUCBSpec`.
    """

    shares_weights: ClassVar[bool] = True

    name: Literal["hybrid_lin_ucb"] = "hybrid_lin_ucb"


class SharedLinearThompson(Regressions):
    """One Gaussian posterior of weights that all actions share.

    The scaled reward is ``phi(x, a) @ weights`` plus noise of variance ``noise_variance``;
    ``phi(x, a)`` has the columns x of the subject, those of the action and of their interactions
    (`ActionFeatures`), so it is ``M_a x``. Each weight has a prior ``N(0, 1 / prior_precision)``.
    With X_a and y_a the features and scaled rewards of the outcomes of action a::

        precision = prior_precision * I + sum_a M_a X_a'X_a M_a' / noise_variance
        mean      = precision**-1 @ sum_a M_a X_a'y_a / noise_variance

    The sums are those of models that are apart, ``X_a'X_a`` and ``X_a'y_a``.

    A spec's prior of mean m and strength n for an action is n outcomes of m at the middle of the
    subject's features. The column that is the action's alone (`own_columns`) has no prior of its
    own then, so that this is all that is believed of the action there, whatever the others teach.

    The expected rewards of two actions hang together through the weights. With ``draws = 0`` the
    policy is defined by independent draws of each action's own marginal,
    ``N(M_a' mean @ x, exploration**2 * x' M_a' precision**-1 M_a x)``, and its probabilities are
    exact for that policy. With ``draws = n`` it is Thompson sampling over n joint draws of the
    weights, the same standard normal numbers for every snapshot: an action's probability is the
    share of the draws under which it is the best, a multiple of 1/n (ties share), and exact too.

    References
    ----------
    Agrawal and Goyal, Thompson sampling for contextual bandits with linear payoffs (2013), where
    all arms share the weights and the draw is joint.
    """

    parameters = SharedLinearThompsonSpec

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Solve the posterior, and give what each action makes of it.

        Returns
        -------
        Solved
            ``mean`` and ``factor`` of each action, as of `Regressions.regress`. With joint draws
            also ``weights`` float64[D], and ``weights_factor`` float64[D * (D + 1) / 2], alike.

        Raises
        ------
        StateError
            If the precision isn't positive definite.
        """
        prior = spec.policy
        assert isinstance(prior, SharedLinearThompsonSpec)
        maps = _whole_maps(spec)
        products = squares(spec, sums)
        ridge = np.full(maps.shape[1], prior.prior_precision)
        own, (mean, strength) = own_columns(spec.action_features, spec.actions), beliefs(spec)
        for index in np.flatnonzero(~np.isnan(mean)).tolist():
            products[index, 0, 0] += strength[index]
            products[index, 0, -1] += strength[index] * mean[index]
            ridge[len(spec.feature_names) + own[spec.actions[index]]] = 0.0
        products /= prior.noise_variance
        turned = maps @ products[:, :-1, :-1] @ maps.swapaxes(1, 2)
        precision = turned.sum(axis=0) + np.diag(ridge)
        factor = inverse_factor(precision, "the shared weights")
        weights = factor.T @ (factor @ np.einsum("kij,kj->i", maps, products[:, :-1, -1]))
        arrays = {
            "mean": np.einsum("kij,i->kj", maps, weights),
            "factor": np.stack([triangle(_lower(factor @ each)) for each in maps]),
        }
        if prior.draws:
            arrays |= {"weights": weights, "weights_factor": triangle(factor)}
        parameters = {
            "exploration": prior.exploration,
            "noise_variance": prior.noise_variance,
            "prior_precision": prior.prior_precision,
            "draws": float(prior.draws),
        }
        return Solved(parameters, arrays)

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``factor`` per action, and the shared weights; see `solve`."""
        shapes = dict(super().solved_shapes(spec))
        assert isinstance(spec.policy, SharedLinearThompsonSpec)
        if spec.policy.draws:
            width = _whole_maps(spec).shape[1]
            shapes |= {"weights": (width,), "weights_factor": (width * (width + 1) // 2,)}
        return shapes

    def policy(self, spec: Spec, solved: Solved) -> LinearPolicy:
        """Make the policy of a posterior."""
        draws, exploration = int(solved.parameters["draws"]), solved.parameters["exploration"]
        if not draws:
            moments = disjoint(solved.arrays["mean"], solved.arrays["factor"])
            return LinearPolicy(spec, moments, sampled_best(exploration))
        weights = solved.arrays["weights"]
        factor = lower_of(solved.arrays["weights_factor"], len(weights))
        normal = np.random.default_rng(SEED).standard_normal((draws, len(weights)))
        drawn = weights + exploration * normal @ factor
        return LinearPolicy(spec, _jointly(_whole_maps(spec), weights, drawn), _share_of_draws)


class HybridLinUCB(Regressions):
    """LinUCB on ``z_a @ beta + x @ theta_a``: weights that all actions share, and each one's own.

    x are the columns of the subject; ``z_a = M_a x`` those of the action and of the interactions
    with it (`ActionFeatures`). Algorithm 2 of the paper keeps ``A_a``, ``B_a``, ``b_a``, ``A_0``
    and ``b_0``, outcome by outcome. With p the prior precision (1 in the paper), ``A_a = p * I +
    X_a'X_a`` and ``r_a = A_a**-1 X_a'y_a``, what it comes to after all outcomes is::

        A_0     = p * I + sum_a p * M_a (I - p * A_a**-1) M_a'
        beta    = A_0**-1 @ sum_a p * M_a r_a
        mean_a  = r_a + p * A_a**-1 M_a' beta
        s_a     = x' A_a**-1 x + p**2 * u' A_0**-1 u,  u = M_a A_a**-1 x
        bound_a = mean_a @ x + alpha * sqrt(s_a)

    A spec's prior of mean m and strength n for an action is n outcomes of m at the middle of the
    subject's features; the action's own intercept has no prior then (0 instead of p), so that this
    is all that is believed of the action there, whatever the others teach. So ``p * I`` is, for
    each action, a diagonal ``P_a``, and ``p * (I - p * A_a**-1)`` is ``P_a - P_a A_a**-1 P_a``.

    References
    ----------
    Li, Chu, Langford and Schapire, A contextual-bandit approach to personalized news article
    recommendation (2010), algorithm 2.
    """

    parameters = HybridLinUCBSpec

    def solve(self, spec: Spec, sums: Whole) -> Solved:
        """Solve the regressions.

        Returns
        -------
        Solved
            ``mean`` and ``factor`` of each action, as of `Regressions.regress`, and ``shared``
            float64[e], the weights beta.
        """
        policy = spec.policy
        assert isinstance(policy, HybridLinUCBSpec)
        maps = ActionFeatures(spec).maps
        apart = self.regress(spec, sums, policy.prior_precision, noise_variance=1.0)
        means, dimension = apart.arrays["mean"], maps.shape[2]
        ridge = np.full((len(maps), dimension), policy.prior_precision)
        ridge[~np.isnan(beliefs(spec)[0]), 0] = 0.0
        factors = lower_of(apart.arrays["factor"], dimension)
        inverses = factors.swapaxes(1, 2) @ factors
        turned = ridge[:, :, np.newaxis] * inverses
        rest = ridge[:, :, np.newaxis] * np.eye(dimension) - turned * ridge[:, np.newaxis]
        precision = policy.prior_precision * np.eye(maps.shape[1])
        precision += (maps @ rest @ maps.swapaxes(1, 2)).sum(axis=0)
        factor = inverse_factor((precision + precision.T) / 2, "the shared weights")
        shared = factor.T @ (factor @ np.einsum("kij,kj->i", maps, ridge * means))
        seen = maps @ turned
        lower = [
            _lower(np.concatenate([factor @ theirs, own]))
            for theirs, own in zip(seen, factors, strict=True)
        ]
        arrays = {
            "mean": means + np.einsum("kij,i->kj", seen, shared),
            "factor": np.stack([triangle(each) for each in lower]),
            "shared": shared,
        }
        return Solved({"alpha": policy.alpha}, arrays)

    def solved_shapes(self, spec: Spec) -> Mapping[str, tuple[int, ...]]:
        """``mean`` and ``factor`` per action, and ``shared``; see `solve`."""
        return {**super().solved_shapes(spec), "shared": (len(ActionFeatures(spec).names),)}

    def policy(self, spec: Spec, solved: Solved) -> LinearPolicy:
        """Make the policy of the regressions."""
        moments = disjoint(solved.arrays["mean"], solved.arrays["factor"])
        return LinearPolicy(spec, moments, largest_bound(solved.parameters["alpha"]))


def _whole_maps(spec: Spec) -> Floats:
    """Give M, float64[K, d + e, d]: the subject's columns, then those of `ActionFeatures`."""
    maps = ActionFeatures(spec).maps
    own = np.broadcast_to(np.eye(maps.shape[2]), (len(maps), maps.shape[2], maps.shape[2]))
    return np.concatenate([own, maps], axis=1)


def _lower(root: Floats) -> Floats:
    """Give the lower triangular F, float64[d, d], with ``F'F = root'root``."""
    upper = np.asarray(np.linalg.qr(root[:, ::-1], mode="r"))
    return upper[::-1, ::-1]


def _jointly(maps: Floats, weights: Floats, drawn: Floats) -> Moments:
    """Give the expected rewards under the mean weights, and under each draw of them."""

    def moments(features: Floats) -> tuple[Floats, Floats]:
        columns = maps @ features
        return columns @ weights, columns @ drawn.T

    return moments


def _share_of_draws(mean: Floats, rewards: Floats) -> Floats:  # noqa: ARG001 - draws decide
    """Give the share of draws, the columns of `rewards`, in which each action is the best."""
    best = rewards == rewards.max(axis=0)
    return np.asarray((best / best.sum(axis=0)).mean(axis=1))
