"""Outcome bytes put together from parts: Avro records nest by concatenation.

An outcome is a preamble (state, source offset, the rules that applied), an array of rewards, and
the decision's own bytes, last, so that nothing can be misread across the joint. Rewards are few
and written anew; a decision is never decoded for its outcome.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Protocol

from bandstand.errors import EventError
from bandstand.schemas.primitives import (
    END,
    NULL,
    read_long,
    write_double,
    write_long,
    write_text,
    write_texts,
)

__all__ = [
    "OutcomeReward",
    "defaulted",
    "joined",
    "may_be_joined",
    "oversize",
    "rules_part",
    "source_offset",
]

_JOINED, _DEFAULTED, _OVERSIZE = b"\x00", b"\x02", b"\x04"
_PRESENT = b"\x02"

# An offset takes a microsecond to write; its lowest 13 bits are looked up, the rest is shared.
_LOW = [bytes((offset << 1 & 0x7F | 0x80, offset >> 6 | 0x80)) for offset in range(2**13)]
_MASK = len(_LOW) - 1


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


def defaulted(
    source_offsets: Sequence[int], rules: bytes, frames: Sequence[bytes], skip: int, header: bytes
) -> list[bytes]:
    """Write the outcomes of decisions without rewards.

    Parameters
    ----------
    source_offsets
        Ascending.
    rules
        What `rules_part` gave.
    frames
        The decisions' bytes behind their headers.
    skip
        Length of these headers.
    header
        What stands before an outcome.
    """
    values: list[bytes] = []
    before, behind, join = header + _DEFAULTED, rules + END + _PRESENT, b"".join
    start = 0
    while start < len(source_offsets):
        block = source_offsets[start] // len(_LOW)
        end = bisect_left(source_offsets, (block + 1) * len(_LOW), start)
        offsets, block_frames = source_offsets[start:end], frames[start:end]
        if block:
            last = _write_unsigned(block) + behind
            values += [
                join((before, _LOW[offset & _MASK], last, frame[skip:]))
                for offset, frame in zip(offsets, block_frames, strict=True)
            ]
        else:
            values += [
                join((before, write_long(offset), behind, frame[skip:]))
                for offset, frame in zip(offsets, block_frames, strict=True)
            ]
        start = end
    return values


def joined(
    source_offset: int,
    rules: bytes,
    rewards: Sequence[OutcomeReward],
    decision: bytes,
    header: bytes,
) -> bytes:
    """Write the outcome of a decision, given without its header, with at least one reward."""
    block = write_long(len(rewards)) + b"".join(map(_reward, rewards)) + END
    offset = write_long(source_offset)
    return b"".join((header, _JOINED, offset, rules, block, _PRESENT, decision))


def oversize(source_offset: int, rules: bytes, header: bytes) -> bytes:
    """Write the stub of an outcome that is too large for its topic."""
    return b"".join((header, _OVERSIZE, write_long(source_offset), rules, END, NULL))


def may_be_joined(value: bytes | None, header: bytes) -> bool:
    """Tell without decoding whether an outcome may have rewards.

    Parameters
    ----------
    value
        An outcome with its header; None for a progress record.
    header
        The one that this process writes; what has another must be decoded.
    """
    if value is None:
        return False
    return not value.startswith(header) or value.startswith(header + _JOINED)


def _write_unsigned(number: int) -> bytes:
    return write_long(number >> 1 ^ -(number & 1))  # its zigzag is the number


def source_offset(value: bytes, start: int) -> int:
    """Read an outcome's source offset, and nothing else of it.

    Parameters
    ----------
    value
        The outcome, written with the current schema.
    start
        Where its header ends.

    Raises
    ------
    EventError
        If the bytes end before.

    Examples
    --------
    >>> source_offset(oversize(700, rules_part(None, 1, 0, 0), b"head"), 4)
    700
    """
    try:
        return read_long(value, start + len(_JOINED))
    except IndexError:
        raise EventError("truncated", f"an outcome of {len(value)} bytes") from None


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
