"""YAML with its line numbers, and validation errors in terms of them.

Reads the scalars of YAML 1.2 (so ``no`` is a word and ``1e-3`` a number), and refuses duplicate
keys, aliases and foreign tags, each with its line.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bandstand.errors import SpecError

__all__ = ["Document", "describe", "read_yaml"]

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_FLOAT = (
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
# Tag: its pattern, first characters (a blank stands for the empty scalar), and how it is read.
_SCALARS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "null": (r"^(?:~|null|Null|NULL|)$", "~nN ", lambda _: None),
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF", lambda text: text[0] in "tT"),
    "int": (r"^[-+]?[0-9]+$", "-+0123456789", lambda text: _integer(text)),
    "float": (_FLOAT, "-+.0123456789", lambda text: float(re.sub(r"\.(?=[inIN])", "", text))),
}


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 20 else float(text)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - the base's own declaration


for _name, (_pattern, _first, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), [c.strip() for c in _first])


@dataclass
class Document:
    """A YAML text as plain values, with the line of each.

    Parameters
    ----------
    source
        What to call it in errors.
    data
        Dicts, lists and scalars.
    lines
        Path of keys and indexes to line number, from 1.
    problems
        What is wrong with it as YAML.
    """

    source: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def at(self, path: Path) -> str:
        """Give ``source:line`` of the deepest known part of the path."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return f"{self.source}:{self.lines[path[:length]]}"
        return self.source

    def known(self, location: tuple[str | int, ...]) -> Path:
        """Give the path without what isn't in the text: union tags that pydantic puts in."""
        path: Path = ()
        for step in location:
            if (*path, step) in self.lines or step == location[-1]:
                path = (*path, step)
        return path


def read_yaml(text: str, source: str) -> Document:
    """Read one YAML document.

    Raises
    ------
    SpecError
        If it isn't YAML.
    """
    document = Document(source)
    try:
        root = yaml.compose(text, Loader=_Loader)
        document.data = _value(root, (), document, set()) if root is not None else {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{source}:{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: not YAML: {error}") from error
    except RecursionError as error:
        raise SpecError(f"{source}: nested too deeply to be a spec") from error
    return document


def _value(node: yaml.Node, path: Path, document: Document, seen: set[int]) -> Any:
    line = node.start_mark.line + 1
    document.lines.setdefault(path, line)
    if id(node) in seen:
        document.problems.append(f"{document.source}:{line}: aliases aren't allowed; write it out")
        return None
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document, seen)
    if isinstance(node, yaml.SequenceNode):
        return [_value(n, (*path, i), document, seen) for i, n in enumerate(node.value)]
    return _scalar(node, document)


def _mapping(node: yaml.MappingNode, path: Path, document: Document, seen: set[int]) -> Any:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = f"{document.source}:{key_node.start_mark.line + 1}"
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(f"{where}: a key must be a word")
        elif key in found:
            first = document.lines[(*path, key)]
            document.problems.append(f"{where}: key {key!r} stands twice, first on line {first}")
        else:
            document.lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = _value(value_node, (*path, key), document, seen)
    return found


def _scalar(node: yaml.Node, document: Document) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return node.value
    if kind in _SCALARS and re.match(_SCALARS[kind][0], node.value):
        return _SCALARS[kind][2](node.value)
    where = f"{document.source}:{node.start_mark.line + 1}"
    document.problems.append(f"{where}: tag {node.tag!r} isn't allowed on {node.value!r}")
    return node.value


def describe(error: ValidationError, document: Document, model: type[BaseModel]) -> list[str]:
    """Say, for each mistake that pydantic found, where it is, what it is and what is allowed."""
    return [_describe(detail, document, model) for detail in error.errors(include_url=False)]


def _describe(detail: ErrorDetails, document: Document, model: type[BaseModel]) -> str:
    location = detail["loc"]
    path = document.known(location)
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, _tag(detail))
    elif detail["type"] == "unknown_name":
        path = (*path, "name")
    name = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path).lstrip(".")
    complaint = _complaint(detail, location, model, document.data)
    return f"{document.at(path)}: {name or 'spec'}: {complaint}"


def _complaint(detail: ErrorDetails, location: Path, model: type[BaseModel], data: Any) -> str:
    context: Mapping[str, Any] = detail.get("ctx", {})
    value = detail["input"]
    match detail["type"]:
        case "missing":
            required = _keys(location[:-1], model, data, required=True)
            return f"missing; required here: {', '.join(required)}"
        case "extra_forbidden":
            keys = _keys(location[:-1], model, data)
            return f"unknown key; {_nearest(str(location[-1]), keys)}allowed: {', '.join(keys)}"
        case "literal_error":
            return _choice(value, re.findall(r"'([^']+)'", context["expected"]))
        case "unknown_name":
            return _choice(context["given"], list(context["allowed"]))
        case "union_tag_invalid" | "union_tag_not_found":
            tags = [tag for option in _models(location, model, data) for tag in _tags(option)]
            return _choice(value.get(_tag(detail)), tags)
        case "string_type":
            return f"{value!r} isn't text; put it in quotes if it is meant as text"
        case "string_pattern_mismatch":
            return f"{value!r} doesn't match the allowed pattern {context['pattern']}"
        case "value_error":
            return f"{_shown(value)} {str(context['error']).removeprefix(f'{value!r} ')}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{_shown(value)} isn't a mapping of keys to values"
        case "tuple_type":
            return f"{_shown(value)} isn't a list"
        case "json_invalid":
            return f"{detail['msg']}"
        case _:
            return f"{_shown(value)}: {detail['msg'].removeprefix('Input ')}"


def _tag(detail: ErrorDetails) -> str:
    """Name of the key that tells the members of a union apart."""
    return str(detail["ctx"]["discriminator"]).strip("'")


def _choice(given: object, allowed: list[str]) -> str:
    what = "missing" if given is None else repr(given)
    return f"{what}; {_nearest(str(given), allowed)}allowed: {', '.join(allowed)}"


def _nearest(word: str, known: list[str]) -> str:
    match = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {match[0]!r}? " if match else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _keys(location: Path, model: type[BaseModel], data: Any, required: bool = False) -> list[str]:
    """Keys that may stand in the mapping at a location (or that must)."""
    fields = _models(location, model, data)[0].model_fields
    return [name for name, about in fields.items() if about.is_required() or not required]


def _models(location: Path, model: type[BaseModel], data: Any) -> list[type[BaseModel]]:
    """Models that the mapping at a location may be: several in a union not yet told apart."""
    options = [model]
    for step in location:
        data = _below(data, step)
        if isinstance(step, int):
            continue
        tagged = [option for option in options if step in _tags(option)]
        if len(options) > 1 and tagged:
            options = tagged
        else:
            options = list(_inside(options[0].model_fields[step].annotation))
            if len(options) == 1 and hasattr(options[0], "chosen"):
                options = [options[0].chosen(data)]
    return options


def _below(data: Any, step: str | int) -> Any:
    """Give what is at a step; the same where the step names a member of a union, not a place."""
    try:
        return data[step]
    except (KeyError, IndexError, TypeError):
        return data


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _inside(part)


def _tags(model: type[BaseModel]) -> list[str]:
    """Values of the fields of a model that hold one fixed word: its tag in a union."""
    literals = [field.annotation for field in model.model_fields.values()]
    return [
        typing.get_args(annotation)[0]
        for annotation in literals
        if typing.get_origin(annotation) is typing.Literal and len(typing.get_args(annotation)) == 1
    ]
