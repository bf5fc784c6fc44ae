"""Outcome bytes put together from parts: Avro records nest by concatenation.

An outcome is a preamble (state, source offset, the rules that applied), an array of rewards, and
the decision's own bytes, last, so that nothing can be misread across the joint. A reward is its own
bytes without the ids of bandit and decision, with its offset put in. Neither is decoded for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from bandstand.errors import EventError
from bandstand.schemas.primitives import END, NULL, behind_text, read_long, read_text, write_long

__all__ = [
    "defaulted",
    "joined",
    "may_be_joined",
    "oversize",
    "reward_id",
    "reward_part",
    "rules_part",
    "source_offset",
]

_JOINED, _DEFAULTED, _OVERSIZE = b"\x00", b"\x02", b"\x04"
_PRESENT = b"\x02"

# An offset takes a microsecond to write; its lowest 13 bits are looked up, the rest is shared.
_LOW = [bytes((offset << 1 & 0x7F | 0x80, offset >> 6 | 0x80)) for offset in range(2**13)]
_MASK = len(_LOW) - 1


def rules_part(before: int | None, window_ms: int, backward_ms: int, grace_ms: int) -> bytes:
    """Write the fields that all decisions between two ticks share."""
    known = NULL if before is None else _PRESENT + write_long(before)
    return known + write_long(window_ms) + write_long(backward_ms) + write_long(grace_ms)


def defaulted(
    source_offsets: npt.NDArray[np.int64],
    rules: bytes,
    frames: Sequence[bytes],
    skip: int,
    header: bytes,
) -> list[bytes]:
    """Write the outcomes of decisions without rewards.

    Parameters
    ----------
    source_offsets
        Ascending; int64.
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
    before, behind = header + _DEFAULTED, rules + END + _PRESENT
    body = itemgetter(slice(skip, None))
    start = 0
    while start < len(source_offsets):
        block = int(source_offsets[start]) // len(_LOW)
        end = int(source_offsets.searchsorted((block + 1) * len(_LOW)))
        lows = (source_offsets[start:end] & _MASK).tolist()
        if block:
            last, offsets = _high(block) + behind, map(_LOW.__getitem__, lows)
        else:
            last, offsets = behind, map(write_long, lows)
        parts = zip(repeat(before), offsets, repeat(last), map(body, frames[start:end]))
        values += map(b"".join, parts)
        start = end
    return values


def joined(
    source_offset: int, rules: bytes, rewards: Sequence[bytes], decision: bytes, header: bytes
) -> bytes:
    """Write the outcome of a decision, given without its header, with at least one reward.

    Parameters
    ----------
    source_offset, rules, header
        As for `defaulted`.
    rewards
        What `reward_part` gave, in the order of their log.
    decision
        The decision's bytes without a header.
    """
    parts = (header, _JOINED, _offset(source_offset), rules, write_long(len(rewards)), *rewards)
    return b"".join((*parts, END, _PRESENT, decision))


def reward_part(frame: bytes, start: int, offset: int) -> bytes:
    """Give what an outcome says of a reward.

    Parameters
    ----------
    frame
        The reward, as the current schema writes it, behind its header.
    start
        Length of the header.
    offset
        Of the reward in its log.
    """
    first = at = behind_text(frame, behind_text(frame, start))  # bandit, decision_id
    at = behind_text(frame, behind_text(frame, at)) + 8  # reward_id, name, value
    while frame[at] >= 0x80:
        at += 1
    at += 1
    return b"".join((frame[first:at], _offset(offset), frame[at:]))


def reward_id(part: bytes) -> bytes:
    """Give the identity of a reward from what `reward_part` gave."""
    return read_text(part, 0)


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


def _offset(offset: int) -> bytes:
    block = offset // len(_LOW)
    return _LOW[offset & _MASK] + _high(block) if block else write_long(offset)


@lru_cache(maxsize=64)
def _high(block: int) -> bytes:
    """Write what offsets of a block share: its number, unsigned."""
    return write_long(block >> 1 ^ -(block & 1))  # its zigzag is the number


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
