"""Every learner passes the public suite, within the regret that is stated here."""

from __future__ import annotations

import pytest

from bandstand.schemas.spec_policy import learner_names
from bandstand.testing import CHECKS, check_learner

REGRET = {
    "beta_thompson": 0.2,
    "epsilon_greedy": 0.2,
    "exp3": 0.9,
    "gaussian_thompson": 0.2,
    "lin_ucb": 0.2,
    "linear_epsilon_greedy": 0.2,
    "linear_thompson": 0.2,
    "softmax": 0.35,
    "square_cb": 0.2,
    "student_thompson": 0.2,
    "ucb1": 0.3,
    "ucb_tuned": 0.2,
    "uniform": 1.1,
}


def test_every_learner_states_its_regret() -> None:
    """No learner escapes the suite."""
    assert sorted(REGRET) == learner_names()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", sorted(REGRET))
def test_conformance(name: str, check: str) -> None:
    """It keeps what is promised of all learners."""
    check_learner(name, only=check, regret=REGRET[name])
