"""Release a schema: ``python -m tests.schemas.golden``.

Writes every current schema that isn't released yet to ``schemas/released/<name>/<version>.avsc``,
and an example's bytes with their record to ``tests/schemas/golden/<name>-<version>.json``. Both
stay for ever: what was once written must be readable by every later version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bandstand.schemas.codec import NAMES, decode, encode
from bandstand.schemas.definitions import current, released

GOLDEN = Path(__file__).parent / "golden"
RELEASED = Path(__file__).parents[2] / "schemas" / "released"
TS = 1_700_000_000_123

DECISION: dict[str, Any] = {
    "bandit": "homepage",
    "decision_id": "018bcfe5-687b-7000-8000-000000000001",
    "subject": "user-1",
    "ts": TS,
    "snapshot_version": "3-120-0123456789abcdef",
    "policy": "linear_thompson",
    "action": "größer",
    "propensity": 0.75,
    "score": -0.5,
    "features_hash": "f00d",
    "features": [1.0, 0.5],
    "subject_numeric": {"age": 31.0},
    "subject_categorical": {"country": "NL"},
    "actions": [
        {"action": "größer", "probability": 0.75, "numeric": {"price": 2.5}, "categorical": {}},
        {"action": "", "probability": None, "numeric": {}, "categorical": {"kind": "x"}},
    ],
    "seed": -7,
    "fallback": "live",
    "optimality_gap": 0.25,
    "metadata": {"page": "front"},
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "dead_letter": {
        "reason": "truncated",
        "detail": "a reward of 9 bytes ends before its last field",
        "role": "join",
        "topic": "bandstand.default.rewards",
        "partition": 2,
        "offset": 2**40,
        "ts": TS,
        "key": b"\x00\xff",
        "value": None,
    },
    "decision": DECISION,
    "learner_position": {
        "lane": "default",
        "partition": 2,
        "next_offset": 17,
        "source_offset": -1,
        "complete_to": TS,
    },
    "learner_state": {
        "bandit": "homepage",
        "statistic": "linear",
        "spec_hash": "ab",
        "epoch": 3,
        "lane": "default",
        "partition": 2,
        "next_offset": 17,
        "outcomes": 9,
        "newest": TS,
        "counters": {"clipped": 1},
        "arrays": [
            {"name": "xx", "shape": [1, 1], "data": (-5).to_bytes(8, "little", signed=True)}
        ],
    },
    "outcome": {
        "state": "joined",
        "source_offset": 41,
        "before": TS - 500,
        "window_ms": 600_000,
        "backward_ms": 0,
        "grace_ms": 5_000,
        "rewards": [
            {
                "reward_id": "r1",
                "name": "click",
                "value": 1.0,
                "ts": TS + 10,
                "offset": 7,
                "metadata": {"referrer": "mail"},
            }
        ],
        "decision": DECISION,
    },
    "reward": {
        "bandit": "homepage",
        "decision_id": DECISION["decision_id"],
        "reward_id": "r1",
        "name": "click",
        "value": 1.0,
        "ts": TS + 10,
        "metadata": {"referrer": "mail"},
    },
    "snapshot": {
        "bandit": "homepage",
        "version": "3-120-0123456789abcdef",
        "epoch": 3,
        "outcomes": 120,
        "digest": "0123456789abcdef",
        "parent": "3-100-fedcba9876543210",
        "spec_hash": "ab",
        "spec": "{}",
        "lane": "default",
        "source_offsets": {"0": 60, "1": 61},
        "newest": TS,
        "policy": "beta_thompson",
        "actions": ["größer", ""],
        "features": ["intercept"],
        "features_hash": "f00d",
        "parameters": {"prior_successes": 1.0},
        "arrays": [{"name": "mean", "shape": [1], "data": bytes(8)}],
        "carried": {"version": "3-110-0123456789abcdef", "newest": TS - 1},
        "earlier": [
            {
                "weight": 0.75,
                "version": "2-90-fedcba9876543210",
                "spec": "{}",
                "newest": None,
                "parameters": {"prior_successes": 2.0},
                "arrays": [{"name": "mean", "shape": [1], "data": bytes(8)}],
            }
        ],
    },
    "snapshot_pointer": {
        "bandit": "homepage",
        "version": "3-120-0123456789abcdef",
        "reason": "rollback",
    },
    "spec": {
        "bandit": "homepage",
        "spec_hash": "ab",
        "spec": "{}",
        "ts": TS,
        "author": "ada",
        "reason": "first",
        "ancestors": [{"epoch": 3, "spec": "{}"}],
        "prior": {
            "origin": "old.parquet",
            "actions": ["größer"],
            "arrays": [{"name": "outcomes", "shape": [1], "data": bytes(8)}],
        },
        "starts": [{"outcome": 0, "decision": 2**40}],
    },
}


def plain(node: Any) -> Any:
    """Make a record fit for JSON: bytes become ``{"hex": ...}``."""
    if isinstance(node, bytes):
        return {"hex": node.hex()}
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return [plain(item) for item in node] if isinstance(node, list) else node


def release(name: str) -> None:
    """Write the current schema as the next version, with golden bytes, unless it is released."""
    if current(name).fingerprint in {schema.fingerprint for schema in released(name).values()}:
        return
    version = max(released(name), default=0) + 1
    definition = json.dumps(current(name).definition, indent=2, ensure_ascii=False)
    folder = RELEASED / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{version}.avsc").write_text(definition + "\n", encoding="utf-8")
    body = encode(name, EXAMPLES[name])
    golden = {"body": body.hex(), "record": plain(decode(name, body))}
    GOLDEN.mkdir(exist_ok=True)
    text = json.dumps(golden, indent=2, ensure_ascii=False)
    (GOLDEN / f"{name}-{version}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each in NAMES:
        release(each)
