"""Outcomes as the join writes them, for the tests of what comes after it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from bandstand.schemas.wire import Wire
from bandstand.streams.join_types import PROGRESS_HEADER, PROGRESS_KEY, Record

START_MS = 1_700_000_000_000


def outcome(
    source_offset: int,
    *,
    bandit: str = "home",
    action: str = "a",
    age: float = 40.0,
    plan: str = "free",
    clicks: int = 0,
    oversize: bool = False,
) -> dict[str, object]:
    """Give an outcome of a decision at an offset."""
    ts = START_MS + source_offset
    reward = {"reward_id": "r", "name": "click", "value": 1.0, "ts": ts, "offset": source_offset}
    decision = {
        "bandit": bandit,
        "decision_id": f"d{source_offset}",
        "subject": "s",
        "ts": ts,
        "action": action,
        "propensity": 0.5,
        "subject_numeric": {"age": age},
        "subject_categorical": {"plan": plan},
    }
    state = "oversize" if oversize else "joined" if clicks else "defaulted"
    return {
        "state": state,
        "source_offset": source_offset,
        "before": ts - 500,
        "window_ms": 1_000,
        "backward_ms": 0,
        "grace_ms": 0,
        "rewards": [{**reward, "reward_id": f"r{i}"} for i in range(clicks)],
        "decision": None if oversize else decision,
    }


def outcome_record(offset: int, fields: dict[str, object], wire: Wire) -> Record:
    """Give an outcome as it lies in its topic."""
    source_offset = fields["source_offset"]
    assert isinstance(source_offset, int)
    key = f"d{source_offset}".encode()
    return Record(offset, START_MS + source_offset, key, wire.dumps("outcome", fields), ())


def progress_record(offset: int, source_offset: int, before: int) -> Record:
    """Give a progress record as it lies in the outcome topic."""
    header = json.dumps({"source_offset": source_offset, "before": before}).encode()
    return Record(offset, before, PROGRESS_KEY, None, [(PROGRESS_HEADER, header)])


def random_outcomes(count: int, seed: int, bandit: str = "home") -> Iterator[dict[str, object]]:
    """Give outcomes of which no two teach the same."""
    draw = np.random.default_rng(seed)
    for source_offset in range(count):
        yield outcome(
            source_offset,
            bandit=bandit,
            action="abc"[draw.integers(3)],
            age=float(draw.uniform(0, 100)),
            plan=["free", "paid"][draw.integers(2)],
            clicks=int(draw.integers(2)),
        )
