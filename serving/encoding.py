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

from bandstand.schemas.primitives import (
    END,
    NULL,
    write_double,
    write_long,
    write_text,
    write_texts,
)
from bandstand.serving.choosing import Drawn

__all__ = ["DecisionEncoder", "Layouts"]

_SECOND: Final = b"\x02"
_NO_ATTRIBUTES: Final = b"\x00\x00"
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
            return END
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
    heads = [write_text(name) for name in names]
    return _Layout([write_long(len(names)) + heads[0], *heads[1:]], END)


def _actions_layout(names: tuple[str, ...]) -> _Layout:
    heads = [write_text(name) + _SECOND for name in names]
    first = write_long(len(names)) + heads[0]
    return _Layout([first, *(_NO_ATTRIBUTES + head for head in heads[1:])], _NO_ATTRIBUTES + END)


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
        self._bandit = write_text(bandit)
        self._origin = write_text(version) + write_text(policy)
        self._features_hash = write_text(features_hash)
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
                write_text(decision_id),
                write_text(subject),
                write_long(ts),
                self._origin,
                write_text(drawn.action),
                write_double(drawn.propensity),
                _optional(drawn.score),
                self._features_hash,
                _floats(drawn.features),
                self._layouts.attributes(numeric),
                write_texts(categorical),
                self._layouts.actions(drawn.eligible, drawn.probabilities),
                _SECOND,
                write_long(drawn.seed),
                write_text(fallback),
                _optional(drawn.optimality_gap),
                END,  # no metadata
            )
        )


def _optional(value: float | None) -> bytes:
    return NULL if value is None else _SECOND + write_double(value)


def _floats(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> bytes:
    if not len(values):
        return END
    return write_long(len(values)) + values.astype("<f4", copy=False).tobytes() + END
