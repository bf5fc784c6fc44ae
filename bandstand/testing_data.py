"""What the conformance suite feeds to learners: specs, outcomes and the statistics of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bandstand.learners.protocols import ChainedLearner
from bandstand.learners.statistics import Statistics
from bandstand.schemas.columns import arrow_schema
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import learner

__all__ = ["CONTEXTS", "Case", "batch", "learned", "merged", "outcome", "outcomes"]

_FEATURES = (
    {"name": "age", "kind": "numeric", "low": 0.0, "high": 80.0},
    {"name": "land", "kind": "categorical", "values": ["ch", "no", "de"]},
    {"name": "page", "kind": "hashed", "buckets": 4},
)
CONTEXTS: Final[tuple[dict[str, Any], ...]] = (
    {"age": 18.0, "land": "ch", "page": "/"},
    {"age": 44.5, "land": "no", "page": "/b"},
    {"age": 80.0},
    {},
)
WORKERS: Final = (1, 3, 7)
_BELIEFS: Final = {
    "prior": {
        "mean": 0.2,
        "strength": 9.0,
        "actions": {"a1": {"mean": 2.0, "strength": 40.0}},
    }
}


def _shared(actions: Sequence[str]) -> dict[str, Any]:
    """Give features of actions, by which six kinds of them can be told apart, and interactions."""
    kinds = [f"k{number}" for number in range(6)]
    size = {action: float(number) for number, action in enumerate(actions)}
    kind = {action: kinds[number % len(kinds)] for number, action in enumerate(actions)}
    return {
        "action_features": [
            {"name": "size", "kind": "numeric", "low": 0.0, "high": 300.0, "of": size},
            {"name": "kind", "kind": "categorical", "values": kinds, "of": kind},
        ],
        "interactions": [["age", "kind"], ["land", "kind"], ["age", "land"]],
    }


@dataclass(frozen=True)
class Case:
    """A learner under test, as the checks see it."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    regret: float = 1.0

    @property
    def chained(self) -> bool:
        """Whether it keeps chains instead of sums."""
        return isinstance(learner(self.name), ChainedLearner)

    @property
    def contextual(self) -> bool:
        """Whether it learns from features."""
        return bool(learner(self.name).parameters.contextual)

    @property
    def shares_weights(self) -> bool:
        """Whether it needs features of actions."""
        return bool(learner(self.name).parameters.shares_weights)

    @property
    def informed(self) -> bool:
        """Whether it takes a spec's beliefs about its actions."""
        return bool(learner(self.name).parameters.informed)

    def spec(self, actions: int = 4, floor: float = 0.0, *, prior: bool = False) -> Spec:
        """Give a spec of so many actions, with beliefs about them where asked for."""
        names = [f"a{number}" for number in range(actions)]
        return Spec.model_validate(
            {
                "bandit": "checked",
                "actions": names,
                "features": list(_FEATURES) if self.contextual else [],
                **(_shared(names) if self.shares_weights else {}),
                "policy": {"name": self.name, **self.parameters},
                "reward": {"name": "click", "low": -1.0, "high": 3.0, "aggregate": "sum"},
                "floor": floor,
                **(_BELIEFS if prior else {}),
            }
        )


def batch(records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Give outcomes as columns."""
    return pa.RecordBatch.from_pylist(list(records), schema=arrow_schema("outcome"))


def learned(spec: Spec, records: Sequence[Mapping[str, Any]]) -> Statistics:
    """Give what outcomes teach who knows nothing."""
    return Statistics.empty(spec).update(batch(records))


def merged(spec: Spec, records: Sequence[Mapping[str, Any]]) -> Statistics:
    """Learn seven partitions, by one worker, three and seven, and check that all come to one."""
    totals = [_by_workers(spec, records, workers) for workers in WORKERS]
    digests = {total.digest() for total in totals}
    assert len(digests) == 1, f"{len(digests)} digests over {WORKERS} workers"
    return totals[0]


def _by_workers(spec: Spec, records: Sequence[Mapping[str, Any]], workers: int) -> Statistics:
    partitions, parts = max(WORKERS), {}
    for worker in reversed(range(workers)):
        for partition in range(worker, partitions, workers):
            part, mine = Statistics.empty(spec), records[partition::partitions]
            for start in range(0, len(mine), 5 + workers):
                part = part.update(batch(mine[start : start + 5 + workers]))
            parts[partition] = part
    total = Statistics.empty(spec)
    for partition in range(partitions):
        total = total.merge(parts[partition])
    return total


def outcome(
    action: str,
    value: float | None,
    context: Mapping[str, Any],
    *,
    propensity: float = 0.5,
    ts: int = 1_000,
    **more: Any,
) -> dict[str, Any]:
    """Give an outcome; None stands for no reward."""
    reward = {"reward_id": "r", "name": "click", "value": value, "ts": ts, "offset": 0}
    decision = {
        "bandit": "checked",
        "decision_id": "d",
        "subject": "s",
        "ts": ts,
        "action": action,
        "propensity": propensity,
        "features_hash": "",
        "features": [],
        "subject_numeric": [(k, v) for k, v in context.items() if not isinstance(v, str)],
        "subject_categorical": [(k, v) for k, v in context.items() if isinstance(v, str)],
        "actions": [],
        "metadata": [],
        **more,
    }
    return {
        "state": "defaulted" if value is None else "joined",
        "source_offset": 0,
        "window_ms": 1,
        "backward_ms": 0,
        "grace_ms": 0,
        "rewards": [] if value is None else [{**reward, "metadata": []}],
        "decision": decision,
    }


def outcomes(spec: Spec, count: int = 600, seed: int = 1) -> list[dict[str, Any]]:
    """Give random outcomes, all actions among them, a few values beyond the reward's range."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        action = spec.actions[int(rng.integers(len(spec.actions)))]
        value = None if rng.random() < 0.3 else float(rng.normal(1.0, 1.5))
        context = dict(CONTEXTS[int(rng.integers(len(CONTEXTS)))])
        propensity = float(rng.uniform(0.01, 1.0))
        found.append(outcome(action, value, context, propensity=propensity, ts=number))
    return found
