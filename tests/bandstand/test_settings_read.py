"""No setting that nobody reads."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from bandstand.settings import LaneSettings, Settings

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = {
    name: LaneSettings if name == "lanes" else field.annotation
    for name, field in Settings.model_fields.items()
}
CLASSES = {section.__name__: name for name, section in SECTIONS.items() if section}


def _modules() -> Iterator[ast.Module]:
    for path in [*ROOT.glob("bandstand/*.py"), *ROOT.glob("[!.]*/*.py")]:
        if path.parent.name not in ("tests", "benchmarks") and path.name != "settings.py":
            yield ast.parse(path.read_text())


def _section(node: ast.expr | None, known: dict[str, str]) -> str | None:
    """Name the section that an expression gives, as far as its text tells."""
    match node:
        case ast.Attribute(attr="lane") | ast.Call(func=ast.Attribute(attr="lane")):
            return "lanes"
        case ast.Subscript(value=ast.Attribute(attr="lanes")):
            return "lanes"
        case ast.Attribute(attr=name) if name in SECTIONS:
            return name
        case ast.Attribute() | ast.Name():
            return known.get(ast.unparse(node))
    return None


def _names(tree: ast.Module) -> dict[str, str]:
    """Sections by the names that a module has for them."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            section = CLASSES.get(ast.unparse(node.annotation))
            if section:
                known[node.arg] = section
    for _ in range(2):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and (section := _section(node.value, known)):
                known |= {ast.unparse(target): section for target in node.targets}
    return known


def _read() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for tree in _modules():
        known = _names(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (section := _section(node.value, known)):
                found[section].add(node.attr)
    return found


def test_every_setting_is_read() -> None:
    """Each setting changes something: some module takes its value."""
    read = _read()
    assert "librdkafka" in read["kafka"], "the section kafka is handed over as a whole"
    unread = [
        f"{section}.{field}"
        for section, model in SECTIONS.items()
        if section != "kafka" and model
        for field in model.model_fields
        if field not in read[section]
    ]
    assert unread == []
