"""Records for property tests, made from the schemas themselves, and Arrow rows as plain dicts."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from bandstand.schemas.definitions import current

LONG = st.integers(-(2**63), 2**63 - 1)
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "string": st.text(max_size=12),
    "bytes": st.binary(max_size=12),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": LONG,
    "float": st.floats(width=32),
    "double": st.floats(),
}


def records(schema: str | dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw any record of a schema: extreme numbers, NaN, any text, empty and missing parts."""
    return _values(current(schema).definition if isinstance(schema, str) else schema, {**SIMPLE})


def _values(node: Any, known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Draw values of a type; `known` are those that have names, and gets this one's."""
    if isinstance(node, str):
        return known[node]
    if isinstance(node, list):
        return st.one_of([_values(branch, known) for branch in node])
    match node["type"]:
        case "record":
            fields = {f["name"]: _values(f["type"], known) for f in node["fields"]}
            known[node["name"]] = st.fixed_dictionaries(fields)
            return known[node["name"]]
        case "array":
            return st.lists(_values(node["items"], known), max_size=3)
        case "map":
            return st.dictionaries(st.text(max_size=5), _values(node["values"], known), max_size=3)
        case "enum":
            return st.sampled_from(node["symbols"])
        case kind:
            return _values(kind, known)


def rows(table: pa.RecordBatch) -> list[dict[str, Any]]:
    """Give a batch's rows as `codec.decode` would: times as numbers, maps as dicts."""
    schema = pa.schema([field.with_type(_numbers(field.type)) for field in table.schema])
    plain: list[dict[str, Any]] = table.cast(schema).to_pylist(maps_as_pydicts="strict")
    return plain


def _numbers(kind: pa.DataType) -> pa.DataType:
    """Replace times by whole numbers, at any depth."""
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_numbers(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_numbers(field.type)) for field in kind])
    return kind
