"""The events that the benchmarks work on: made up, the same in each run, of a given size."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import pyarrow as pa

from bandstand.schemas.codec import encode
from bandstand.schemas.columns import columns
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.streams.join_types import TICK_HEADER, Record, Rules

__all__ = ["ACTIONS", "WIRE", "context", "decision", "outcomes", "sized", "spec", "spec_of", "tick"]

WIRE: Final = Wire.single_object()
ACTIONS: Final = tuple(f"action-{number}" for number in range(10))
START_MS: Final = 1_790_000_000_000

_DIMENSION = 20
_NUMBERS = tuple(f"n{number:02d}" for number in range(_DIMENSION - 1))
_GRID = 4096


def spec() -> Spec:
    """Give a linear Thompson bandit with ten actions and 20 features, the intercept included."""
    return spec_of(_DIMENSION, len(ACTIONS))


def spec_of(dimension: int, actions: int) -> Spec:
    """Give a linear Thompson bandit; the dimension includes the intercept."""
    features = "".join(
        f"  - {{name: n{number:02d}, kind: numeric, low: -1, high: 1}}\n"
        for number in range(dimension - 1)
    )
    names = ", ".join(f"action-{number}" for number in range(actions))
    text = (
        f"bandit: bench\nactions: [{names}]\nfeatures:\n{features}"
        "policy: {name: linear_thompson}\nreward: {name: click}\nfloor: 0.01\n"
    )
    return parse_spec(text, "bench.yaml")


def context(random: Random) -> dict[str, float]:
    """Give the attributes of one subject, on the learner's grid, so that sums can be compared."""
    return {name: random.randint(-_GRID, _GRID) / _GRID for name in _NUMBERS}


def decision(random: Random, ts: int, *, eligible: int, features: bool) -> dict[str, Any]:
    """Give one decision as a service logs it.

    Parameters
    ----------
    random
        Where its values come from.
    ts
        Event time, milliseconds since 1970.
    eligible
        How many actions it lists, at most 10.
    features
        Whether it has the vector that the policy saw.
    """
    listed = ACTIONS[:eligible]
    return {
        "bandit": "bench",
        "decision_id": str(uuid.UUID(int=random.getrandbits(128))),
        "subject": f"user-{random.randrange(10**6):06d}",
        "ts": ts,
        "snapshot_version": "3-120000-0f1e2d3c4b5a6978",
        "policy": "linear_thompson",
        "action": random.choice(ACTIONS),
        "propensity": 0.1,
        "score": random.random(),
        "features_hash": spec_hash() if features else "",
        "features": [1.0, *context(random).values()] if features else [],
        "subject_numeric": {"age": float(random.randint(18, 90)), "visits": random.random()},
        "subject_categorical": {"country": random.choice(["ch", "de", "no"])},
        "actions": [{"action": name, "probability": 0.1} for name in listed],
        "seed": random.getrandbits(63),
        "fallback": "live",
    }


def spec_hash() -> str:
    """Give the hash of the features of `spec`."""
    return _SPEC.features_hash


_SPEC = spec()


def sized(record: dict[str, Any], size: int) -> bytes:
    """Write a decision as a frame of this many bytes, made up by its metadata.

    Raises
    ------
    ValueError
        If it has more without.
    """
    header = WIRE.header("decision")
    room = size - len(header)
    for length in range(max(0, room - len(encode("decision", record)) - 6), room):
        body = encode("decision", {**record, "metadata": {"at": "x" * length}})
        if len(body) >= room:
            break
    if len(body) > room + 1:
        raise ValueError(f"a decision of {len(body) + len(header)} bytes can't have {size}")
    return header + body


def tick(offset: int, time: int, rules: Rules) -> Record:
    """Give a tick."""
    return Record(offset, time, TICK_KEY, None, [(TICK_HEADER, rules.to_header())])


def outcomes(chunks: int, rows: int) -> Sequence[pa.RecordBatch]:
    """Give outcomes of the bandit of `spec` with logged vectors as the learner reads them.

    Parameters
    ----------
    chunks
        How many batches.
    rows
        Outcomes in each; three in ten have a reward.
    """
    random = Random(20)
    made = []
    for _ in range(chunks):
        values = [WIRE.dumps("outcome", _outcome(random, row)) for row in range(rows)]
        made.append(columns("outcome", values, WIRE).table)
    return made


def _outcome(random: Random, offset: int) -> dict[str, Any]:
    chosen = decision(random, START_MS, eligible=10, features=True)
    reward = {"reward_id": f"r{offset}", "name": "click", "value": 1.0, "ts": START_MS, "offset": 0}
    rewarded = random.random() < 0.3
    return {
        "state": "joined" if rewarded else "defaulted",
        "source_offset": offset,
        "before": None,
        "window_ms": 1000,
        "backward_ms": 0,
        "grace_ms": 0,
        "rewards": [reward] if rewarded else [],
        "decision": chosen,
    }
