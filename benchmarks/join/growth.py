"""``python -m benchmarks.join.growth``: how the join grows with partitions, rewards and payload.

One worker, one broker, one thing varied at a time: what stays the same is the base case.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from bandstand.local import Kafka
from bandstand.output import stderr
from benchmarks.join.contestants import CONTESTANTS
from benchmarks.join.page import FOLDER, PICTURES, put, where_and_when
from benchmarks.join.stage import Run, Stage
from benchmarks.join.workload import BASE, Traffic
from benchmarks.report import machine, versions

__all__ = ["CASES", "Case", "draw", "measure", "page", "row", "table"]

_MOST_BYTES = 1_000_000_000
"""Of the decisions of one case: what is larger takes long to load and tells nothing more."""


class Case(NamedTuple):
    """A kind of traffic that differs from the base in one thing."""

    panel: str
    name: str
    at: float
    """Where it stands on the panel's axis."""
    traffic: Traffic

    def decisions(self, wanted: int) -> int:
        """Give how many decisions are joined, fewer of large ones."""
        return min(wanted, _MOST_BYTES // self.traffic.decision_bytes)


PARTITIONS, REWARDED, PAYLOAD = "partitions", "% of decisions rewarded", "kB a decision"
CASES = (
    *(
        Case(PARTITIONS, f"{n} partition{'s' * (n > 1)}", n, BASE._replace(partitions=n))
        for n in (1, 2, 4, 8)
    ),
    *(
        Case(REWARDED, f"{n} % rewarded", n, BASE._replace(rewarded_percent=n))
        for n in (0, 5, 50, 100)
    ),
    *(
        Case(PAYLOAD, f"{n / 1e3:g} kB", n / 1e3, BASE._replace(decision_bytes=n))
        for n in (235, 1_000, 5_000)
    ),
)
"""The base is in each panel, and measured once."""

Row = Mapping[str, Any]


def measure(
    servers: str,
    cases: Sequence[Case],
    decisions: int,
    rounds: int,
    folder: Path,
    before: Callable[[str], None],
    prefix: str = "growth.",
) -> list[Row]:
    """Let one worker join each kind of traffic so many times; give a row a case.

    Parameters
    ----------
    servers
        The broker's address.
    cases
        What to join; what is equal in two of them is joined once.
    decisions
        How many, fewer of large ones.
    rounds
        How often.
    folder
        Where the worker runs.
    before
        Called with the name of what is next.
    prefix
        Of all topics.
    """
    ours = next(contestant for contestant in CONTESTANTS if contestant.name == "bandstand")
    kinds = {case.traffic: case for case in reversed(cases)}
    kinds = dict(reversed(kinds.items()))  # each by the first of its names
    runs: dict[Traffic, list[Run]] = {traffic: [] for traffic in kinds}
    for turn in range(rounds):
        for number, (traffic, case) in enumerate(kinds.items(), turn * len(kinds) + 1):
            before(f"{number}/{rounds * len(kinds)} {case.name}")
            stage = Stage(servers, f"{prefix}{number}.", folder, traffic)
            runs[traffic].append(stage.run(ours, case.decisions(decisions)))
    return [row(case, case.decisions(decisions), runs[case.traffic]) for case in cases]


def row(case: Case, decisions: int, runs: Sequence[Run]) -> Row:
    """Sum up the runs of a case: medians, and whether all outcomes of all runs were right."""
    figures = [figures for figures, _ in runs]
    tallies = [tally for _, tally in runs if tally is not None]
    rate = median(each.decisions_per_second for each in figures)
    return {
        "panel": case.panel,
        "case": case.name,
        "at": case.at,
        "decisions": decisions,
        "decisions_per_second": rate,
        "mb_per_second": rate * case.traffic.decision_bytes / 1e6,
        "steady_cpu_seconds_per_million": median(f.steady_cpu_s_per_million for f in figures),
        "rss_mb": median(each.rss_mb for each in figures),
        "outcomes": tallies[-1].outcomes,
        "joined": tallies[-1].joined,
        "right": all(tally.right for tally in tallies),
        "runs": [each._asdict() for each in figures],
        "tallies": [tally._asdict() for tally in tallies],
    }


_HEADINGS = (
    "",
    "k decisions/s",
    "MB/s of decisions",
    "steady CPU-s/M",
    "RSS MB",
    "outcomes (joined)",
    "right",
)


def _cells(each: Row) -> list[str]:
    return [
        each["case"],
        f"{each['decisions_per_second'] / 1e3:.0f}",
        f"{each['mb_per_second']:.0f}",
        f"{each['steady_cpu_seconds_per_million']:.1f}",
        f"{each['rss_mb']:.0f}",
        f"{each['outcomes']:,} ({each['joined']:,})",
        "yes" if each["right"] else "no",
    ]


def table(rows: Sequence[Row]) -> Table:
    """Give the figures of all cases, one a line."""
    shown = Table(title="one worker, one thing varied at a time", title_justify="left")
    for name in _HEADINGS:
        shown.add_column(name, justify="right" if name else "left")
    for each, following in zip(rows, [*rows[1:], None], strict=True):
        last = following is None or following["panel"] != each["panel"]
        style = None if each["right"] else "yellow"
        shown.add_row(*_cells(each), style=style, end_section=last)
    return shown


def page(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """Give the part of docs/benchmarks.md that holds figures."""
    rounds = facts["rounds"]
    lines = [
        f"{rounds} run{'s' * (rounds > 1)} of each on {where_and_when(facts)}.",
        "",
        "| " + " | ".join(("one worker", *_HEADINGS[1:])) + " |",
        "|---|" + "---:|" * (len(_HEADINGS) - 2) + "---|",
        *("| " + " | ".join(_cells(each)) + " |" for each in rows),
        "",
    ]
    return "\n".join(lines)


_RATE = "k decisions a second"
_CPU = "CPU seconds a million"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the rate, and below it the CPU, over what is varied: a column each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = list(dict.fromkeys(each["panel"] for each in rows))
    axes = figure.subplots(2, len(panels), sharex="col", sharey="row", squeeze=False)
    for column, panel in enumerate(panels):
        found = [each for each in rows if each["panel"] == panel]
        at = [each["at"] for each in found]
        for name, scale, label, colour, axis in (
            ("decisions_per_second", 1e3, _RATE, "tab:blue", axes[0][column]),
            ("steady_cpu_seconds_per_million", 1, _CPU, "tab:orange", axes[1][column]),
        ):
            run = "steady_cpu_s_per_million" if axis is axes[1][column] else name
            values = [each[name] / scale for each in found]
            axis.plot(at, values, "o-", color=colour)
            for x, each in zip(at, found, strict=True):
                for one in each["runs"]:
                    axis.plot([x], [one[run] / scale], "_", color=colour, alpha=0.5)
            for x, value in zip(at, values, strict=True):
                axis.annotate(
                    f"{value:.0f}" if value >= 20 else f"{value:.1f}",
                    (x, value),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
            axis.set_yscale("log")
            axis.margins(x=0.12, y=0.25)
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label)
        bottom = axes[1][column]
        if panel == REWARDED:
            bottom.set_xscale("symlog", linthresh=5)  # none is at 0
        else:
            bottom.set_xscale("log")
        bottom.set_xticks(at, [f"{x:g}" for x in at])
        bottom.minorticks_off()
        bottom.set_xlabel(panel)
    for line in axes:
        _ticks(line[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _ticks(axis: Any) -> None:
    """Write a log axis' numbers as they are."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())


def main(
    decisions: Annotated[
        int, typer.Option(min=1_000, help="In the log at the start; fewer of large ones.")
    ] = 600_000,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each case.")] = 1,
    docs: Annotated[bool, typer.Option(help="Write table and picture into docs/.")] = False,
) -> None:
    """Measure how the join grows; write build/bench/join-growth.json and join-growth.png."""
    with (
        tempfile.TemporaryDirectory(prefix="bandstand-growth-") as folder,
        Kafka(Path(folder) / "kafka", heap_mb=1024) as kafka,
    ):
        rows = measure(
            kafka.bootstrap_servers,
            CASES,
            decisions,
            rounds,
            FOLDER / "join-growth",
            lambda name: stderr.print(name, style="dim"),
        )
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "rounds": rounds,
        "base": BASE._asdict() | {"rules": BASE.rules._asdict()},
        "machine": machine(),
        "versions": versions(),
    }
    Console(highlight=False, width=120).print(table(rows))
    (FOLDER / "join-growth.json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=2))
    draw(rows, FOLDER / "join-growth.png")
    if docs:
        put("join growth", page(rows, facts))
        draw(rows, PICTURES / "join-growth.png")
    if not all(each["right"] for each in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
