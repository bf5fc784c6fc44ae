"""Logs that our learners and other libraries' read alike: all of their numbers are on the grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bandstand.learners.policies import policy_from_snapshot, solve
from bandstand.learners.protocols import Choice, Solved
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.learners.triangles import lower_of
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import learner
from tests.learners.given import batch, outcome

Floats = npt.NDArray[np.float64]

ACTIONS: Final = ("red", "green", "blue", "grey", "white")
"""Grey is taken once, white never."""

SEEDS: Final = (1, 2, 3)
LOW, HIGH = -2.0, 6.0
"""Range of the rewards; other libraries get them scaled to 0 to 1, as our learners see them."""

FEATURES: Final = (
    {"name": "pace", "kind": "numeric", "low": -1.0, "high": 1.0},
    {"name": "heat", "kind": "numeric", "low": 0.0, "high": 2.0},
    {"name": "land", "kind": "categorical", "values": ["ch", "no"]},
)


class Log(NamedTuple):
    """Outcomes of n decisions, in their order."""

    taken: npt.NDArray[np.intp]
    """Indexes among `ACTIONS`, int[n]."""
    rewards: Floats
    """Scaled, float64[n]."""
    x: Floats
    """Columns of `FEATURES`, float64[n, 5]: intercept, pace, heat, and whether ch or no."""
    records: list[dict[str, Any]]
    """The same for our learners."""

    def by_action(self) -> Iterator[tuple[int, Floats, Floats]]:
        """Give each action's index, columns and rewards, also of one that was never taken."""
        for index in range(len(ACTIONS)):
            mine = self.taken == index
            yield index, self.x[mine], self.rewards[mine]


def log(seed: int, count: int = 200, *, binary: bool = False) -> Log:
    """Give outcomes by chance; rewards hang on action and columns, `binary` ones are 0 or 1."""
    rng = np.random.default_rng(seed)
    taken = rng.choice(3, count, p=[0.15, 0.25, 0.6])
    taken[rng.integers(count)] = 3
    x = columns(rng, count)
    truth = rng.normal(0.0, 0.3, (len(ACTIONS), x.shape[1]))
    expected = 0.5 + np.einsum("nd,nd->n", x, truth[taken])
    means = np.clip(expected + rng.normal(0.0, 0.1, count), 0.0, 1.0)
    rewards = (rng.random(count) < means).astype(float) if binary else np.rint(means * 4096) / 4096
    records = [
        outcome(
            ACTIONS[action],
            [LOW + (HIGH - LOW) * reward],
            numeric=context_of(row)[0],
            words=context_of(row)[1],
        )
        for action, reward, row in zip(taken, rewards, x, strict=True)
    ]
    return Log(taken, rewards, x, records)


def columns(rng: np.random.Generator, count: int) -> Floats:
    """Give columns of subjects by chance, float64[n, 5]."""
    numbers = rng.integers(-4096, 4097, (count, 2)) / 4096
    land = rng.integers(0, 3, count)  # every third subject is from neither
    return np.column_stack([np.ones(count), numbers, land == 1, land == 2])


def context_of(row: Floats) -> tuple[dict[str, float], dict[str, str]]:
    """Give the attributes that have these columns: numbers and words."""
    land = "ch" if row[3] else "no" if row[4] else "de"
    return {"pace": float(row[1]), "heat": float(row[2]) + 1.0}, {"land": land}


def spec_of(name: str, more: Mapping[str, Any] | None = None, **parameters: float) -> Spec:
    """Give a spec of a policy; those with context get `FEATURES`."""
    return Spec.model_validate(
        {
            "bandit": "paint",
            "actions": ACTIONS,
            "features": FEATURES if learner(name).parameters.contextual else (),
            "policy": {"name": name, **parameters},
            "reward": {"name": "click", "low": LOW, "high": HIGH},
            **(more or {}),
        }
    )


def solution(spec: Spec, records: list[dict[str, Any]]) -> Solved:
    """Give what a snapshot carries."""
    return solve(spec, Statistics.empty(spec).update(batch(records)))


def decided(
    spec: Spec,
    records: list[dict[str, Any]],
    row: Floats | None = None,
    eligible: tuple[str, ...] = ACTIONS,
) -> Choice:
    """Decide by a snapshot, for a subject with these columns."""
    statistics = Statistics.empty(spec).update(batch(records))
    policy = policy_from_snapshot(build(spec, statistics, 0, "", {}))
    numbers, words = ({}, {}) if row is None else context_of(row)
    return policy.decide({**numbers, **words}, eligible)


def scaled(scores: Floats) -> Floats:
    """Take scores back to the range from 0 to 1."""
    return (scores - LOW) / (HIGH - LOW)


def covariances(solved: Solved) -> Floats:
    """Give the covariance of each action's weights, float64[K, d, d]."""
    factors = lower_of(solved.arrays["factor"], solved.arrays["mean"].shape[1])
    return factors.swapaxes(1, 2) @ factors
