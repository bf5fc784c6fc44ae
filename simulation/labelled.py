"""A table with labels as a world: whoever names the label of a row is rewarded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from bandstand.errors import SpecError
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_features import Numeric

__all__ = ["Classification"]

SHOWN: Final = 5
"""Wrong values that an error names."""


class Classification:
    """A table with labels, as a bandit: a reward for the action that is the row's label.

    ``file`` is CSV or Parquet, ``label`` its column of labels (label); every other column is an
    attribute. Rows are drawn with replacement.
    """

    def __init__(
        self, specs: Sequence[Spec], random: np.random.Generator, options: dict[str, str]
    ) -> None:
        del random
        self._file, self._label = options.pop("file", ""), options.pop("label", "label")
        table, labels = self._read()
        self._right = np.eye(len(specs[0].actions))[self._actions(specs[0], labels)]
        numeric = self._numeric(specs)
        rows = table.drop_columns([self._label]).to_pylist()
        self._rows = [
            {
                name: self._number(numeric[name], name, value, number)
                if name in numeric
                else str(value)
                for name, value in row.items()
                if value is not None
            }
            for number, row in enumerate(rows, 1)
        ]
        self.notes = self._absent(specs, table.column_names)
        self._drawn: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def contexts(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        """Draw rows."""
        self._drawn = random.integers(len(self._rows), size=count)
        return [self._rows[row] for row in self._drawn]

    def chances(self, contexts: list[dict[str, Any]], start: int) -> npt.NDArray[np.float64]:
        """Give 1 for the label of each row that was drawn last, 0 for all else."""
        del contexts, start
        return self._right[self._drawn]

    def _read(self) -> tuple[pa.Table, list[str | None]]:
        path = Path(self._file)
        try:
            read = pa.parquet.read_table if path.suffix == ".parquet" else pa.csv.read_csv
            table: pa.Table = read(path)
            labels: list[str | None] = table[self._label].cast(pa.string()).to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            raise SpecError(
                f"environment classification: file {self._file!r} with a column {self._label!r}"
                f" can't be read: {error}; give classification,file=FILE.csv,label=COLUMN"
            ) from None
        if not labels:
            raise self._refusal("has no rows; give at least one")
        return table, labels

    def _actions(self, spec: Spec, labels: list[str | None]) -> list[int]:
        """Give the index of the action that each label names."""
        places: dict[str | None, int] = {name: place for place, name in enumerate(spec.actions)}
        wrong = [number for number, label in enumerate(labels, 1) if label not in places]
        if wrong:
            unknown = sorted({label for label in labels if label not in places} - {None}, key=str)
            empty = [number for number in wrong if labels[number - 1] is None]
            found = [f"labels that are no actions ({_some(unknown)})"] if unknown else []
            found += [f"no label in row {_some(empty)}"] if empty else []
            raise self._refusal(
                f"has {' and '.join(found)}; every row of column {self._label!r} must name an"
                f" action of bandit {spec.bandit!r}: {', '.join(spec.actions)}"
            )
        return [places[label] for label in labels]

    def _numeric(self, specs: Sequence[Spec]) -> dict[str, Spec]:
        """Find the attributes that are numbers, and whose feature says so."""
        numbers: dict[str, Spec] = {}
        words: dict[str, Spec] = {}
        for spec in specs:
            for feature in spec.features:
                (numbers if isinstance(feature, Numeric) else words).setdefault(feature.name, spec)
        for name in numbers.keys() & words.keys():
            raise self._refusal(
                f"has one column {name!r}, but it is a number for bandit"
                f" {numbers[name].bandit!r} and a word for {words[name].bandit!r}; copy it under"
                " another name for one of them"
            )
        return numbers

    def _number(self, spec: Spec, name: str, value: Any, row: int) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self._refusal(
                f"has {value!r} in row {row} of column {name!r}, a numeric feature of bandit"
                f" {spec.bandit!r}; give finite numbers, leave unknown ones empty, or make the"
                " feature categorical"
            )
        return number

    def _absent(self, specs: Sequence[Spec], columns: Sequence[str]) -> list[str]:
        """Say which features the table doesn't have."""
        there = set(columns) - {self._label}
        names = {feature.name for spec in specs for feature in spec.features}
        absent = ", ".join(map(repr, sorted(names - there)))
        columns = ", ".join(sorted(there))
        note = f"{self._file} has no column {absent}, so that stays unknown; columns: {columns}"
        return [note] if absent else []

    def _refusal(self, problem: str) -> SpecError:
        return SpecError(f"environment classification: {self._file} {problem}")


def _some(values: Sequence[object]) -> str:
    """Name the first few."""
    more = ", …" if len(values) > SHOWN else ""
    return ", ".join(repr(value) for value in values[:SHOWN]) + more
