"""Outcome bytes put together from parts: Avro records nest by concatenation.

An outcome is a preamble (state, source offset, the rules that applied), an array of rewards, and
the decision's own bytes, last, so that nothing can be misread across the joint. Rewards are few
and written anew; a decision is never decoded for its outcome.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

__all__ = ["OutcomeReward", "defaulted", "joined", "oversize", "rules_part", "zigzag"]

_JOINED, _DEFAULTED, _OVERSIZE = b"\x00", b"\x02", b"\x04"
_NULL, _PRESENT, _END_OF_BLOCKS = b"\x00", b"\x02", b"\x00"
_DOUBLE = struct.Struct("<d")


class OutcomeReward(Protocol):
    """What the outcome keeps of a reward."""

    reward_id: str
    name: str
    value: float
    ts: int
    offset: int
    metadata: Mapping[str, str]


def zigzag(number: int) -> bytes:
    """Write an Avro long.

    Examples
    --------
    >>> zigzag(-65).hex()
    '8101'
    """
    number = number << 1 ^ number >> 63
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def rules_part(before: int | None, window_ms: int, backward_ms: int, grace_ms: int) -> bytes:
    """Write the fields that all decisions between two ticks share."""
    known = _NULL if before is None else _PRESENT + zigzag(before)
    return known + zigzag(window_ms) + zigzag(backward_ms) + zigzag(grace_ms)


def defaulted(source_offset: int, rules: bytes, decision: bytes) -> bytes:
    """Write the outcome of a decision without rewards."""
    return b"".join((_DEFAULTED, zigzag(source_offset), rules, _END_OF_BLOCKS, _PRESENT, decision))


def joined(
    source_offset: int, rules: bytes, rewards: Sequence[OutcomeReward], decision: bytes
) -> bytes:
    """Write the outcome of a decision with rewards, at least one."""
    block = zigzag(len(rewards)) + b"".join(map(_reward, rewards)) + _END_OF_BLOCKS
    return b"".join((_JOINED, zigzag(source_offset), rules, block, _PRESENT, decision))


def oversize(source_offset: int, rules: bytes) -> bytes:
    """Write the stub of an outcome that is too large for its topic."""
    return b"".join((_OVERSIZE, zigzag(source_offset), rules, _END_OF_BLOCKS, _NULL))


def _reward(reward: OutcomeReward) -> bytes:
    return b"".join(
        (
            _string(reward.reward_id),
            _string(reward.name),
            _DOUBLE.pack(reward.value),
            zigzag(reward.ts),
            zigzag(reward.offset),
            _strings(reward.metadata.items()),
        )
    )


def _strings(pairs: Iterable[tuple[str, str]]) -> bytes:
    entries = [_string(key) + _string(value) for key, value in pairs]
    return zigzag(len(entries)) + b"".join(entries) + (_END_OF_BLOCKS if entries else b"")


def _string(text: str) -> bytes:
    raw = text.encode()
    return zigzag(len(raw)) + raw
