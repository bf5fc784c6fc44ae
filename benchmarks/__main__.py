"""``python -m benchmarks [NAME…]``: run benchmarks, print their tables, write ``build/bench``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console

from bandstand.local import Progress
from bandstand.output import progress_bar
from benchmarks import archiving, codec, joining, report, serving
from benchmarks.measure import FULL, Benchmark, Result, Size, run

FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench"


class Name(StrEnum):
    """The benchmarks."""

    CODEC = "codec"
    SERVING = "serving"
    ARCHIVING = "archiving"
    JOINING = "joining"


class Prepare(Protocol):
    """What a benchmark's module gives."""

    def __call__(self, size: Size) -> AbstractContextManager[Benchmark]: ...


PREPARE: dict[Name, Prepare] = {
    Name.CODEC: codec.prepare,
    Name.SERVING: serving.prepare,
    Name.ARCHIVING: archiving.prepare,
    Name.JOINING: joining.prepare,
}


def main(
    names: Annotated[
        list[Name] | None, typer.Argument(metavar="NAME", help="All by default.")
    ] = None,
) -> None:
    """Measure Bandstand beside named peers, in turns; write build/bench/NAME.json."""
    console = Console(highlight=False)
    for name in names or Name:
        benchmark, result = measured(name)
        console.print(report.table(benchmark, result))
        console.print(benchmark.compared, style="dim")
        path = report.write(FOLDER, benchmark, result)
        console.print(f"{path}\n", style="dim")


def measured(name: Name) -> tuple[Benchmark, Result]:
    """Run one benchmark in full, showing how far it is."""
    with progress_bar() as tell:
        tell(Progress(f"{name}: preparing", 0, 1))
        with PREPARE[name](FULL) as benchmark:
            tell(Progress(f"{name}: preparing", 1, 1))
            task, rounds = f"{name}: {FULL.rounds} rounds", FULL.rounds + 1
            tell(Progress(task, 0, rounds))
            result = run(
                benchmark, FULL.rounds, lambda done: tell(Progress(task, done + 1, rounds))
            )
    return benchmark, result


if __name__ == "__main__":
    typer.run(main)
