"""A decision's Avro in a few microseconds: what is constant is written once, the rest filled in.

The bytes are those of the reference codec for the same record, which a test proves over generated
records; fastavro takes 25 to 35 microseconds for one with ten actions, most of it for the unions.
Avro nests by concatenation, so a list of names with a number each is a row of constant bytes with
gaps of eight: the row is kept, by the names, and packed with the numbers in one call.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from bandstand.serving.choosing import Drawn

__all__ = ["DecisionEncoder", "Layouts"]

_DOUBLE: Final = struct.Struct("<d").pack
_NULL: Final = b"\x00"
_END: Final = b"\x00"
_SECOND: Final = b"\x02"
_NO_ATTRIBUTES: Final = b"\x00\x00"
_SHORT: Final = [bytes((length << 1,)) for length in range(64)]
"""Lengths that take one byte."""
_MOST_LAYOUTS: Final = 256


class _Layout:
    """Constant bytes around one double each: ``head[0] d head[1] d … tail``."""

    def __init__(self, heads: Sequence[bytes], tail: bytes) -> None:
        form = "".join(f"{len(head)}sd" for head in heads)
        self._pack = struct.Struct(f"<{form}{len(tail)}s").pack
        self._row: list[bytes | float] = [part for head in heads for part in (head, 0.0)]
        self._row.append(tail)

    def fill(self, numbers: Iterable[float]) -> bytes:
        row = self._row.copy()
        row[1::2] = numbers
        return self._pack(*row)


class Layouts:
    """The layouts of the lists that a service writes again and again, kept by their names.

    A service has few sets of attribute names and of eligible actions; when it has many, the oldest
    layouts are forgotten.
    """

    def __init__(self) -> None:
        self._attributes: dict[tuple[str, ...], _Layout] = {}
        self._actions: dict[tuple[str, ...], _Layout] = {}

    @property
    def kept(self) -> int:
        """How many layouts are kept, at most 512."""
        return len(self._attributes) + len(self._actions)

    def attributes(self, values: Mapping[str, float]) -> bytes:
        """Write a map of numbers."""
        if not values:
            return _END
        names = tuple(values)
        layout = self._attributes.get(names)
        if layout is None:
            layout = _keep(self._attributes, names, _attributes_layout(names))
        return layout.fill(values.values())

    def actions(self, names: tuple[str, ...], probabilities: Iterable[float]) -> bytes:
        """Write the eligible actions, which have no attributes of their own."""
        layout = self._actions.get(names)
        if layout is None:
            layout = _keep(self._actions, names, _actions_layout(names))
        return layout.fill(probabilities)


def _keep(
    layouts: dict[tuple[str, ...], _Layout], names: tuple[str, ...], layout: _Layout
) -> _Layout:
    if len(layouts) >= _MOST_LAYOUTS:
        layouts.pop(next(iter(layouts)), None)
    layouts[names] = layout
    return layout


def _attributes_layout(names: tuple[str, ...]) -> _Layout:
    heads = [_text(name) for name in names]
    return _Layout([_long(len(names)) + heads[0], *heads[1:]], _END)


def _actions_layout(names: tuple[str, ...]) -> _Layout:
    heads = [_text(name) + _SECOND for name in names]
    first = _long(len(names)) + heads[0]
    return _Layout([first, *(_NO_ATTRIBUTES + head for head in heads[1:])], _NO_ATTRIBUTES + _END)


class DecisionEncoder:
    """Writes the decisions that one snapshot makes.

    Parameters
    ----------
    bandit
        Name of the bandit.
    version
        Version of the snapshot; empty where there is none.
    policy
        Name of the policy.
    features_hash
        Hash of the feature definition; empty where the policy sees no features.
    layouts
        Where layouts are kept.
    """

    def __init__(
        self, bandit: str, version: str, policy: str, features_hash: str, layouts: Layouts
    ) -> None:
        self._bandit = _text(bandit)
        self._origin = _text(version) + _text(policy)
        self._features_hash = _text(features_hash)
        self._layouts = layouts

    def encode(
        self, drawn: Drawn, *, decision_id: str, subject: str, ts: int, fallback: str
    ) -> bytes:
        """Write one decision, without a header.

        Parameters
        ----------
        drawn
            What was chosen, from what and why.
        decision_id
            Its identity.
        subject
            Whom it was made for.
        ts
            Event time, milliseconds since 1970, UTC.
        fallback
            Step of the ladder that answered.
        """
        numeric, categorical = drawn.attributes
        return b"".join(
            (
                self._bandit,
                _text(decision_id),
                _text(subject),
                _long(ts),
                self._origin,
                _text(drawn.action),
                _DOUBLE(drawn.propensity),
                _optional(drawn.score),
                self._features_hash,
                _floats(drawn.features),
                self._layouts.attributes(numeric),
                _texts(categorical),
                self._layouts.actions(drawn.eligible, drawn.probabilities),
                _SECOND,
                _long(drawn.seed),
                _text(fallback),
                _optional(drawn.optimality_gap),
                _END,  # no metadata
            )
        )


def _long(value: int) -> bytes:
    """Write a whole number: zigzag, seven bits a byte, the lowest first."""
    rest = value << 1 ^ value >> 63
    if rest < 0x80:
        return bytes((rest,))
    digits = bytearray()
    while rest >= 0x80:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    digits.append(rest)
    return bytes(digits)


def _text(value: str) -> bytes:
    data = value.encode()
    length = len(data)
    return (_SHORT[length] if length < len(_SHORT) else _long(length)) + data


def _texts(values: Mapping[str, str]) -> bytes:
    if not values:
        return _END
    parts = [_long(len(values))]
    for name, value in values.items():
        parts += _text(name), _text(value)
    parts.append(_END)
    return b"".join(parts)


def _optional(value: float | None) -> bytes:
    return _NULL if value is None else _SECOND + _DOUBLE(value)


def _floats(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> bytes:
    if not len(values):
        return _END
    return _long(len(values)) + values.astype("<f4", copy=False).tobytes() + _END
