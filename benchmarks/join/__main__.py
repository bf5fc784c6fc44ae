"""``python -m benchmarks.join [NAME…]``: the join beside its peers, in turns on one broker."""

from __future__ import annotations

import tempfile
from itertools import count
from typing import Annotated

import typer
from rich.console import Console

from bandstand.local import Kafka, Progress
from bandstand.output import progress_bar, stderr
from benchmarks.join import results
from benchmarks.join.contestants import CONTESTANTS
from benchmarks.join.stage import Stage, take_turns
from benchmarks.join.turn import TurnError

WIDTH = 170
REBALANCE_DELAY = {"group.initial.rebalance.delay.ms": "3000"}
"""Kafka's default, so that two workers share the partitions before either begins."""


def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="All by default.")
    ] = None,
    decisions: Annotated[int, typer.Option(min=1_000, help="In the log at the start.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each contestant.")] = 3,
) -> None:
    """Measure Bandstand's join beside its peers; write build/bench/join.json and join.png."""
    known = [contestant.name for contestant in CONTESTANTS]
    if unknown := set(names or ()) - set(known):
        raise typer.BadParameter(f"{sorted(unknown)}; known: {', '.join(known)}")
    wanted = [c for c in CONTESTANTS if not names or c.name in names]
    console, errors = Console(highlight=False, width=WIDTH), list[str]()
    turns = len(wanted) * rounds

    def failed(name: str, error: TurnError) -> None:
        errors.append(name)
        stderr.print(f"{name} failed: {error}", style="red")

    with tempfile.TemporaryDirectory(prefix="bandstand-bench-") as folder, progress_bar() as tell:
        begun = count()

        def before(name: str) -> None:
            tell(Progress("turns", next(begun), turns))
            stderr.print(name, style="dim")

        with Kafka(folder, properties=REBALANCE_DELAY, heap_mb=1024, on_progress=tell) as kafka:
            stage = Stage(kafka.bootstrap_servers, "bench.", results.FOLDER / "join")
            for runs in take_turns(stage, wanted, decisions, rounds, before, failed):
                ran = [c for c in wanted if runs.get(c.name)]
                rows = [results.row(c, c.part_of(decisions), runs[c.name]) for c in ran]
                path = results.write(results.FOLDER, rows, results.facts(decisions))
        tell(Progress("turns", turns, turns))
    console.print(results.table(rows))
    for row in rows:
        console.print(f"{row['name']}: {row['semantics']}", style="dim")
    console.print(f"{path}\n", style="dim")
    if errors:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
