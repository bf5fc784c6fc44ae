"""How a bandit's spec lies in ``specs``, with all that its record says of what was before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from bandstand.errors import EventError, SpecError
from bandstand.learners.evidence import Evidence
from bandstand.schemas.spec import Spec
from bandstand.schemas.wire import Wire
from bandstand.streams.in_force import Ancestor, InForce, Start
from bandstand.streams.topic_plans import FRAME_BYTES, TABLE_RECORD_BYTES

__all__ = ["read_spec_record", "spec_record"]

_MOST_BYTES: Final = TABLE_RECORD_BYTES - FRAME_BYTES


def spec_record(wanted: InForce, ts: int, author: str, reason: str, wire: Wire) -> bytes:
    """Write what is to be in force; its epoch will be the record's offset.

    Parameters
    ----------
    wanted
        The spec, and what is known of the bandit before it.
    ts
        When it is applied, milliseconds since 1970.
    author, reason
        Who does it, and why.
    wire
        How the record is framed.

    Raises
    ------
    SpecError
        If the record would be too large.
    """
    spec = wanted.spec
    record = {
        "bandit": spec.bandit,
        "spec_hash": spec.hash,
        "spec": spec.canonical(),
        "ts": ts,
        "author": author,
        "reason": reason,
        "ancestors": [{"epoch": a.epoch, "spec": a.spec.canonical()} for a in wanted.ancestors],
        "prior": wanted.evidence and _prior(wanted.evidence),
        "starts": [start._asdict() for start in wanted.starts],
    }
    value = wire.dumps("spec", record)
    if len(value) > _MOST_BYTES:
        raise SpecError(
            f"the record of {spec.bandit!r} would have {len(value)} bytes; allowed: {_MOST_BYTES};"
            " give the bandit fewer actions or features, or no prior from elsewhere"
        )
    return value


def read_spec_record(
    key: bytes | None, value: bytes | None, offset: int, wire: Wire
) -> tuple[str, InForce | None]:
    """Read a record: the bandit, and its spec unless that was removed.

    Raises
    ------
    EventError
        If its key, its value or the spec in it can't be right.
    """
    try:
        bandit = (key or b"").decode()
    except UnicodeDecodeError as error:
        raise EventError("key", f"a bandit's name must be UTF-8: {error}") from None
    if value is None:
        return bandit, None
    record = wire.loads("spec", value)
    try:
        spec = Spec.from_canonical(record["spec"])
    except SpecError as error:
        raise EventError("invalid", str(error)) from None
    if not bandit == record["bandit"] == spec.bandit:
        raise EventError(
            "key",
            f"key {bandit!r}, record {record['bandit']!r} and spec {spec.bandit!r} must agree",
        )
    if record["spec_hash"] != spec.hash:
        raise EventError(
            "invalid", f"spec_hash is {record['spec_hash']}, the spec's is {spec.hash}"
        )
    starts = tuple(Start(**start) for start in record["starts"])
    return bandit, InForce(spec, offset, tuple(_ancestors(record)), _evidence(record), starts)


def _ancestors(record: Mapping[str, Any]) -> Iterator[Ancestor]:
    """Read the specs before, up to one that this version can't read."""
    for ancestor in record["ancestors"]:
        try:
            yield Ancestor(ancestor["epoch"], Spec.from_canonical(ancestor["spec"]))
        except SpecError:
            return


def _prior(evidence: Evidence) -> dict[str, Any]:
    return {
        "origin": evidence.origin,
        "actions": list(evidence.actions),
        "arrays": [
            {"name": name, "shape": list(array.shape), "data": array.astype("<f8").tobytes()}
            for name, array in sorted(evidence.arrays.items())
        ],
    }


def _evidence(record: Mapping[str, Any]) -> Evidence | None:
    prior = record["prior"]
    if prior is None:
        return None
    arrays, count = {}, len(prior["actions"])
    for array in prior["arrays"]:
        name, shape, size = array["name"], array["shape"], len(array["data"])
        if shape[:1] != [count] or min(shape) < 0 or size != 8 * math.prod(shape):
            raise EventError(
                "invalid",
                f"prior: array {name!r} has {size} bytes and the shape {shape}; allowed: 8 bytes a"
                f" number, and the {count} actions on the first axis",
            )
        arrays[name] = np.frombuffer(array["data"], "<f8").reshape(shape)
    return Evidence(prior["origin"], tuple(prior["actions"]), arrays)
