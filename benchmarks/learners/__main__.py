"""``python -m benchmarks.learners``: learning and deciding beside the libraries, in one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from bandstand.local import Progress
from bandstand.output import progress_bar
from benchmarks.environments import python_of
from benchmarks.join.page import FOLDER
from benchmarks.learners import results
from benchmarks.learners.world import BATCHES, CASES, Case

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).with_name("peers.txt")
ONE_THREAD = {
    f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "BLIS", "VECLIB", "NUMEXPR")
}
PUBLISHED = ((3, 3), (10, 10), (10, 1))
"""Actions of each bandit, and how many of them have learned since the snapshot before."""


class Amount(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float
    """CPU seconds of a contestant's turn at updates, or one batch where that takes longer."""
    calls: int
    """Decisions of a turn."""
    bandits: int
    """That are published."""


FULL = Amount(rounds=5, seconds=0.06, calls=300, bandits=1_000)


class Process:
    """Contestants in a process of their own, with BLAS on one thread."""

    def __init__(self, python: str | Path, module: str) -> None:
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", "-m", module],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **what: object) -> dict[str, Any]:
        """Ask for something, and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **what}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{do} {what}: its process ended; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end."""
        self._process.communicate(timeout=30)


@contextmanager
def processes(*modules: tuple[str | Path, str]) -> Iterator[dict[str, tuple[Process, Any]]]:
    """Start processes; gives each contestant's process and what it says of itself."""
    started = [Process(python, module) for python, module in modules]
    try:
        yield {
            name: (process, about)
            for process in started
            for name, about in process.ask("about").items()
        }
    finally:
        for process in started:
            process.close()


def measured(
    contestants: dict[str, tuple[Process, Any]],
    cases: Sequence[Case],
    batches: Sequence[int],
    amount: Amount,
    tell: Callable[[Progress], None],
) -> results.Measured:
    """Let all contestants take turns at everything, a round that isn't counted first."""
    found = results.Measured({name: about["says"] for name, (_, about) in contestants.items()})
    done, whole = 0, len(cases) * (len(batches) + 1) + len(PUBLISHED)
    for case in cases:
        for batch in batches:
            tell(Progress(f"updates: {case}, batches of {batch:,}", done, whole))
            taking = {n: p for n, (p, about) in contestants.items() if batch in about["batches"]}
            for number in range(amount.rounds + 1):
                for name, process in taking.items():
                    at = {"name": name, "case": case, "batch": batch, "seconds": amount.seconds}
                    found.add(("update", case, batch), name, process.ask("update", **at), number)
            done += 1
        tell(Progress(f"decisions: {case}", done, whole))
        for number in range(amount.rounds + 1):
            for name, (process, _) in contestants.items():
                answer = process.ask("decide", name=name, case=case, calls=amount.calls)
                found.add(("decide", case, 0), name, answer, number)
        done += 1
    ours = contestants["bandstand"][0]
    for number in range(amount.rounds + 1):
        for actions, touched in PUBLISHED:
            what = {"actions": actions, "touched": touched, "bandits": amount.bandits}
            tell(Progress("publishing", done, whole))
            name = f"{touched} of {actions}"
            found.add(("publish", Case(24, actions), 0), name, ours.ask("publish", **what), number)
    tell(Progress("publishing", whole, whole))
    found.probabilities = {n for n, (_, about) in contestants.items() if about["probabilities"]}
    return found


def main(
    rounds: Annotated[int, typer.Option(min=1, help="That count.")] = FULL.rounds,
    docs: Annotated[bool, typer.Option(help="Write figures and picture in docs/, too.")] = True,
) -> None:
    """Measure; write build/bench/learners.json and learners.png."""
    with progress_bar() as tell:
        tell(Progress("installing the peers", 0, 1))
        peers = python_of(PEERS)
        with processes(
            (sys.executable, "benchmarks.learners.ours"), (peers, "benchmarks.learners.peers")
        ) as contestants:
            found = measured(contestants, CASES, BATCHES, FULL._replace(rounds=rounds), tell)
    document = results.document(found, PEERS)
    path = results.write(FOLDER, document)
    console = Console(highlight=False, width=results.WIDTH)
    for table in results.tables(document):
        console.print(table)
    console.print(f"{path}\n", style="dim")
    if docs:
        results.put_in_docs(document)


if __name__ == "__main__":
    typer.run(main)
