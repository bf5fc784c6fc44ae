"""What is said of learning beside the libraries: a file, a picture, tables, and the page in docs/.

``python -m benchmarks.learners.results`` writes tables and picture in docs/ anew from the file.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.join.page import FOLDER, PICTURES, put, where_and_when
from benchmarks.learners.world import BATCHES, CASES, Case
from benchmarks.report import machine, versions

__all__ = ["WIDTH", "Measured", "document", "put_in_docs", "tables", "write"]

WIDTH: Final = 160
OURS: Final = "bandstand"
BARE: Final = "X.T @ X alone"
AVRO: Final = "bandstand, from Avro"
PEERS: Final = ("bayesianbandits", "contextualbandits", "mabwiser", "river", "vowpalwabbit")

Key = tuple[str, Case, int]
Document = Mapping[str, Any]
_TARGETS: Final = {
    CASES[0]: (8.0, "5 M/s where X.T @ X runs at 40 M"),
    CASES[1]: (5.7, "700 k/s where it runs at 4 M"),
}


class Measured:
    """All figures of a run.

    Parameters
    ----------
    says
        What each contestant does.
    """

    def __init__(self, says: Mapping[str, str]) -> None:
        self.says = dict(says)
        self.probabilities: set[str] = set()
        self.figures: dict[Key, dict[str, dict[str, list[float]]]] = {}

    def add(self, key: Key, name: str, answer: Mapping[str, float], number: int) -> None:
        """Take what a turn gave; the first round only warms up."""
        for figure, value in answer.items() if number else ():
            mine = self.figures.setdefault(key, {}).setdefault(name, {})
            mine.setdefault(figure, []).append(value)


def document(found: Measured, lock: Path) -> Document:
    """Sum up a run for the file."""
    rows = {kind: list(_rows(found, kind)) for kind in ("update", "decide", "publish")}
    for row in rows["decide"]:
        row["probabilities"] = row["contestant"] in found.probabilities
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", lock.read_text(), re.M))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": {**versions(), **{name: pinned[name] for name in PEERS}},
        "says": found.says,
        **rows,
    }


def _rows(found: Measured, kind: str) -> Iterator[dict[str, Any]]:
    for (what, case, batch), contestants in found.figures.items():
        for name, figures in contestants.items() if what == kind else ():
            row: dict[str, Any] = {"case": case, "batch": batch, "contestant": name}
            for figure, rounds in figures.items():
                row[figure] = _spread(rounds)
                if OURS in contestants:
                    ours = contestants[OURS][figure]
                    row[f"ours_over_it_{figure}"] = statistics.median(
                        [a / b for a, b in zip(ours, rounds, strict=True)]
                    )
            yield row


def _spread(rounds: Sequence[float]) -> dict[str, Any]:
    middle = statistics.median(rounds)
    return {"median": middle, "min": min(rounds), "max": max(rounds), "rounds": list(rounds)}


def write(folder: Path, run: Document) -> Path:
    """Write ``learners.json`` and ``learners.png``; give the first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "learners.json"
    path.write_text(json.dumps(run, indent=2) + "\n")
    draw(run, folder / "learners.png")
    return path


def tables(run: Document) -> Iterator[Table]:
    """Give what was measured, for a terminal."""
    for title, headings, lines in _parts(run):
        table = Table(title=title, title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="left" if heading == headings[0] else "right")
        for line in lines:
            table.add_row(*line)
        yield table


Part = tuple[str, Sequence[str], list[Sequence[str]]]


def _parts(run: Document) -> Iterator[Part]:
    for case in _cases(run):
        yield _updates(run, case)
    yield _decisions(run)
    yield _publishing(run)
    yield "Wanted", ("", "wanted", "measured"), list(_wanted(run))


def _cases(run: Document) -> list[Case]:
    return sorted({Case(*row["case"]) for row in run["update"]})


def _updates(run: Document, case: Case) -> Part:
    rows = [row for row in run["update"] if Case(*row["case"]) == case]
    batches = sorted({row["batch"] for row in rows})
    lines: list[Sequence[str]] = [
        [name, *(_rate(rows, name, batch) for batch in batches)]
        for name in dict.fromkeys(row["contestant"] for row in rows)
    ]
    title = f"Updates, {case}: k rows a CPU second (ours / it), by rows a batch"
    return title, ("contestant", *(f"{batch:,}" for batch in batches)), lines


def _rate(rows: Sequence[Document], name: str, batch: int) -> str:
    for row in rows:
        if (row["contestant"], row["batch"]) == (name, batch):
            rate = _short(row["rows_per_second"]["median"] / 1e3)
            return rate if name == OURS else f"{rate} ({_times(row)})"
    return "-"


