"""What is said of the join beside its peers: a table, a picture, a file, and the page in docs/.

``python -m benchmarks.join.results`` writes the table and the picture in docs/ anew from the file.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from bandstand.local.pins import KAFKA_VERSION
from benchmarks.join.contestants import CONTESTANTS, Contestant
from benchmarks.join.page import FOLDER, PICTURES, put, where_and_when
from benchmarks.join.pins import FLINK_VERSION
from benchmarks.join.python import PEERS
from benchmarks.join.stage import Run
from benchmarks.join.workload import BASE
from benchmarks.report import machine, versions

__all__ = ["FOLDER", "Row", "draw", "facts", "row", "table", "write"]

OURS = "bandstand"

Row = Mapping[str, Any]


def row(contestant: Contestant, decisions: int, runs: Sequence[Run]) -> Row:
    """Sum up the runs of one contestant; counts are those of its last run."""
    figures = [each for each, _ in runs]
    counted = [each for _, each in runs if each is not None]
    last = counted[-1] if counted else None
    return {
        "name": contestant.name,
        "decisions_per_second": _spread([f.decisions_per_second for f in figures]),
        "cpu_seconds_per_million": _median([f.cpu_s_per_million for f in figures]),
        "rss_mb": _median([f.rss_mb for f in figures]),
        "outcomes": last.outcomes if last else 0,
        "joined": last.joined if last else 0,
        "semantics": contestant.semantics,
        "decisions": decisions,
        "right": all(each.right for each in counted) if counted else None,
        "missing": last.missing if last else 0,
        "repeated": last.repeated if last else 0,
        "wrong": last.wrong if last else 0,
        "whole_decisions_per_second": _spread([f.whole_decisions_per_second for f in figures]),
        "steady_cpu_seconds_per_million": _median([f.steady_cpu_s_per_million for f in figures]),
        "seconds_to_first": _median([f.seconds_to_first for f in figures]),
        "longest_stall_ms": max(f.longest_stall_ms for f in figures),
        "runs": [each._asdict() for each in figures],
    }


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": _median(values), "max": max(values)}


def facts(decisions: int) -> dict[str, Any]:
    """Say what was measured, where and when."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "decisions": decisions,
        "traffic": {**BASE._asdict(), "rules": BASE.rules._asdict()},
        "machine": machine(),
        "versions": {**versions(), **_peer_versions()},
    }


def _peer_versions() -> dict[str, str]:
    found = re.search(r"^quixstreams==(\S+)", (PEERS / "quix.txt").read_text(), re.M)
    assert found is not None
    return {"kafka-streams": KAFKA_VERSION, "flink": FLINK_VERSION, "quixstreams": found[1]}


def table(rows: Sequence[Row]) -> Table:
    """Give the figures of all contestants, one a line."""
    shown = Table(title="join: decisions already in the log, steady part", title_justify="left")
    for name in _HEADINGS:
        shown.add_column(name, justify="left" if name == _HEADINGS[0] else "right")
    for each in rows:
        shown.add_row(
            *_cells(each, rows), style=None if each["right"] in (True, None) else "yellow"
        )
    return shown


_HEADINGS = (
    "",
    "k decisions/s, min / median / max",
    "whole run",
    "CPU-s/M",
    "steady CPU-s/M",
    "RSS MB",
    "longest stall ms",
    "bandstand / it: rate, CPU",
    "outcomes (joined)",
    "right",
)


def _cells(each: Row, rows: Sequence[Row]) -> list[str]:
    rate = each["decisions_per_second"]
    return [
        each["name"],
        " / ".join(_thousands(rate[name]) for name in ("min", "median", "max")),
        _thousands(each["whole_decisions_per_second"]["median"]),
        f"{each['cpu_seconds_per_million']:.1f}",
        f"{each['steady_cpu_seconds_per_million']:.1f}",
        f"{each['rss_mb']:.0f}",
        f"{each['longest_stall_ms']:.0f}",
        _against(each, rows),
        "-" if each["right"] is None else f"{each['outcomes']:,} ({each['joined']:,})",
        _verdict(each),
    ]


