"""What is said of a benchmark: a table for people, a file for programs, and where it ran."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.measure import Benchmark, Result, Spread

__all__ = ["machine", "table", "versions", "write"]

_PACKAGES = (
    "bandstand",
    "confluent-kafka",
    "fastavro",
    "faust-streaming",
    "numpy",
    "pyarrow",
    "pyruhvro",
    "scipy",
)


def table(benchmark: Benchmark, result: Result) -> Table:
    """Give what was measured, and the ratios below."""
    shown = Table(title=f"{benchmark.name}: a {benchmark.unit}", title_justify="left")
    for name in ("", "figure"):
        shown.add_column(name)
    for name in ("median", "min", "max"):
        shown.add_column(name, justify="right")
    shown.add_column("wanted")
    for contestant, figures in result.figures.items():
        for figure, spread in figures.items():
            shown.add_row(contestant, figure, *_numbers(spread), "")
    shown.add_section()
    for ratio, spread in result.ratios:
        shown.add_row(
            f"{ratio.over} / {ratio.under}", ratio.figure, *_numbers(spread), ratio.wanted
        )
    return shown


def write(folder: Path, benchmark: Benchmark, result: Result) -> Path:
    """Write all that was measured, each round of it, as ``NAME.json``; give the path."""
    document = {
        "benchmark": benchmark.name,
        "compared": benchmark.compared,
        "unit": benchmark.unit,
        "facts": dict(benchmark.facts),
        "machine": machine(),
        "versions": versions(),
        "figures": {
            contestant: {figure: _spread(spread) for figure, spread in figures.items()}
            for contestant, figures in result.figures.items()
        },
        "ratios": [{**ratio._asdict(), **_spread(spread)} for ratio, spread in result.ratios],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark.name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def machine() -> dict[str, Any]:
    """Say what this runs on, and how busy that was in the last minutes."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1_5_15_minutes": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    """Give the versions of the packages that matter here."""
    return {name: version(name) for name in _PACKAGES}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _spread(spread: Spread) -> dict[str, Any]:
    return {
        "median": spread.median,
        "min": spread.least,
        "max": spread.most,
        "rounds": spread.rounds,
    }


def _numbers(spread: Spread) -> list[str]:
    return [f"{number:,.3g}" if number < 100 else f"{number:,.0f}" for number in spread[:3]]
