"""docs/operating.md names every metric, with its labels, and every command that it is about."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from bandstand.cli_dead_letters import dead_letters_app
from bandstand.streams.join_metrics import JoinCollector

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "operating.md").read_text()
ROW = re.compile(r"^\| `(bandstand_\w+)` \|([^|]*)\|", re.M)


def _documented() -> dict[str, set[str]]:
    """Give the page's metrics with their labels."""
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in ROW.findall(PAGE)}


def _import_all_with_metrics() -> None:
    for package in ("streams", "archive", "serving"):
        for path in (ROOT / package).glob("*.py"):
            names = {
                node.module
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom)
            }
            if "prometheus_client" in names:
                importlib.import_module(f"bandstand.{package}.{path.stem}")


def _in_code() -> dict[str, set[str]]:
    """Give every metric that a process of Bandstand can tell, with its labels."""
    _import_all_with_metrics()
    lanes: Any = SimpleNamespace(own=[])
    families = [*JoinCollector(lanes, CollectorRegistry()).describe()]
    found = {family.name: set(family._labelnames) for family in families}  # type: ignore[attr-defined]
    collectors: Any = REGISTRY._names_to_collectors.values()
    for collector in collectors:
        for family in getattr(collector, "describe", list)():
            if family.name.startswith("bandstand_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found[name] = set(collector._labelnames)
    return found


def test_every_metric_is_described_with_its_labels() -> None:
    """The page's table and the code have the same metrics, and each has the same labels."""
    in_code = _in_code()
    assert len(in_code) > 30
    assert _documented() == in_code


def test_metrics_keep_prometheus_conventions() -> None:
    """Units are seconds and bytes, totals are called so, and no label grows without bound."""
    units = ("_seconds", "_bytes", "_records", "_rewards", "_decisions", "_partitions", "_outcomes")
    states = ("_engaged", "_down", "_given_up", "_unclosed", "_differences", "_offset", "_total")
    others = ("_bandits", "_condition_number")
    for name, labels in _in_code().items():
        assert name.endswith(units + states + others), name
        bounded = {"lane", "partition", "log", "state", "reason", "role", "topic", "bandit"}
        assert labels <= bounded | {"fallback", "kind"}, name
        if name.startswith("bandstand_join_"):
            assert "bandit" not in labels, name


def test_every_command_for_operators_is_shown() -> None:
    """The page shows each of these commands with what it prints."""
    names = [command.name for command in dead_letters_app.registered_commands]
    shown = [f"$ bandstand dead-letters {name}" for name in names]
    for command in [*shown, "$ bandstand lanes\n", "$ bandstand lanes delays\n"]:
        assert command in PAGE, command
