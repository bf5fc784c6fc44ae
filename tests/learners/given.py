"""Specs and outcomes to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from bandstand.schemas.columns import arrow_schema
from bandstand.schemas.spec import Spec

ACTIONS = ("red", "green", "blue")


def linear_spec(
    actions: Sequence[str] = ACTIONS,
    features: Sequence[Mapping[str, Any]] | None = None,
    reward: Mapping[str, Any] | None = None,
    floor: float = 0.0,
    **policy: float,
) -> Spec:
    """Give a spec of linear Thompson with a numeric, a categorical and a hashed feature."""
    if features is None:
        features = [
            {"name": "age", "kind": "numeric", "low": 0.0, "high": 80.0},
            {"name": "land", "kind": "categorical", "values": ["ch", "no"]},
            {"name": "spend", "kind": "numeric", "low": -3.0, "high": 0.1},
            {"name": "page", "kind": "hashed", "buckets": 3},
        ]
    return _spec("linear_thompson", actions, features, reward, floor, policy)


def beta_spec(
    actions: Sequence[str] = ACTIONS,
    reward: Mapping[str, Any] | None = None,
    floor: float = 0.0,
    **policy: float,
) -> Spec:
    """Give a spec of beta Thompson."""
    return _spec("beta_thompson", actions, [], reward, floor, policy)


def _spec(
    name: str,
    actions: Sequence[str],
    features: Sequence[Mapping[str, Any]],
    reward: Mapping[str, Any] | None,
    floor: float,
    policy: Mapping[str, float],
) -> Spec:
    return Spec.model_validate(
        {
            "bandit": "paint",
            "actions": list(actions),
            "features": list(features),
            "policy": {"name": name, **policy},
            "reward": {"name": "click", **(reward or {})},
            "floor": floor,
        }
    )


def outcome(
    action: str = "red",
    rewards: Sequence[float | tuple[str, float]] = (),
    *,
    numeric: Mapping[str, float] | Sequence[tuple[str, float]] = (),
    words: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    vector: Sequence[float] = (),
    features_hash: str = "",
    eligible: Sequence[tuple[str, Sequence[tuple[str, float]]]] = (),
    ts: int = 1_000,
) -> dict[str, Any]:
    """Give an outcome record; bare rewards are clicks."""
    named = [("click", r) if isinstance(r, (int, float)) else r for r in rewards]
    entries = [
        {"reward_id": str(i), "name": n, "value": v, "ts": ts, "offset": i, "metadata": []}
        for i, (n, v) in enumerate(named)
    ]
    decision = {
        "bandit": "paint",
        "decision_id": "id",
        "subject": "someone",
        "ts": ts,
        "action": action,
        "propensity": 0.5,
        "features_hash": features_hash,
        "features": list(vector),
        "subject_numeric": list(dict(numeric).items() if isinstance(numeric, dict) else numeric),
        "subject_categorical": list(words.items() if isinstance(words, dict) else words),
        "actions": [
            {"action": name, "probability": None, "numeric": list(numbers), "categorical": []}
            for name, numbers in eligible
        ],
        "metadata": [],
    }
    frame = {"source_offset": 0, "window_ms": 1, "backward_ms": 0, "grace_ms": 0}
    state = "joined" if entries else "defaulted"
    return {"state": state, **frame, "rewards": entries, "decision": decision}


def oversize() -> dict[str, Any]:
    """Give the stub of an outcome that was too large."""
    return {**outcome(), "state": "oversize", "rewards": [], "decision": None}


def batch(outcomes: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Give outcomes as the columns that the codec gives."""
    return pa.RecordBatch.from_pylist(list(outcomes), schema=arrow_schema("outcome"))


numbers = st.one_of(
    st.floats(-100, 100), st.sampled_from([0.0, 1e300, -1e300, float("nan"), float("inf")])
)
outcomes = st.builds(
    outcome,
    action=st.sampled_from([*ACTIONS, "violet"]),
    rewards=st.lists(st.one_of(numbers, st.just(("buy", 3.0))), max_size=3),
    numeric=st.dictionaries(st.sampled_from(["age", "spend", "other"]), numbers),
    words=st.dictionaries(
        st.sampled_from(["land", "page", "x"]), st.sampled_from(["ch", "no", "de", "", "/a"])
    ),
    ts=st.integers(0, 2**40),
)
