"""One contestant's run: its processes, how far they are at each moment, and what they cost.

How far a contestant is, is seen from outside: the end of its outcome topic, committed records only,
is asked for every 20 ms. That costs nothing that matters, and no reader competes for the cores.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

from bandstand.kafka import admin, broker_errors
from bandstand.local.processes import Guard, Process
from bandstand.settings import Settings
from benchmarks.join.process_tree import Cost, cost

__all__ = [
    "Command",
    "Figures",
    "Sample",
    "TurnError",
    "committed",
    "figures",
    "last_number",
    "watch",
]

_SAMPLE_S = 0.02
_QUIET_S = 1.0
_FIRST_WITHIN_S = 120.0
_NEXT_WITHIN_S = 30.0


class TurnError(Exception):
    """A contestant ended by itself, or gave nothing."""


class Command(NamedTuple):
    """A process to be started."""

    arguments: Sequence[str]
    """The program's full path, then its arguments."""
    environment: Mapping[str, str]


class Sample(NamedTuple):
    """How far a contestant was at a moment."""

    at: float
    """Seconds since its processes were started."""
    outcomes: int
    cost: Cost


class Figures(NamedTuple):
    """What one run gave."""

    decisions_per_second: float
    """Over the steady part, from 10 to 90 % of the outcomes."""
    whole_decisions_per_second: float
    """From the start of the processes to the last outcome."""
    cpu_s_per_million: float
    """Of all its processes, from their start to the last outcome."""
    steady_cpu_s_per_million: float
    """The same over the steady part."""
    rss_mb: float
    seconds_to_first: float
    longest_stall_ms: float
    """Longest time without a new outcome in the steady part."""


@contextmanager
def running(commands: Sequence[Command], folder: Path) -> Iterator[list[Process]]:
    """Run processes, whose output goes to files in a folder; they end with the block or with us."""
    with ExitStack() as stack:
        processes = []
        for number, command in enumerate(commands):
            guard = Guard(
                command.arguments,
                folder=folder,
                log=folder / f"{number}.log",
                environment={**os.environ, **command.environment},
            )
            stack.callback(guard.reap)
            stack.callback(guard.process.stop)
            processes.append(guard.process)
        yield processes


def watch(
    commands: Sequence[Command],
    folder: Path,
    progress: Callable[[], int],
    expected: int,
    nudge: Callable[[], None],
) -> list[Sample]:
    """Run a contestant until it gives nothing more; the last sample is of the last outcome.

    Parameters
    ----------
    commands
        Its processes.
    folder
        Where they run and write their output.
    progress
        Tells how many outcomes there are.
    expected
        How many there should be in the end; with fewer it gets more time.
    nudge
        Called each second in which nothing came and some are still expected.

    Raises
    ------
    TurnError
        If a process ends by itself, or no outcome comes at all.
    """
    began = time.monotonic()
    with running(commands, folder) as processes:
        pids = [process.pid for process in processes]
        samples = [Sample(0.0, 0, cost(pids))]
        nudged = began
        while True:
            time.sleep(_SAMPLE_S)
            now = time.monotonic()
            count = progress()
            if count > samples[-1].outcomes:
                samples.append(Sample(now - began, count, cost(pids)))
                continue
            quiet = now - began - samples[-1].at
            if count >= expected and quiet > _QUIET_S:
                return samples
            if quiet > (_NEXT_WITHIN_S if count else _FIRST_WITHIN_S):
                if count:
                    return samples
                raise TurnError(f"no outcome in {_FIRST_WITHIN_S:g} s; see {folder}")
            if count < expected and not all(process.alive for process in processes):
                raise TurnError(f"ended with {count:,} of {expected:,} outcomes; see {folder}")
            if count and count < expected and quiet > _QUIET_S and now - nudged > _QUIET_S:
                nudged = now
                nudge()


def committed(settings: Settings, topic: str, partitions: int) -> Callable[[], int]:
    """Give a function that counts the committed records of a topic."""
    client = admin(settings)
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    places = {TopicPartition(topic, partition): latest for partition in range(partitions)}

    def count() -> int:
        with broker_errors(f"looking up the end of topic {topic!r}"):
            answers = client.list_offsets(
                places, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=10
            )
            return sum(answer.result().offset for answer in answers.values())

    return count


def last_number(log: Path) -> Callable[[], int]:
    """Give a function that reads the last number that a process has printed."""

    def count() -> int:
        lines = log.read_text().splitlines() if log.exists() else []
        return next((int(line) for line in reversed(lines) if line.isdecimal()), 0)

    return count


def figures(samples: Sequence[Sample], decisions: int) -> Figures:
    """Sum up a run.

    Parameters
    ----------
    samples
        From the start to the last outcome; each but the first has more outcomes than the one
        before.
    decisions
        How many decisions the outcomes are of.
    """
    last = samples[-1]
    start, end = (_when(samples, last.outcomes * share) for share in (0.1, 0.9))
    steady = [s for s in samples if start.at <= s.at <= end.at]
    millions = decisions / 1e6
    return Figures(
        decisions_per_second=0.8 * decisions / (end.at - start.at),
        whole_decisions_per_second=decisions / last.at,
        cpu_s_per_million=last.cost.cpu_s / millions,
        steady_cpu_s_per_million=(end.cost.cpu_s - start.cost.cpu_s) / (0.8 * millions),
        rss_mb=last.cost.peak_mb,
        seconds_to_first=samples[1].at,
        longest_stall_ms=_longest_gap([start.at, *(s.at for s in steady), end.at]) * 1e3,
    )


def _longest_gap(times: Sequence[float]) -> float:
    return max(after - before for before, after in pairwise(times))


def _when(samples: Sequence[Sample], outcomes: float) -> Sample:
    """Interpolate between the two samples around a number of outcomes."""
    index = bisect_left(samples, outcomes, key=lambda sample: sample.outcomes)
    before, after = samples[index - 1], samples[index]
    share = (outcomes - before.outcomes) / (after.outcomes - before.outcomes)

    def between(a: float, b: float) -> float:
        return a + share * (b - a)

    return Sample(
        between(before.at, after.at),
        round(outcomes),
        Cost(between(before.cost.cpu_s, after.cost.cpu_s), after.cost.peak_mb),
    )
