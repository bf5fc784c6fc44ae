"""Which learner a spec's policy name stands for."""

from __future__ import annotations

from typing import cast

from bandstand.learners.protocols import AdditiveLearner, ChainedLearner
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import learner

__all__ = ["learner_of"]


def learner_of(spec: Spec) -> AdditiveLearner | ChainedLearner:
    """Give the learner of a spec."""
    return cast("AdditiveLearner | ChainedLearner", learner(spec.policy.name))
