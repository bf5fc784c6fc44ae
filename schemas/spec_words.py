"""What a name or a number in a spec may look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["Name", "Number", "Word", "refuse_repeats"]


def _printable(word: str) -> str:
    if "|" in word or not word.isprintable() or word != word.strip():
        raise ValueError(
            "must be printable text without '|', control characters or spaces at its ends"
        )
    return word


def refuse_repeats(words: Sequence[str], least: int = 0) -> tuple[str, ...]:
    """Give the words back, unless they are too few or one stands there twice.

    Raises
    ------
    ValueError
        Naming the words that do.
    """
    if len(words) < least:
        raise ValueError(f"must have at least {least}")
    repeated = sorted({word for word in words if words.count(word) > 1})
    if repeated:
        raise ValueError(f"must be distinct; repeated: {', '.join(map(repr, repeated))}")
    return tuple(words)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
"""Part of a topic name or of a key: ASCII letters, digits, dot, underscore, hyphen."""

Word = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
"""An action, a feature or a category: printable text that keys can hold."""

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number; text that looks like one isn't."""
