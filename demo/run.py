"""The main job on real input, from servers to summary: ``bandstand demo``."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from bandstand.demo import digits, open_bandit, report
from bandstand.demo.figures import (
    OutcomeCount,
    archived_rows,
    dead_letters,
    lane_figures,
)
from bandstand.demo.stage import Stage, await_that, open_stage
from bandstand.durations import milliseconds
from bandstand.errors import BandstandError
from bandstand.kafka import TopicReader
from bandstand.output import stderr
from bandstand.schemas.spec import Spec, load_spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire, wire_from

__all__ = ["run"]

_LANES: dict[str, dict[str, str | int]] = {
    "open_bandit": {"window": "4s", "grace": "3s", "lateness": "1h", "partitions": 2},
    "open_bandit_broken": {"window": "4s", "grace": "3s", "lateness": "1h", "partitions": 2},
    "digits": {"window": "1s", "grace": "500ms", "partitions": 2},
}
_BANDITS = ("open_bandit", "open_bandit_broken", "digits", "digits_uniform")
_ROUNDS = 10_000
_CLICKS = 38
_BROKEN = 20
_TICKING_S = 120.0
_CLOSING_S = 180.0
_DIGITS_RATE = 450.0

_EXPECTED = {
    "decisions": _ROUNDS,
    "rewards": _CLICKS,
    "outcomes": _ROUNDS,
    "joined": _CLICKS,
    "defaulted": _ROUNDS - _CLICKS,
    "archived_rows": 2 * _ROUNDS + _CLICKS,
}


def run(folder: Path, digits_seconds: float = 50.0) -> dict[str, Any]:
    """Run the demo and give its figures.

    Parameters
    ----------
    folder
        Where ``summary.json`` and ``report.png`` go.
    digits_seconds
        Time limit of the digits, > 0.

    Raises
    ------
    BandstandError
        If a figure is wrong; names all that are.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with _progress() as progress:
        servers = progress.add_task("servers and roles", total=1)
        tell = _describe(progress, servers)
        specs = [_spec(bandit) for bandit in _BANDITS]
        with open_stage(_LANES, specs, folder / "roles.log", tell) as stage:
            wire = wire_from(stage.settings)
            _await_ticks(stage)
            progress.update(servers, description="servers and roles", completed=1)
            published = {
                lane: _replay_log(stage, progress, lane, broken, wire)
                for lane, broken in (("open_bandit", 0), ("open_bandit_broken", _BROKEN))
            }
            arms = _play_digits(stage, progress, digits_seconds)
            _await_archive(stage, progress)
            closing = progress.add_task("stopping roles, reading topics and Parquet", total=1)
            stage.stop_roles()
            summary: dict[str, Any] = {lane: _lane_summary(stage, lane, wire) for lane in published}
            refused = {lane: dead_letters(stage.settings, lane, wire) for lane in published}
            progress.update(closing, completed=1)
    summary["digits"] = _digits_summary(arms)
    summary["seconds"] = round(time.monotonic() - started, 1)
    wrong = _wrong(summary)
    for lane, done in published.items():
        if refused[lane] != done.broken:
            wrong[f"{lane}.dead_letters"] = (
                f"the {len(done.broken)} broken ones, each by its reason"
            )
    _show(summary, wrong, arms, folder)
    if wrong:
        raise BandstandError(f"figures that are wrong: {', '.join(wrong)}")
    return summary


def _replay_log(
    stage: Stage, progress: Progress, lane: str, broken: int, wire: Wire
) -> open_bandit.Published:
    """Publish the logs of others into a lane and wait until every decision has its outcome."""
    out = progress.add_task(f"{lane}: publishing", total=_ROUNDS + _CLICKS + broken)
    back = progress.add_task(f"{lane}: outcomes", total=_ROUNDS)
    now = int(time.time() * 1_000)
    window_ms = milliseconds(stage.settings.lane(lane).window)
    stream = open_bandit.events(open_bandit.rounds(), lane, window_ms, now, wire)
    place = random.Random(20)
    for event in open_bandit.broken_events(lane, now, wire)[:broken]:
        stream.insert(place.randrange(1, len(stream)), event)
    done = open_bandit.publish(
        stage.settings, lane, stream, lambda number: progress.update(out, completed=number)
    )
    count = OutcomeCount(stage.settings, lane, wire)

    def all_closed() -> bool:
        progress.update(back, completed=count.poll())
        return count.states.total() >= _ROUNDS

    await_that(all_closed, _CLOSING_S, f"outcomes of lane {lane}", stage)
    count.close()
    return done


