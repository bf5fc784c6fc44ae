"""YAML with its line numbers, and validation errors in terms of them.

Reads the scalars of YAML 1.2 (so ``no`` is a word and ``1e-3`` a number), and refuses duplicate
keys, aliases and foreign tags, each with its line.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    except (ValueError, OverflowError) as error:  # of an escape such as "\UFFFFFFFF"
        raise SpecError(f"{source}: not YAML: {error}") from error
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
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(f"{where}: a key must be a word")
            continue
        key = _text(key_node, document)
        if key in found:
            first = document.lines[(*path, key)]
            document.problems.append(f"{where}: key {key!r} stands twice, first on line {first}")
        else:
            document.lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = _value(value_node, (*path, key), document, seen)
    return found


def _scalar(node: yaml.Node, document: Document) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return _text(node, document)
    if kind in _SCALARS and re.match(_SCALARS[kind][0], node.value):
        return _SCALARS[kind][2](node.value)
    where = f"{document.source}:{node.start_mark.line + 1}"
    document.problems.append(f"{where}: tag {node.tag!r} isn't allowed on {node.value!r}")
    return _text(node, document)


def _text(node: yaml.Node, document: Document) -> str:
    """Give a text; half of a surrogate pair, as an escape can write it, is no character."""
    text: str = node.value
    whole = text.encode("utf-8", "replace").decode()
    if whole != text:
        where = f"{document.source}:{node.start_mark.line + 1}"
        document.problems.append(
            f"{where}: {text!r} has half of a surrogate pair, which is no character; write the"
            " whole character, or \\U and its eight hexadecimal digits"
        )
    return whole


def describe(error: ValidationError, document: Document, model: type[BaseModel]) -> list[str]:
    """Say, for each mistake that pydantic found, where it is, what it is and what is allowed."""
    return [_describe(detail, document, model) for detail in error.errors(include_url=False)]


def _describe(detail: ErrorDetails, document: Document, model: type[BaseModel]) -> str:
    place = _place(detail["loc"], model, document.data)
    path = place.path
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, _tag(detail))
    elif detail["type"] == "unknown_name":
        path = (*path, "name")
    name = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path).lstrip(".")
    holder = _place(detail["loc"][:-1], model, document.data)
    return f"{document.at(path)}: {name or 'spec'}: {_complaint(detail, place, holder)}"


class _Place(NamedTuple):
    """What a location of pydantic's leads to."""

    path: Path
    """Keys and indexes in the text: the location without the tags that tell unions apart."""
    kinds: tuple[Any, ...]
    """What may stand there: models, generic containers and plain types."""

    @property
    def models(self) -> list[type[BaseModel]]:
        """Models that may stand there: several in a union not yet told apart."""
        return [kind for kind in self.kinds if _is_model(kind)]


def _complaint(detail: ErrorDetails, place: _Place, holder: _Place) -> str:
    """Say what is wrong at a place, and what is allowed in what holds it."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    value = detail["input"]
    match detail["type"]:
        case "missing":
            return f"missing; {_required(holder)}"
        case "extra_forbidden":
            keys = [name for option in holder.models for name in option.model_fields]
            return f"unknown key; {_nearest(str(place.path[-1]), keys)}allowed: {', '.join(keys)}"
        case "literal_error":
            return _choice(value, re.findall(r"'([^']+)'", context["expected"]))
        case "unknown_name":
            return _choice(context["given"], list(context["allowed"]))
        case "union_tag_invalid" | "union_tag_not_found":
            tags = [tag for option in place.models for tag in _tags(option)]
            return _choice(value.get(_tag(detail)), tags)
        case "string_type":
            return f"{_shown(value)} isn't text; put it in quotes if it is meant as text"
        case "string_pattern_mismatch":
            return f"{_shown(value)} doesn't match the allowed pattern {context['pattern']}"
        case "value_error":
            return f"{_shown(value)} {str(context['error']).removeprefix(f'{value!r} ')}"
        case "model_type" | "dict_type" | "mapping_type" | "model_attributes_type":
            return f"{_shown(value)} isn't a mapping of keys to values"
        case "tuple_type":
            return f"{_shown(value)} isn't a list"
        case "json_invalid":
            return f"{detail['msg']}"
        case _:
            return f"{_shown(value)}: {detail['msg'].removeprefix('Input ')}"


def _required(holder: _Place) -> str:
    """Say what a mapping must have, or how long a list must be."""
    for option in holder.models:
        fields = option.model_fields.items()
        return f"required here: {', '.join(name for name, about in fields if about.is_required())}"
    for kind in holder.kinds:
        return f"the list must have {len(typing.get_args(kind))} entries"
    return "it must be there"


def _tag(detail: ErrorDetails) -> str:
    """Name of the key that tells the members of a union apart."""
    return str(detail["ctx"]["discriminator"]).strip("'")


def _choice(given: object, allowed: list[str]) -> str:
    what = "missing" if given is None else _shown(given)
    return f"{what}; {_nearest(str(given), allowed)}allowed: {', '.join(allowed)}"


def _nearest(word: str, known: list[str]) -> str:
    match = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {match[0]!r}? " if match else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _place(location: Path, model: type[BaseModel], data: Any) -> _Place:
    """Follow a location through the text and through what the model says of it."""
    path: Path = ()
    kinds: tuple[Any, ...] = (model,)
    for step in location:
        tagged = [kind for kind in kinds if _is_model(kind) and step in _tags(kind)]
        if len(kinds) > 1 and tagged:
            kinds = tuple(tagged)
            continue
        path, data = (*path, step), _below(data, step)
        kinds = tuple(below for kind in kinds for below in _under(kind, step))
        if len(kinds) == 1 and hasattr(kinds[0], "chosen"):
            kinds = (kinds[0].chosen(data),)
    return _Place(path, kinds)


def _below(data: Any, step: str | int) -> Any:
    """Give what is at a step; None where nothing is."""
    try:
        return data[step]
    except (KeyError, IndexError, TypeError):
        return None


def _under(kind: Any, step: str | int) -> Iterator[Any]:
    """Give what may stand at a step into a model, a mapping or a list."""
    parts = typing.get_args(kind)
    if _is_model(kind):
        if step in kind.model_fields:
            yield from _alternatives(kind.model_fields[step].annotation)
    elif parts and isinstance(step, str):
        yield from _alternatives(parts[-1])
    elif parts and isinstance(step, int):
        yield from _alternatives(parts[min(step, len(parts) - 1) if ... not in parts else 0])


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Give the members of a union, without what is annotated; anything else is the only one."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _alternatives(part)
    elif annotation is not type(None):
        yield annotation


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _tags(model: type[BaseModel]) -> list[str]:
    """Values of the fields of a model that hold one fixed word: its tag in a union."""
    literals = [field.annotation for field in model.model_fields.values()]
    return [
        typing.get_args(annotation)[0]
        for annotation in literals
        if typing.get_origin(annotation) is typing.Literal and len(typing.get_args(annotation)) == 1
    ]
