"""Which schemas can read each other's bytes; hides Avro's rules of resolution.

Stricter than Avro where Avro would let the meaning change: a logical type can't become another one.
Aliases help new readers only, so a released schema can't rename a field and stay readable by the
versions before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from bandstand.schemas.codec import WriterSchema

__all__ = ["hazards", "problems"]

_PROMOTED: Final = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
}
"""What else may read a number. Not bytes as string and back, which Avro allows: not all is text."""

_INNER: Final = {"array": "items", "map": "values"}

Node = Any
Names = Mapping[str, Mapping[str, Any]]


def problems(writer: WriterSchema, reader: WriterSchema) -> list[str]:
    """Say why bytes of one schema can't be read by another; nothing if they can.

    Examples
    --------
    >>> old = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}
    >>> more = [*old["fields"], {"name": "b", "type": "string"}]
    >>> new = WriterSchema({**old, "fields": more})
    >>> problems(WriterSchema(old), new)
    ['R.b: the writer has no such field, and the reader no default']
    >>> problems(new, WriterSchema(old))
    []
    """
    return list(_Resolution(writer, reader).run())


def hazards(schema: WriterSchema) -> list[str]:
    """Say what in a foreign schema would let a few bytes take all memory, or all of the stack.

    An array of nothing of 2^40 items fits into six bytes; a record within itself, a million deep,
    into a million.

    Examples
    --------
    >>> array = {"type": "array", "items": "null"}
    >>> fields = [{"name": "bomb", "type": array}]
    >>> hazards(WriterSchema({"type": "record", "name": "R", "fields": fields}))
    ['R.bomb: items that take no bytes']
    """
    walk = _Hazards(_names(schema.resolved))
    walk.takes_nothing(schema.resolved, "")
    return walk.found


class _Resolution:
    """One comparison of two schemas, depth first; a pair of records is compared once."""

    def __init__(self, writer: WriterSchema, reader: WriterSchema) -> None:
        self._writer, self._reader = writer.resolved, reader.resolved
        self._writer_names, self._reader_names = _names(self._writer), _names(self._reader)
        self._seen: set[tuple[str, str]] = set()

    def run(self) -> Iterator[str]:
        return self._compare(self._writer, self._reader, "")

    def _compare(self, writer: Node, reader: Node, path: str) -> Iterator[str]:
        writer = self._writer_names.get(_key(writer), writer)
        reader = self._reader_names.get(_key(reader), reader)
        if isinstance(writer, list):
            for branch in writer:
                yield from self._compare(branch, reader, path)
        elif isinstance(reader, list):
            if all(list(self._compare(writer, branch, path)) for branch in reader):
                yield f"{path}: {_word(writer)} is none of {', '.join(map(_word, reader))}"
        else:
            yield from self._compare_one(writer, reader, path)

    def _compare_one(self, writer: Node, reader: Node, path: str) -> Iterator[str]:
        was, now = _kind(writer), _kind(reader)
        if was != now:
            if now not in _PROMOTED.get(was, ()):
                yield f"{path}: {was} became {now}"
        elif len({_logical(writer), _logical(reader)} - {None}) > 1:
            yield f"{path}: {_logical(writer)} became {_logical(reader)}"
        elif was == "record":
            yield from self._records(writer, reader, path)
        elif was == "enum":
            yield from self._enums(writer, reader, path)
        elif was == "fixed" and (writer["name"], writer["size"]) != (
            reader["name"],
            reader["size"],
        ):
            yield f"{path}: {_word(writer)} became {_word(reader)}"
        elif was in _INNER:
            yield from self._compare(writer[_INNER[was]], reader[_INNER[was]], path)

    def _records(self, writer: Node, reader: Node, path: str) -> Iterator[str]:
        pair = writer["name"], reader["name"]
        if pair[0] != pair[1]:
            yield f"{path or pair[1]}: {pair[0]} where {pair[1]} belongs"
            return
        if pair in self._seen:
            return
        self._seen.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            inner = f"{path or pair[1]}.{field['name']}"
            names = [field["name"], *field.get("aliases", ())]
            found = next((written[name] for name in names if name in written), None)
            if found is not None:
                yield from self._compare(found["type"], field["type"], inner)
            elif "default" not in field:
                yield f"{inner}: the writer has no such field, and the reader no default"

    def _enums(self, writer: Node, reader: Node, path: str) -> Iterator[str]:
        unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
        if writer["name"] != reader["name"]:
            yield f"{path}: {_word(writer)} became {_word(reader)}"
        elif unknown and "default" not in reader:
            yield f"{path}: the reader has no symbol {', '.join(unknown)}, and no default"


class _Hazards:
    """One walk over a schema, depth first; each named type is looked at once."""

    def __init__(self, names: Names) -> None:
        self.found: list[str] = []
        self._names = names
        self._open: set[str] = set()
        self._done: dict[str, bool] = {}

    def takes_nothing(self, node: Node, path: str) -> bool:
        """Tell whether a value of this type is no bytes at all, and note hazards on the way."""
        node = self._names.get(_key(node), node)
        kind = _kind(node)
        if kind == "record":
            return self._record(node, path)
        if kind == "union":
            for branch in node:
                self.takes_nothing(branch, path)
        elif kind in _INNER and self.takes_nothing(node[_INNER[kind]], path) and kind == "array":
            self.found.append(f"{path}: items that take no bytes")
        return kind == "null" or (kind == "fixed" and node["size"] == 0)

    def _record(self, node: Node, path: str) -> bool:
        name = node["name"]
        if name in self._open:
            self.found.append(f"{path}: {name} within itself")
        if name in self._done or name in self._open:
            return self._done.get(name, False)
        self._open.add(name)
        fields = [
            self.takes_nothing(field["type"], f"{path or name}.{field['name']}")
            for field in node["fields"]
        ]
        self._open.remove(name)
        self._done[name] = all(fields)
        if self._done[name]:
            self.found.append(f"{path or name}: a record that takes no bytes")
        return self._done[name]


def _names(node: Node) -> dict[str, Mapping[str, Any]]:
    """Collect the named types of a schema in which all names are whole."""
    if isinstance(node, list):
        return {name: found for item in node for name, found in _names(item).items()}
    if not isinstance(node, Mapping):
        return {}
    found = (
        {node["name"]: node}
        if "name" in node and _kind(node) in ("record", "enum", "fixed")
        else {}
    )
    inner = [node[key] for key in ("items", "values") if key in node]
    inner += [field["type"] for field in node.get("fields", ())]
    return {**found, **_names(inner)}


def _key(node: Node) -> str:
    return node if isinstance(node, str) else ""


def _kind(node: Node) -> str:
    if isinstance(node, list):
        return "union"
    kind = str(node["type"]) if isinstance(node, Mapping) else str(node)
    return "record" if kind == "error" else kind


def _logical(node: Node) -> str | None:
    return node.get("logicalType") if isinstance(node, Mapping) else None


def _word(node: Node) -> str:
    """Name a type for a message."""
    return str(node["name"]) if isinstance(node, Mapping) and "name" in node else _kind(node)