def _against(each: Row, rows: Sequence[Row]) -> str:
    """Compare with one worker of ours: ratios within each round, then their median."""
    ours = next((row["runs"] for row in rows if row["name"] == OURS), None)
    if ours is None or each["name"] == OURS:
        return ""
    rate, cpu = (
        _median([a[figure] / b[figure] for a, b in zip(ours, each["runs"], strict=False)])
        for figure in ("decisions_per_second", "steady_cpu_s_per_million")
    )
    return f"{_times(rate)}, {_times(cpu)}"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2g}x"


def _thousands(number: float) -> str:
    return f"{number / 1e3:.1f}" if number < 1e5 else f"{number / 1e3:.0f}"


def _verdict(each: Row) -> str:
    if each["right"] is None:
        return "-"
    if each["right"]:
        return "yes"
    found = [f"{each[name]:,} {name}" for name in ("missing", "repeated", "wrong") if each[name]]
    return "no: " + ", ".join(found or ["in an earlier run"])


def write(folder: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> Path:
    """Write ``join.json`` (the rows), ``join-facts.json`` and ``join.png``; give the first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "join.json"
    path.write_text(json.dumps(rows, indent=2) + "\n")
    (folder / "join-facts.json").write_text(json.dumps(about, indent=2) + "\n")
    draw(rows, folder / "join.png")
    return path


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw decisions a second and CPU seconds of each contestant, on log scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 0.4 * len(rows) + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for each in rows:
        colour = "tab:orange" if each["name"].startswith(OURS) else "tab:blue"
        rate = each["decisions_per_second"]
        ends = [[rate["median"] - rate["min"]], [rate["max"] - rate["median"]]]
        left.errorbar([rate["median"]], [each["name"]], xerr=ends, fmt="o", color=colour, capsize=3)
        right.plot([each["steady_cpu_seconds_per_million"]], [each["name"]], "o", color=colour)
    left.set_xlabel("decisions a second, steady part; higher is better")
    right.set_xlabel("CPU seconds a million decisions, steady part; lower is better")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.grid(alpha=0.3)
    left.invert_yaxis()
    figure.savefig(path, dpi=110)


def _page(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """Give the part of docs/benchmarks.md that holds figures."""
    names, rounds = about["versions"], min(len(each["runs"]) for each in rows)
    first = (
        f"{rounds} run{'s' * (rounds > 1)} of each, {about['decisions']:,} decisions, on "
        f"{where_and_when(about)}, Kafka and Kafka Streams {names['kafka-streams']}, Flink "
        f"{names['flink']}, Quix Streams {names['quixstreams']}, Faust {names['faust-streaming']}, "
        f"confluent-kafka {names['confluent-kafka']}."
    )
    lines = [
        first,
        "",
        "| " + " | ".join(("contestant", *_HEADINGS[1:])) + " |",
        "|---|" + "---:|" * (len(_HEADINGS) - 2) + "---|",
        *("| " + " | ".join(_cells(each, rows)) + " |" for each in rows),
        "",
        *(f"- **{each['name']}**: {each['semantics']}" for each in rows),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the page's figures anew; only a run of all contestants may."""
    if not (FOLDER / "join.json").exists():
        sys.exit("there are no figures yet; run 'make bench-join' first")
    rows = json.loads((FOLDER / "join.json").read_text())
    if missing := {c.name for c in CONTESTANTS} - {each["name"] for each in rows}:
        sys.exit(f"join.json has no {', '.join(sorted(missing))}; run 'make bench-join' for all")
    about = json.loads((FOLDER / "join-facts.json").read_text())
    put("join", _page(rows, about))
    draw(rows, PICTURES / "join.png")


if __name__ == "__main__":
    main()