def _times(row: Document) -> str:
    return f"{_short(row['ours_over_it_rows_per_second'])}x"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _decisions(run: Document) -> Part:
    cases = _cases(run)
    lines: list[Sequence[str]] = []
    for name in dict.fromkeys(row["contestant"] for row in run["decide"]):
        mine = {Case(*row["case"]): row for row in run["decide"] if row["contestant"] == name}
        cells = [
            f"{_short(mine[case]['p50_us']['median'])} / {_short(mine[case]['p99_us']['median'])}"
            for case in cases
        ]
        known = next(iter(mine.values()))["probabilities"]
        lines.append([name, *cells, "of all actions" if known else "none: the action alone"])
    title = "One decision: p50 / p99 us on the wall"
    return title, ("contestant", *map(str, cases), "probabilities"), lines


def _publishing(run: Document) -> Part:
    lines: list[Sequence[str]] = []
    for row in run["publish"]:
        spread = row["milliseconds"]
        cells = [f"{spread[name]:.0f}" for name in ("median", "min", "max")]
        size = f"{row['snapshot_bytes']['median'] / 1e3:.1f}"
        lines.append([row["contestant"], *cells, size])
    title = "Publishing 1,000 bandits of 24 features: CPU ms to solve them and write their bytes"
    return title, ("actions that changed", "median", "min", "max", "kB each"), lines


def _wanted(run: Document) -> Iterator[Sequence[str]]:
    for case, (most, rate) in _TARGETS.items():
        row = _one(run, case, BARE)
        ours, bare = (
            _one(run, case, name)["rows_per_second"]["median"] / 1e6 for name in (OURS, BARE)
        )
        yield (
            f"X.T @ X alone / ours, {case}, batches of 1,000",
            f"{most:g} or less: {rate}",
            f"{1 / row['ours_over_it_rows_per_second']:.1f}: {bare:.1f} M/s, {ours:.2f} M/s",
        )
    avro = _one(run, CASES[0], AVRO)["rows_per_second"]["median"]
    yield f"from Avro bytes to sums, {CASES[0]}", "500 k/s or more", f"{avro / 1e3:.0f} k/s"
    for row in run["publish"]:
        taken = row["milliseconds"]["median"]
        yield f"1,000 bandits, {row['contestant']} actions changed", "< 250 ms", f"{taken:.0f} ms"


def _one(run: Document, case: Case, name: str, batch: int = 1_000) -> Document:
    wanted = (case, batch, name)
    return next(
        row
        for row in run["update"]
        if (Case(*row["case"]), row["batch"], row["contestant"]) == wanted
    )


def draw(run: Document, path: Path) -> None:
    """Draw rows a second over rows a batch, a panel for each case."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    cases = _cases(run)
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for axes, case in zip(panels, cases, strict=True):
        for number, name in enumerate(run["says"]):
            rows = [
                row
                for row in run["update"]
                if Case(*row["case"]) == case and row["contestant"] == name
            ]
            own = name.startswith(OURS)
            axes.plot(
                [row["batch"] for row in rows],
                [row["rows_per_second"]["median"] for row in rows],
                marker="o",
                linewidth=2.5 if name == OURS else 1,
                linestyle="-" if own else "--",
                color=colormaps["tab20"](number),
                label=name,
            )
        axes.set(xscale="log", yscale="log", title=str(case), xlabel="rows a batch")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("rows learned a CPU second; higher is better")
    panels[-1].legend(bbox_to_anchor=(1.02, 1), loc="upper left", fontsize="small")
    figure.savefig(path, dpi=90)


def put_in_docs(run: Document) -> None:
    """Write figures and picture in docs/ anew."""
    put("learners", _page(run))
    draw(run, PICTURES / "learners-speed.png")


def _page(run: Document) -> str:
    names = run["versions"]
    rounds = len(run["update"][0]["rows_per_second"]["rounds"])
    peers = ", ".join(f"{name} {names[name]}" for name in PEERS)
    lines = [
        f"{rounds} rounds on {where_and_when(run, 'other work')}, numpy {names['numpy']}, {peers}.",
        "",
    ]
    for title, headings, cells in _parts(run):
        lines += [
            f"{title}:",
            "",
            "| " + " | ".join(headings) + " |",
            "|---|" + "---:|" * (len(headings) - 1),
            *("| " + " | ".join(line) + " |" for line in cells),
            "",
        ]
    lines += [f"- **{name}**: {says}" for name, says in run["says"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page's figures anew, from a run of everything."""
    path = FOLDER / "learners.json"
    if not path.exists():
        sys.exit("there are no figures yet; run 'make bench-learners' first")
    run = json.loads(path.read_text())
    if missing := set(BATCHES) - {row["batch"] for row in run["update"]}:
        sys.exit(f"{path} has no batches of {missing}; run 'make bench-learners' for all")
    put_in_docs(run)


if __name__ == "__main__":
    main()
