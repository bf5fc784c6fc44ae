"""Which learner a spec's policy name stands for."""

from __future__ import annotations

from typing import cast

from bandstand.learners.protocols import Learner
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import learner

__all__ = ["learner_of"]


def learner_of(spec: Spec) -> Learner:
    """Give the learner of a spec."""
    return cast(Learner, learner(spec.policy.name))
