"""From a subject's attributes to the feature columns of a spec, one by one or a batch at a time.

A numeric attribute becomes ``(2 * x - low - high) / (high - low)``, so -1 at low, 1 at high; where
it is absent, 0, the middle. A categorical one becomes a 1 in the column of its word, a hashed one
a 1 in column ``crc32(utf8(name + "=" + word)) % buckets``; where it is absent or its word isn't in
the vocabulary, zeros. The first column is always 1; the last are the products of the columns of
interactions. All values are put on the grid
(`bandstand.learners.grid`), for serving and for learning alike, so that both see the same bits.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bandstand.errors import DecisionError
from bandstand.learners.arrow import entries, equal, flat, mask, offsets, sizes
from bandstand.learners.grid import LIMIT, STEPS, to_steps
from bandstand.schemas.spec import Categorical, Hashed, Numeric, Spec
from bandstand.schemas.spec_features import column_ranges

__all__ = ["Built", "Features", "bucket"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Steps = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Built:
    """Feature columns of n decisions.

    Parameters
    ----------
    steps
        float32 or float64[n, d], whole steps of the grid; finite in usable rows.
    rejected
        Reason to the rows (bool[n]) that can't be used for it; no row has two reasons.
    counted
        ``clipped_features``, ``missing_features``, ``unknown_categories``: how many values of each
        row, int64[n]; those that were found at all.
    """

    steps: npt.NDArray[np.floating[Any]]
    rejected: Mapping[str, Bools] = field(default_factory=dict)
    counted: Mapping[str, Ints] = field(default_factory=dict)


def bucket(name: str, value: str, buckets: int) -> int:
    """Give the hash bucket of a word of a hashed feature.

    Examples
    --------
    >>> bucket("page", "/home", 16)
    3
    """
    return zlib.crc32(f"{name}={value}".encode()) % buckets


class Features:
    """The feature columns of one spec.

    Parameters
    ----------
    spec
        Whose features; a policy without context has none, not even the intercept.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> features = Features(parse_spec('''
    ... bandit: home
    ... actions: [a, b]
    ... features:
    ...   - {name: age, kind: numeric, low: 0, high: 100}
    ...   - {name: country, kind: categorical, values: [ch, no]}
    ... policy: {name: linear_thompson}
    ... reward: {name: click}
    ... ''', "home.yaml"))
    >>> features.names
    ('intercept', 'age', 'country=ch', 'country=no')
    >>> features.vector({"age": 75, "country": "no"})
    array([1. , 0.5, 0. , 1. ], dtype=float32)
    """

    def __init__(self, spec: Spec) -> None:
        self.names = spec.feature_names
        self.dimension = len(self.names)
        self.hash = spec.features_hash
        self._numeric: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._words: dict[str, Categorical | Hashed] = {}
        low, high = [], []
        ranges = column_ranges(spec.features, 1)
        for feature in spec.features:
            if isinstance(feature, Numeric):
                self._numeric[feature.name] = ranges[feature.name].start
                low.append(feature.low)
                high.append(feature.high)
            else:
                self._words[feature.name] = feature
                self._first[feature.name] = ranges[feature.name].start
        columns = list(self._numeric.values())
        self._numeric_columns: slice | list[int] = columns
        if columns == list(range(1, len(columns) + 1)):
            self._numeric_columns = slice(1, len(columns) + 1)  # several times as fast to assign
        self._low, self._high = np.array(low), np.array(high)
        self._base = 1 + sum(len(columns) for columns in ranges.values())
        self._left, self._right = _factors(spec)
        self._middle = self._low / 2 + self._high / 2
        self._half = self._high / 2 - self._low / 2
        self._vocabulary = {
            (feature.name, word): self._first[feature.name] + index
            for feature in self._words.values()
            if isinstance(feature, Categorical)
            for index, word in enumerate(feature.values)
        }

    def vector(self, context: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """Build the vector of one subject.

        Parameters
        ----------
        context
            Attributes by name; numbers for numeric features, text for the others. Attributes that
            are no features don't matter.

        Returns
        -------
        float32[d], on the grid.

        Raises
        ------
        DecisionError
            If an attribute isn't of its feature's kind, or isn't finite.
        """
        vector = np.zeros(self.dimension, dtype=np.float32)
        if not self.dimension:
            return vector
        vector[0] = 1.0
        if self._numeric:
            vector[self._numeric_columns] = self._numbers(context)
        for name in self._words:
            word = context.get(name)
            if word is not None:
                column = self._column(name, word)
                if column is not None:
                    vector[column] = 1.0
        if self._left:
            vector[self._base :] = to_steps(self._products(vector))[0] / STEPS
        return vector

    def matrix(self, decisions: pa.StructArray) -> Built:
        """Build the columns of n decisions.

        A vector that was logged under this very definition is used as it stands; otherwise the
        columns are built from the subject's attribute maps.

        Parameters
        ----------
        decisions
            The column ``decision`` of n outcomes, without nulls.

        Returns
        -------
        Built
            Rejected for ``features_hash``: a vector of another definition, and no attributes;
            ``features_width``: this definition, another length; ``features_not_finite``.
        """
        count = len(decisions)
        if not self.dimension:
            return Built(np.zeros((count, 0)))
        vectors = decisions.field("features")
        places = offsets(vectors)
        widths = sizes(places)
        ours = equal(decisions.field("features_hash"), self.hash)
        wide = widths == self.dimension
        if ours.true_count == count and wide.all():
            matrix = flat(places, vectors.values).to_numpy().reshape(count, self.dimension)
            return self._checked(matrix, {}, {})
        return self._mixed(decisions, mask(ours), mask(ours) & wide, places)

    def _mixed(self, decisions: pa.StructArray, ours: Bools, logged: Bools, places: Ints) -> Built:
        widths = sizes(places)
        numeric, words = decisions.field("subject_numeric"), decisions.field("subject_categorical")
        anonymous = mask(equal(decisions.field("features_hash"), ""))
        bare = (sizes(offsets(numeric)) == 0) & (sizes(offsets(words)) == 0)
        foreign = ~ours & bare & (~anonymous | (widths > 0))
        wrong = ours & (widths > 0) & ~logged
        matrix = np.zeros((len(decisions), self.dimension))
        matrix[:, 0] = 1.0
        counted: dict[str, Ints] = {}
        built = ~(logged | foreign | wrong)
        self._put_numbers(numeric, matrix, built, counted)
        self._put_words(words, matrix, built, counted)
        if self._left:
            matrix[:, self._base :] = self._products(to_steps(matrix)[0] / STEPS)
        vectors = decisions.field("features")
        values = flat(places, vectors.values).to_numpy()[np.repeat(logged, widths)]
        matrix[logged] = values.reshape(-1, self.dimension)
        rejected = {"features_hash": foreign, "features_width": wrong}
        return self._checked(matrix, {k: v for k, v in rejected.items() if v.any()}, counted)

    def _checked(
        self, matrix: npt.NDArray[Any], rejected: dict[str, Bools], counted: dict[str, Ints]
    ) -> Built:
        steps, cut = to_steps(matrix)
        if cut is not None:
            bad = ~np.isfinite(matrix).all(axis=1)
            if bad.any():
                rejected["features_not_finite"] = bad
                steps, cut = to_steps(np.where(bad[:, None], 0.0, matrix))
            if cut is not None:
                counted["clipped_features"] = cut.sum(axis=1)
        return Built(steps, rejected, counted)

    def _products(self, single: npt.NDArray[Any]) -> Steps:
        """Multiply columns that are on the grid, exactly."""
        left = single[..., self._left].astype(np.float64)
        return np.asarray(left * single[..., self._right])

    def _scaled(self, raw: Steps) -> Steps:
        with np.errstate(over="ignore"):
            scaled = raw - self._middle
            scaled /= self._half
        return scaled

    def _numbers(self, context: Mapping[str, Any]) -> Steps:
        try:
            raw = np.array([context[name] for name in self._numeric])
        except KeyError:
            raw = np.array([None])
        if raw.dtype.kind not in "fiu":
            raw = np.array([self._number(name, context.get(name)) for name in self._numeric])
        scaled = self._scaled(raw)
        if not np.maximum.reduce(np.abs(scaled)) <= LIMIT:
            self._refuse_not_finite(context)
            scaled = np.clip(scaled, -LIMIT, LIMIT)
        return np.asarray(np.rint(scaled * STEPS) / STEPS)

    def _refuse_not_finite(self, context: Mapping[str, Any]) -> None:
        for name in self._numeric:
            if not math.isfinite(self._number(name, context.get(name))):
                raise DecisionError(
                    f"attribute {name!r} is {context[name]!r}; give a finite number"
                )

    def _number(self, name: str, value: Any) -> float:
        if value is None:
            return float(self._middle[list(self._numeric).index(name)])
        if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
            raise DecisionError(f"attribute {name!r} is {value!r}; its feature takes a number")
        try:
            return float(value)
        except OverflowError:
            return float("inf")

    def _column(self, name: str, word: Any) -> int | None:
        if not isinstance(word, str):
            raise DecisionError(f"attribute {name!r} is {word!r}; its feature takes text")
        feature = self._words[name]
        if isinstance(feature, Hashed):
            try:
                return self._first[name] + bucket(name, word, feature.buckets)
            except UnicodeEncodeError:
                raise DecisionError(
                    f"attribute {name!r} is {word!r}, which has half of a surrogate pair; give"
                    " whole characters"
                ) from None
        return self._vocabulary.get((name, word))

    def _put_numbers(
        self, maps: pa.MapArray, matrix: Steps, built: Bools, counted: dict[str, Ints]
    ) -> None:
        if not self._numeric:
            return
        rows, names, keys, items = entries(maps)
        slots = {name: slot for slot, name in enumerate(self._numeric)}
        slot = np.array([slots.get(name, -1) for name in names], dtype=np.int64)[keys]
        known = (slot >= 0) & built[rows]
        # An absent value stands at the middle, which scales to 0. Of repeated keys the last counts.
        raw = np.tile(self._middle, (len(matrix), 1))
        given = np.zeros(raw.shape, dtype=bool)
        raw[rows[known], slot[known]] = items.to_numpy()[known]
        given[rows[known], slot[known]] = True
        scaled = self._scaled(raw)
        # A finite attribute far outside may overflow when scaled: that is cut, not refused.
        scaled = np.where(np.isfinite(raw), np.clip(scaled, -1e9, 1e9), np.nan)
        matrix[:, self._numeric_columns] = scaled
        _count(counted, "missing_features", (~given & built[:, None]).sum(axis=1))

    def _put_words(
        self, maps: pa.MapArray, matrix: Steps, built: Bools, counted: dict[str, Ints]
    ) -> None:
        if not self._words:
            return
        rows, names, keys, items = entries(maps)
        words = items.dictionary_encode()
        vocabulary, codes = words.dictionary.to_pylist(), words.indices.to_numpy()
        for name in self._words:
            code = np.full(len(matrix), -1, dtype=np.int64)
            mine = keys == (names.index(name) if name in names else -1)
            code[rows[mine]] = codes[mine]
            columns = np.full(len(vocabulary) + 1, -1, dtype=np.int64)
            for used in np.unique(code[code >= 0]):
                column = self._column(name, vocabulary[used])
                columns[used] = -1 if column is None else column
            column_of = columns[code]
            hit = (column_of >= 0) & built
            matrix[hit, column_of[hit]] = 1.0
            _count(counted, "missing_features", (code < 0) & built)
            _count(counted, "unknown_categories", (code >= 0) & (column_of < 0) & built)


def _factors(spec: Spec) -> tuple[list[int], list[int]]:
    """Give the columns to be multiplied, in the order of their products."""
    columns = column_ranges(spec.features, 1)
    pairs = [
        pair
        for first, second in spec.interactions
        for pair in product(columns[first], columns.get(second, ()))
    ]
    return [left for left, _ in pairs], [right for _, right in pairs]


def _count(counted: dict[str, Ints], name: str, more: npt.NDArray[Any]) -> None:
    """Add how many values of each row count under a name."""
    if more.any():
        counted[name] = counted.get(name, 0) + more.astype(np.int64)
