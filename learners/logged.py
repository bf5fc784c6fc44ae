"""A log of decisions as a flat table, as the outcomes that a learner reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.errors import SpecError
from bandstand.learners.grid import CHUNK
from bandstand.schemas.spec import Numeric, Spec

__all__ = ["PROPENSITY", "outcomes"]

PROPENSITY: Final = "|propensity"
"""Attribute that holds an outcome's propensity times its keep probability; no feature's name.

It isn't there where the log has propensities, but none in (0, 1] for this row.
"""


def outcomes(spec: Spec, table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Give a flat table as outcomes, in batches of at most `grid.CHUNK` rows.

    Parameters
    ----------
    spec
        Says which columns are read.
    table
        A row a decision: ``action`` (text); one column a reward name of the spec, null where no
        such reward came; one an attribute that its features, cost or keep probability name, null
        where it isn't known; ``propensity``, if it is known: beside rows that have one, those that
        don't can't be weighed. Others don't matter.

    Raises
    ------
    SpecError
        Naming the columns that are missing, that stand there twice, or that aren't of their kind.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> spec = parse_spec(
    ...     "{bandit: b, actions: [x, y], policy: {name: beta_thompson}, reward: {name: buy}}", ""
    ... )
    >>> [batch] = outcomes(spec, pa.table({"action": ["x", "y"], "buy": [2.0, None]}))
    >>> batch.column("rewards").to_pylist()
    [[{'name': 'buy', 'value': 2.0}], []]
    """
    numeric, words = _attributes(spec)
    chosen = [spec.reward.cost.action_attribute] if spec.reward.cost else []
    costs = [name for name in chosen if name is not None]
    rewards = list(dict.fromkeys(part.name for part in spec.reward.addends))
    if spec.reward.activation is not None and spec.reward.activation not in rewards:
        rewards.append(spec.reward.activation)
    kinds = {
        **dict.fromkeys([*rewards, *numeric, *costs, "propensity"], pa.float64()),
        **dict.fromkeys([*words, "action"], pa.string()),
    }
    typed = _typed(spec, table, kinds)
    keep = spec.reward.keep_probability
    weighed = typed["propensity"].null_count < typed.num_rows
    for start in range(0, typed.num_rows, CHUNK):
        part = typed.slice(start, CHUNK).combine_chunks()
        weight = _share(part["propensity"]) if weighed else part["propensity"].fill_null(1.0)
        if keep is not None:
            kept = part[keep.attribute]
            kept = kept if keep.absent is None else kept.fill_null(keep.absent)
            weight = pc.multiply(weight, _share(kept).fill_null(np.nan))
        yield _batch(part.append_column(PROPENSITY, weight), rewards, numeric, words, costs)


def _share(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give null where a number isn't above 0 and at most 1."""
    good = pc.and_(pc.greater(column, 0.0), pc.less_equal(column, 1.0))
    return pc.if_else(good, column, pa.scalar(None, pa.float64()))


def _attributes(spec: Spec) -> tuple[list[str], list[str]]:
    numeric = [feature.name for feature in spec.features if isinstance(feature, Numeric)]
    words = [feature.name for feature in spec.features if not isinstance(feature, Numeric)]
    if spec.reward.cost is not None and spec.reward.cost.subject_attribute is not None:
        numeric.append(spec.reward.cost.subject_attribute)
    if spec.reward.keep_probability is not None:
        numeric.append(spec.reward.keep_probability.attribute)
    return list(dict.fromkeys(numeric)), words


def _typed(spec: Spec, table: pa.Table, kinds: dict[str, pa.DataType]) -> pa.Table:
    if "propensity" not in table.column_names:
        table = table.append_column("propensity", pa.nulls(table.num_rows, pa.float64()))
    missing = [name for name in kinds if name not in table.column_names]
    twice = [name for name in kinds if table.column_names.count(name) > 1]
    if twice:
        raise SpecError(
            f"the log has several columns of the names {', '.join(map(repr, twice))}, which the"
            f" spec of {spec.bandit!r} reads; leave one of each"
        )
    if missing:
        raise SpecError(
            f"the log lacks the columns {', '.join(map(repr, missing))} that the spec of"
            f" {spec.bandit!r} reads; it has {', '.join(map(repr, table.column_names))}"
        )
    columns = {}
    for name, kind in kinds.items():
        try:
            columns[name] = table[name].cast(kind)
        except pa.ArrowException as error:
            wanted = "text" if pa.types.is_string(kind) else "numbers"
            raise SpecError(
                f"column {name!r} of the log has the type {table[name].type}; the spec of"
                f" {spec.bandit!r} reads {wanted} from it: {error}"
            ) from None
    return pa.table(columns)


def _batch(
    part: pa.Table,
    rewards: Sequence[str],
    numeric: Sequence[str],
    words: Sequence[str],
    costs: Sequence[str],
) -> pa.RecordBatch:
    count = part.num_rows
    names, values, offsets = _entries(part, rewards, pa.float64())
    entries = pa.StructArray.from_arrays([names, values], names=["name", "value"])
    once = pa.array(np.arange(count + 1, dtype=np.int32))
    action = _whole(part, "action")
    listed = pa.StructArray.from_arrays(
        [action, _map(part, costs, pa.float64())], names=["action", "numeric"]
    )
    decision = {
        "ts": pa.array(np.zeros(count, np.int64)).cast(pa.timestamp("ms")),
        "action": action,
        "propensity": _whole(part, "propensity").fill_null(np.nan),
        "features_hash": pa.array([""] * count),
        "features": pa.array([[]] * count, pa.list_(pa.float32())),
        "subject_numeric": _map(part, [*numeric, PROPENSITY], pa.float64()),
        "subject_categorical": _map(part, words, pa.string()),
        "actions": pa.ListArray.from_arrays(once, listed),
    }
    return pa.RecordBatch.from_arrays(
        [
            pa.ListArray.from_arrays(offsets, entries),
            pa.StructArray.from_arrays(list(decision.values()), names=list(decision)),
        ],
        names=["rewards", "decision"],
    )


def _map(part: pa.Table, names: Sequence[str], kind: pa.DataType) -> pa.MapArray:
    keys, values, offsets = _entries(part, names, kind)
    return pa.MapArray.from_arrays(offsets, keys, values)


def _entries(
    part: pa.Table, names: Sequence[str], kind: pa.DataType
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Turn columns into entries, row by row, without the nulls: names, values and offsets."""
    count = part.num_rows
    columns = [_whole(part, name) for name in names]
    there = (
        np.stack([c.is_valid().to_numpy(zero_copy_only=False) for c in columns], axis=1)
        if (columns)
        else np.zeros((count, 0), dtype=bool)
    )
    rows, which = np.nonzero(there)
    values = pa.concat_arrays([*columns, pa.array([], kind)]).take(pa.array(which * count + rows))
    keys = pa.array(list(names), pa.string()).take(pa.array(which))
    offsets = np.concatenate([[0], there.sum(axis=1).cumsum()])
    return keys, values, pa.array(offsets.astype(np.int32))


def _whole(part: pa.Table, name: str) -> pa.Array:
    return pa.concat_arrays(part[name].chunks) if part.num_rows else part[name].combine_chunks()
