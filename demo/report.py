"""What the demo shows at its end: a table, a picture, and a file for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import plotext
from rich.table import Table
from rich.text import Text

from bandstand.demo.digits import Arm

__all__ = [
    "curve_table",
    "draw_png",
    "draw_terminal",
    "error_curve",
    "summary_table",
    "write_summary",
]

_WINDOW = 500
_TITLES = {"digits": "linear Thompson, live snapshots", "digits_uniform": "uniform choice"}
_HEADINGS = {"digits": "Thompson", "digits_uniform": "uniform"}
_BLOCK = 2_000


def error_curve(arm: Arm) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Give decisions so far and the share of wrong ones among the last 500, every 100 decisions.

    Returns
    -------
    tuple
        Two arrays of one length; the errors lie in [0, 1].
    """
    wrong = np.cumsum(~np.asarray(arm.right, dtype=bool))
    at = np.arange(_WINDOW, len(wrong) + 1, 100)
    start = np.concatenate(([0], wrong))[at - _WINDOW]
    return at, (wrong[at - 1] - start) / _WINDOW


def curve_table(arms: Mapping[str, Arm]) -> Table:
    """Give the error of both bandits by blocks of decisions, with the snapshots used."""
    table = Table(title="Digits: share of wrong decisions", title_justify="left")
    table.add_column("decisions", justify="right", no_wrap=True)
    for bandit in arms:
        table.add_column(_HEADINGS[bandit], justify="right")
    table.add_column("snapshots", justify="right")
    table.add_column("the last one", no_wrap=True)
    learner = arms["digits"]
    total = len(learner.right)
    for start in range(0, total, _BLOCK):
        block = slice(start, min(start + _BLOCK, total))
        versions = learner.versions[block]
        errors = [f"{1 - float(np.mean(arm.right[block])):.3f}" for arm in arms.values()]
        table.add_row(f"… {block.stop:,}", *errors, str(len(set(versions))), _short(versions[-1]))
    return table


def draw_terminal(arms: Mapping[str, Arm]) -> Text:
    """Give the picture as text."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(90, 18)
    for bandit, arm in arms.items():
        at, errors = error_curve(arm)
        plotext.plot(at.tolist(), errors.tolist(), label=_TITLES[bandit])
    plotext.ylim(0, 1)
    plotext.xlabel("decisions")
    plotext.title("share of wrong decisions, last 500")
    return Text.from_ansi(plotext.build())


def draw_png(arms: Mapping[str, Arm], path: Path) -> None:
    """Draw progressive error against decisions, snapshot versions along the axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 5.5), layout="constrained")
    for bandit, arm in arms.items():
        at, errors = error_curve(arm)
        axes.plot(at, errors, label=_TITLES[bandit], linewidth=1.8)
    axes.set(
        xlabel="decisions", ylabel="share of wrong decisions, last 500", ylim=(0, 1), xlim=(0, None)
    )
    axes.axhline(0.25, color="grey", linewidth=0.8, linestyle=":")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    axes.set_title("A loop that closes: digits by delayed yes-or-no rewards", loc="left")
    versions = axes.secondary_xaxis(-0.16)
    places = list(_version_changes(arms["digits"], most=7))
    versions.set_xticks([at for at, _ in places], [_short(name) for _, name in places], fontsize=7)
    versions.set_xlabel("snapshot in force (epoch-outcomes-digest)", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _version_changes(arm: Arm, most: int) -> Iterator[tuple[int, str]]:
    step = max(1, len(arm.versions) // most)
    for at in range(0, len(arm.versions), step):
        yield at, arm.versions[at]


def _short(version: str) -> str:
    epoch, outcomes, digest = version.split("-")
    return f"{epoch}-{outcomes}-{digest[:4]}"


def summary_table(summary: Mapping[str, Any], wrong: Mapping[str, Any]) -> Table:
    """Give all figures, each with what it has to be."""
    table = Table(title="Summary", title_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("")
    for name, value in flat(summary):
        shown = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
        verdict = f"[red]must be {wrong[name]}[/]" if name in wrong else "[green]✓[/]"
        table.add_row(name, shown, verdict)
    return table


def flat(summary: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    """Give figures by dotted name."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", part) for key, part in flat(value))
        else:
            yield name, value


def write_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Write all figures as JSON."""
    path.write_text(json.dumps(summary, indent=2) + "\n")
