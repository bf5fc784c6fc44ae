"""Avro's primitive types as bytes, for the places that put records together from parts."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

__all__ = [
    "END",
    "NULL",
    "behind_text",
    "read_long",
    "read_text",
    "write_double",
    "write_long",
    "write_text",
    "write_texts",
]

NULL: Final = b"\x00"
"""The first branch of a union, where that is null."""

END: Final = b"\x00"
"""The end of an array's or a map's blocks."""

write_double: Final = struct.Struct("<d").pack
"""Write a double."""

_SHORT: Final = [bytes((length << 1,)) for length in range(64)]
"""Lengths that take one byte."""


def write_long(number: int) -> bytes:
    """Write a whole number: zigzag, seven bits a byte, the lowest first.

    Parameters
    ----------
    number
        -2^63 to 2^63 - 1.

    Examples
    --------
    >>> write_long(-65).hex()
    '8101'
    """
    rest = number << 1 ^ number >> 63
    if rest < 0x80:
        return bytes((rest,))
    digits = bytearray()
    while rest >= 0x80:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    digits.append(rest)
    return bytes(digits)


def read_long(data: bytes, at: int) -> int:
    """Read a whole number; `IndexError` if the bytes end before it does.

    Examples
    --------
    >>> read_long(write_long(-65), 0)
    -65
    """
    rest = data[at]
    if rest >= 0x80:
        rest &= 0x7F
        shift = 7
        while True:
            at += 1
            digit = data[at]
            rest |= (digit & 0x7F) << shift
            if digit < 0x80:
                break
            shift += 7
    return rest >> 1 ^ -(rest & 1)


def behind_text(data: bytes, at: int) -> int:
    """Give the place behind a string; `IndexError` if the bytes end within its length.

    Examples
    --------
    >>> behind_text(write_text("home") + write_text("away"), 0)
    5
    """
    length = data[at]
    if length < 0x80:
        return at + 1 + (length >> 1)
    length = read_long(data, at)
    while data[at] >= 0x80:
        at += 1
    return at + 1 + length


def read_text(data: bytes, at: int) -> bytes:
    """Read a string, as UTF-8; what the data holds of it, if they end before it does.

    Examples
    --------
    >>> read_text(write_text("x" * 100) + write_text("away"), 102)
    b'away'
    """
    end = behind_text(data, at)
    return data[end - read_long(data, at) : end]


def write_text(text: str) -> bytes:
    r"""Write a string.

    Examples
    --------
    >>> write_text("home")
    b'\x08home'
    """
    data = text.encode()
    length = len(data)
    return (_SHORT[length] if length < len(_SHORT) else write_long(length)) + data


def write_texts(texts: Mapping[str, str]) -> bytes:
    r"""Write a map of strings, in one block.

    Examples
    --------
    >>> write_texts({"a": "b"})
    b'\x02\x02a\x02b\x00'
    """
    if not texts:
        return END
    parts = [write_long(len(texts))]
    for name, text in texts.items():
        parts += write_text(name), write_text(text)
    parts.append(END)
    return b"".join(parts)
