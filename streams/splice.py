"""Outcome bytes put together from parts: Avro records nest by concatenation.

An outcome is a preamble (state, source offset, the rules that applied), an array of rewards, and
the decision's own bytes, last, so that nothing can be misread across the joint. Rewards are few
and written anew; a decision is never decoded for its outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bandstand.schemas.primitives import (
    END,
    NULL,
    write_double,
    write_long,
    write_text,
    write_texts,
)

__all__ = ["OutcomeReward", "defaulted", "joined", "oversize", "rules_part"]

_JOINED, _DEFAULTED, _OVERSIZE = b"\x00", b"\x02", b"\x04"
_PRESENT = b"\x02"


class OutcomeReward(Protocol):
    """What the outcome keeps of a reward."""

    reward_id: str
    name: str
    value: float
    ts: int
    offset: int
    metadata: Mapping[str, str]


def rules_part(before: int | None, window_ms: int, backward_ms: int, grace_ms: int) -> bytes:
    """Write the fields that all decisions between two ticks share."""
    known = NULL if before is None else _PRESENT + write_long(before)
    return known + write_long(window_ms) + write_long(backward_ms) + write_long(grace_ms)


def defaulted(source_offset: int, rules: bytes, decision: bytes) -> bytes:
    """Write the outcome of a decision without rewards."""
    return b"".join((_DEFAULTED, write_long(source_offset), rules, END, _PRESENT, decision))


def joined(
    source_offset: int, rules: bytes, rewards: Sequence[OutcomeReward], decision: bytes
) -> bytes:
    """Write the outcome of a decision with rewards, at least one."""
    block = write_long(len(rewards)) + b"".join(map(_reward, rewards)) + END
    return b"".join((_JOINED, write_long(source_offset), rules, block, _PRESENT, decision))


def oversize(source_offset: int, rules: bytes) -> bytes:
    """Write the stub of an outcome that is too large for its topic."""
    return b"".join((_OVERSIZE, write_long(source_offset), rules, END, NULL))


def _reward(reward: OutcomeReward) -> bytes:
    return b"".join(
        (
            write_text(reward.reward_id),
            write_text(reward.name),
            write_double(reward.value),
            write_long(reward.ts),
            write_long(reward.offset),
            write_texts(reward.metadata),
        )
    )
