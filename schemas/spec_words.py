"""What a name or a number in a spec may look like, and what sections that keep findings share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Name", "Number", "Section", "Word", "refuse_repeats", "without"]


def _printable(word: str) -> str:
    if "|" in word or not word.isprintable() or word != word.strip():
        raise ValueError(
            "must be printable text without '|', control characters or spaces at its ends"
        )
    return word


def refuse_repeats(
    words: Sequence[str], least: int = 0, most: int | None = None
) -> tuple[str, ...]:
    """Give the words back, unless they are too few or too many, or one stands there twice.

    Raises
    ------
    ValueError
        Naming the words that do.
    """
    if len(words) < least:
        raise ValueError(f"must have at least {least}")
    if most is not None and len(words) > most:
        raise ValueError(f"must have at most {most}, but has {len(words)}")
    repeated = sorted(word for word, times in Counter(words).items() if times > 1)
    if repeated:
        raise ValueError(f"must be distinct; repeated: {', '.join(map(repr, repeated))}")
    return tuple(words)


def without(words: Iterable[str], known: Iterable[str]) -> list[str]:
    """Give the words that aren't among those known.

    Examples
    --------
    >>> without(["x", "y", "z"], ("z", "x"))
    ['y']
    """
    among = set(known)
    return [word for word in words if word not in among]


class Section(BaseModel):
    """A part of a spec that remembers, by cached properties, what was found out about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __copy__(self) -> Self:
        """Copy the fields alone: `model_copy` then changes some, and findings would be wrong."""
        copied = super().__copy__()
        for finding in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[finding]
        return copied


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
"""Part of a topic name or of a key: ASCII letters, digits, dot, underscore, hyphen."""

Word = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
"""An action, a feature or a category: printable text that keys can hold."""

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number; text that looks like one isn't."""