def _play_digits(stage: Stage, progress: Progress, seconds: float) -> dict[str, digits.Arm]:
    task = progress.add_task("digits", total=None)

    def tell(number: int, total: int, arms: dict[str, digits.Arm]) -> None:
        if number % 100 == 0:
            stage.check()
            error = arms["digits"].error(last=500)
            progress.update(
                task,
                completed=number,
                total=total,
                description=f"digits: wrong of the last 500: {error:.2f}",
            )

    arms = digits.play(stage.settings, seconds, _DIGITS_RATE, tell)
    done = len(arms["digits"].right)
    progress.update(task, total=done, completed=done)
    return arms


def _await_ticks(stage: Stage) -> None:
    """Wait until every log has its first tick: the join runs on all partitions."""
    names = TopicNames(stage.settings.topics.prefix)
    topics = [topic for lane in stage.settings.lanes for topic in names.lane(lane)[:2]]
    for topic in topics:
        reader = TopicReader(stage.settings, topic)
        seen: set[int] = set()
        partitions = stage.settings.lane(topic.removeprefix(names.prefix).split(".")[0]).partitions

        def ticking(
            reader: TopicReader = reader, seen: set[int] = seen, n: int = partitions
        ) -> bool:
            seen.update(int(message.partition() or 0) for message in reader.poll(0.0))
            return len(seen) == n

        await_that(ticking, _TICKING_S, f"first ticks of {topic}", stage)
        reader.close()


def _await_archive(stage: Stage, progress: Progress) -> None:
    """Wait until every event of the logs lies in Parquet."""
    task = progress.add_task("archive: rows in Parquet", total=2 * _EXPECTED["archived_rows"])

    def all_stored() -> bool:
        rows = archived_rows(stage.settings, "open_bandit")
        rows += archived_rows(stage.settings, "open_bandit_broken")
        progress.update(task, completed=rows)
        return rows >= 2 * _EXPECTED["archived_rows"]

    await_that(all_stored, _CLOSING_S, "rows in Parquet", stage)


def _lane_summary(stage: Stage, lane: str, wire: Wire) -> dict[str, int]:
    return {
        **asdict(lane_figures(stage.settings, lane, wire)),
        "dead_letters": len(dead_letters(stage.settings, lane, wire)),
        "archived_rows": archived_rows(stage.settings, lane),
    }


def _digits_summary(arms: dict[str, digits.Arm]) -> dict[str, int | float]:
    return {
        "decisions": len(arms["digits"].right),
        "error_last_2000": round(arms["digits"].error(last=2_000), 4),
        "uniform_error": round(
            arms["digits_uniform"].error(last=len(arms["digits_uniform"].right)), 4
        ),
        "snapshots": len(set(arms["digits"].versions)),
    }


def _wrong(summary: dict[str, Any]) -> dict[str, str]:
    """Give the figures that aren't what they have to be, with that."""
    wrong = {
        f"{lane}.{name}": str(expected)
        for lane, letters in (("open_bandit", 0), ("open_bandit_broken", _BROKEN))
        for name, expected in {**_EXPECTED, "dead_letters": letters}.items()
        if summary[lane][name] != expected
    }
    seen = summary["digits"]
    if not seen["error_last_2000"] < 0.25:
        wrong["digits.error_last_2000"] = "below 0.25"
    if not abs(seen["uniform_error"] - 0.9) < 0.02:
        wrong["digits.uniform_error"] = "0.90, give or take 0.02"
    if not seen["snapshots"] >= 10:
        wrong["digits.snapshots"] = "10 or more"
    return wrong


def _show(
    summary: dict[str, Any], wrong: dict[str, str], arms: dict[str, digits.Arm], folder: Path
) -> None:
    report.draw_png(arms, folder / "report.png")
    report.write_summary(summary, folder / "summary.json")
    stderr.print(report.draw_terminal(arms))
    stderr.print(report.curve_table(arms))
    stderr.print(report.summary_table(summary, wrong))
    stderr.print(
        f"figures: {folder / 'summary.json'}   picture: {folder / 'report.png'}   "
        f"the roles' log: {folder / 'roles.log'}\n\n"
        "What to try next:\n"
        "  bandstand dev up          Kafka and S3 that stay, for a service of your own\n"
        "  bandstand topics create   its topics; then write a spec as the README shows\n"
        "  bandstand settings        what can be set, and what is in force\n",
        markup=False,
        soft_wrap=True,
    )


def _spec(bandit: str) -> Spec:
    with as_file(files("bandstand.demo") / f"{bandit}.yaml") as path:
        return load_spec(path)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr) as progress:
        yield progress


def _describe(progress: Progress, task: TaskID) -> Callable[[str], None]:
    def tell(what: str) -> None:
        progress.update(task, description=what)

    return tell
