"""Which algorithm a spec's policy name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bandstand.learners.algorithm import Algorithm
from bandstand.learners.beta_thompson import BetaThompsonAlgorithm
from bandstand.learners.linear_thompson import LinearThompsonAlgorithm
from bandstand.schemas.spec import Spec

__all__ = ["ALGORITHMS", "algorithm_of"]

ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "beta_thompson": BetaThompsonAlgorithm(),
    "linear_thompson": LinearThompsonAlgorithm(),
}


def algorithm_of(spec: Spec) -> Algorithm:
    """Give the algorithm of a spec."""
    return ALGORITHMS[spec.policy.name]
