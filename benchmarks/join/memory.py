"""``python -m benchmarks.join.memory``: what the join keeps in memory, and how soon it is back.

Two questions. How large does a worker become while it catches up with millions of decisions, and
what if ticks are missing in between? And how large is it, and how long does it take until it is
ready after a restart, when the attribution window is a minute, an hour, a day, a week?

All events are made here and loaded into one broker under the system's folder for temporary files:
3 GB at most, because a case's topics are deleted after it.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from bandstand.kafka import admin
from bandstand.local import Kafka
from bandstand.output import stderr
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.join_types import Rules
from benchmarks.join.page import FOLDER, PICTURES, put, where_and_when
from benchmarks.join.place import Place
from benchmarks.join.process_tree import cost
from benchmarks.join.python import bandstand
from benchmarks.join.turn import committed, running, watch
from benchmarks.join.workload import Topics, Traffic, Workload, load
from benchmarks.report import machine

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
_WITHIN_S = 900.0
_POINTS = 200
"""Of a curve."""
REWARDED_PERCENT = 50
"""Where windows are compared: what counts there are rewards."""
_LOG = "0.log"
"""What the first worker writes."""


class CatchUp(NamedTuple):
    """A backlog, with ticks through it but for a gap."""

    name: str
    decisions: int
    lateness_ms: int
    gap_ms: tuple[int, int] = (0, 0)

    @property
    def traffic(self) -> Traffic:
        """What is in it."""
        return Traffic(rules=Rules(10_000, 2_000, self.lateness_ms, 0, 60_000))


def backlogs(million: int) -> list[CatchUp]:
    """Give the backlogs; `million` is a smaller number where only the way is tried."""
    gap_end = 1_800_000 * million // 1_000_000
    most = f"{10 * million / 1e6:g} M"
    gap = f"{most}, {(gap_end - 20_000) / MINUTE:.0f} minutes without ticks"
    return [
        *(CatchUp(f"{n * million / 1e6:g} M", n * million, MINUTE) for n in (1, 3, 10)),
        CatchUp(gap, 10 * million, MINUTE, (20_000, gap_end)),
        CatchUp(f"{3 * million / 1e6:g} M, an hour's lateness", 3 * million, HOUR),
    ]


class Stage:
    """A broker, and lanes on it one after the other."""

    def __init__(self, servers: str, folder: Path, prefix: str = "memory.") -> None:
        self._servers = servers
        self._prefix = prefix
        self._folder = folder
        self._lanes = 0

    @contextmanager
    def filled(self, workload: Workload) -> Iterator[tuple[Settings, Place]]:
        """Give a lane that holds a workload, and delete its topics in the end."""
        self._lanes += 1
        prefix = f"{self._prefix}{self._lanes}."
        settings = Settings.model_validate(
            {
                "kafka": {"bootstrap_servers": self._servers},
                "topics": {"prefix": prefix, "retention": "60d"},
                "lanes": {"default": workload.traffic.lane()},
            }
        )
        topics.create(settings)
        logs = Topics(*TopicNames(prefix).lane("default"))
        load(settings, logs, workload, ticks=True)
        folder = self._folder / str(self._lanes)
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = TopicNames(prefix).outcomes("default")
        try:
            yield settings, Place(self._servers, prefix, logs, folder, workload.traffic)
        finally:
            client = admin(settings)
            for future in client.delete_topics([*logs[:2], outcomes]).values():
                future.result()


def catch_up(stage: Stage, case: CatchUp) -> dict[str, Any]:
    """Let one worker catch up, and measure how large it was."""
    now = round(time.time() * 1_000)
    workload = Workload(case.decisions, now, case.traffic, tick_gap_ms=case.gap_ms)
    with stage.filled(workload) as (settings, place):
        samples = watch(
            bandstand(1)(place),
            place.folder,
            committed(settings, place.topics.outcomes, case.traffic.partitions),
            case.decisions,
            lambda: None,
        )
    last = samples[-1]
    curve = [(each.outcomes, each.cost.now_mb) for each in samples[1:]]
    upper = [mb for outcomes, mb in curve if outcomes >= case.decisions / 2]
    return {
        "backlog": case.name,
        "decisions": case.decisions,
        "outcome_records": last.outcomes,
        "seconds": last.at,
        "peak_mb": last.cost.peak_mb,
        "second_half_mb": median(upper),
        "curve": curve[:: max(1, len(curve) // _POINTS)],
    }


def come_back(stage: Stage, window: str, window_ms: int, per_second: int) -> dict[str, Any]:
    """Let one worker begin in the middle of a window, stop it, and see how soon it is back."""
    rules = Rules(window_ms, 2_000, MINUTE, 0, 60_000)
    traffic = Traffic(2, REWARDED_PERCENT, per_second=per_second, rules=rules)
    decisions = (window_ms + 10 * MINUTE) // 1_000 * per_second
    now = round(time.time() * 1_000)
    workload = Workload(decisions, now, traffic, closed=False)
    with stage.filled(workload) as (_, place):
        _until_ready(place, workload)
        seconds, megabytes, rewards = _until_ready(place, workload)
    return {
        "window": window,
        "rewards_in_memory": rewards,
        "seconds_until_ready": seconds,
        "peak_mb": megabytes,
    }


def _until_ready(place: Place, workload: Workload) -> tuple[float, float, int]:
    """Run a worker until its reward cursors have read all; give seconds, MB and rewards kept."""
    began, end = time.monotonic(), workload.end / 1_000 - 0.5
    (place.folder / _LOG).unlink(missing_ok=True)
    with running(bandstand(1)(place), place.folder) as [process]:
        while True:
            ages = _metric(place, "bandstand_join_watermark_age_seconds", 'log="rewards"')
            if len(ages) == place.traffic.partitions and time.time() - max(ages) >= end:
                break
            assert process.alive, (place.folder / _LOG).read_text()
            assert time.monotonic() - began < _WITHIN_S, ages
            time.sleep(0.02)
        seconds = time.monotonic() - began
        rewards = sum(_metric(place, "bandstand_join_index_rewards", ""))
        return seconds, cost([process.pid]).peak_mb, round(rewards)


def _metric(place: Place, name: str, label: str) -> list[float]:
    """Ask the worker for a metric of all its partitions; nothing while it isn't up."""
    log = place.folder / _LOG
    found = re.search(r"http://[0-9.]+:[0-9]+", log.read_text() if log.exists() else "")
    if found is None:
        return []
    with urllib.request.urlopen(f"{found[0]}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return [float(line.split()[-1]) for line in lines if line.startswith(name) and label in line]


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in _columns(rows):
        table.add_column(name.replace("_", " "), justify="left" if name in _NAMES else "right")
    for row in rows:
        table.add_row(*(_shown(row[name]) for name in _columns(rows)))
    return table


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return [name for name in rows[0] if name != "curve"]


_NAMES = ("backlog", "window")


def _shown(value: object) -> str:
    return (
        f"{value:,.1f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def _markdown(rows: list[dict[str, Any]]) -> str:
    names = _columns(rows)
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |"]
    lines.append("|" + "|".join("---" if name in _NAMES else "---:" for name in names) + "|")
    lines += ["| " + " | ".join(_shown(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main(
    million: Annotated[
        int, typer.Option(min=1_000, help="What stands for a million decisions.")
    ] = 1_000_000,
    per_second: Annotated[
        int, typer.Option(min=1, help="Decisions a second, where windows are compared.")
    ] = 2,
    docs: Annotated[bool, typer.Option(help="Write the tables into docs/benchmarks.md.")] = False,
) -> None:
    """Measure the join's memory; write build/bench/join-memory.json and join-memory.png."""
    rewards = per_second * REWARDED_PERCENT / 100
    windows = {"1 minute": MINUTE, "1 hour": HOUR, "1 day": DAY, "7 days": 7 * DAY}
    with (
        tempfile.TemporaryDirectory(prefix="bandstand-memory-") as folder,
        Kafka(Path(folder) / "kafka", heap_mb=1024) as kafka,
    ):
        stage = Stage(kafka.bootstrap_servers, Path(folder))
        behind = [_told(case.name, catch_up, stage, case) for case in backlogs(million)]
        back = [
            _told(name, come_back, stage, name, span, per_second) for name, span in windows.items()
        ]
    console = Console(highlight=False, width=120)
    console.print(_table("one worker catches up", behind))
    console.print(_table(f"one worker is back, {rewards:g} rewards/s", back))
    FOLDER.mkdir(parents=True, exist_ok=True)
    about = facts(behind, rewards)
    found = {"facts": about, "catch_up": behind, "windows": back}
    (FOLDER / "join-memory.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(behind, back, FOLDER / "join-memory.png")
    if docs:
        put("join memory", page(about, behind, back))
        draw(behind, back, PICTURES / "join-memory.png")


def facts(behind: list[dict[str, Any]], rewards_per_second: float) -> dict[str, Any]:
    """Say where and when it was measured, and how far memory depends on the backlog's length."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "rewards_per_second": rewards_per_second,
        "peak_of_most_over_least": behind[2]["peak_mb"] / behind[0]["peak_mb"],
    }


def page(about: dict[str, Any], behind: list[dict[str, Any]], back: list[dict[str, Any]]) -> str:
    """Give the part of docs/benchmarks.md that holds figures."""
    return (
        f"One run on {where_and_when(about)}. The peak at {behind[2]['decisions']:,} decisions is "
        f"{about['peak_of_most_over_least']:.2f} times the one at {behind[0]['decisions']:,}.\n\n"
        f"{_markdown(behind)}\n\n"
        f"A restart, at {about['rewards_per_second']:g} rewards a second:\n\n{_markdown(back)}\n"
    )


def draw(behind: list[dict[str, Any]], back: list[dict[str, Any]], path: Path) -> None:
    """Draw the memory over a run of each backlog, and after a restart over rewards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    for each in behind:
        outcomes, megabytes = zip(*each["curve"], strict=True)
        left.plot([n / 1e6 for n in outcomes], megabytes, label=each["backlog"], linewidth=1)
    left.set_xlabel("million outcomes so far, one worker catching up")
    left.set_ylabel("resident memory, MB")
    left.legend(fontsize=8)
    rewards = [each["rewards_in_memory"] / 1e3 for each in back]
    right.plot(rewards, [each["peak_mb"] for each in back], "o-", color="tab:orange")
    for x, each in zip(rewards, back, strict=True):
        text = f" {each['window']}: {each['seconds_until_ready']:.1f} s"
        right.annotate(
            text,
            (x, each["peak_mb"]),
            xytext=(0, 6),
            textcoords="offset points",
            fontsize=8,
            ha="right" if x > max(rewards) / 2 else "left",
        )
    right.set_xlabel("thousand rewards in memory after a restart")
    left.set_ylim(bottom=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _told(name: str, measure: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    stderr.print(name, style="dim")
    found = measure(*given)
    shown = (f"{key} {_shown(found[key])}" for key in _columns([found]))
    stderr.print(", ".join(shown), style="dim")
    return found


if __name__ == "__main__":
    typer.run(main)
