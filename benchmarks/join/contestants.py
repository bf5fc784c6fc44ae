"""Who takes part: how each is started, what its outcomes look like and what it does not promise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.join.tally import Format, bandstand_outcomes, flagged_outcomes
from benchmarks.join.turn import Command
from benchmarks.join.workload import LANE, Topics

__all__ = ["CONTESTANTS", "Contestant", "Place"]

_PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Place:
    """Where a contestant runs.

    Parameters
    ----------
    servers
        The broker.
    prefix
        Of the run's own topics; also the name of its consumer group.
    topics
        What it reads and where it writes.
    folder
        Its own, empty.
    """

    servers: str
    prefix: str
    topics: Topics
    folder: Path


@dataclass(frozen=True)
class Contestant:
    """One way to join.

    Parameters
    ----------
    name
        On the command line and in the results.
    semantics
        What it does, and what it does not promise; one sentence.
    commands
        Gives its processes.
    outcomes
        How its outcomes are read; None: it writes none and prints how far it is.
    in_lane
        Whether it reads logs of its own, with ticks.
    one_in
        It joins only one in so many of the decisions, because it is slow.
    """

    name: str
    semantics: str
    commands: Callable[[Place], Sequence[Command]]
    outcomes: Format | None = flagged_outcomes
    in_lane: bool = False
    one_in: int = 1

    def part_of(self, decisions: int) -> int:
        """Give how many of these decisions it joins."""
        return max(1, decisions // self.one_in)


def _bandstand(workers: int) -> Callable[[Place], Sequence[Command]]:
    def commands(place: Place) -> Sequence[Command]:
        environment = {
            "BANDSTAND_CONFIG": str(place.folder / "bandstand.toml"),
            "BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": place.servers,
            "BANDSTAND_TOPICS__PREFIX": place.prefix,
            "BANDSTAND_JOIN__GROUP": f"{place.prefix}join",
            **{f"BANDSTAND_LANES__DEFAULT__{name.upper()}": v for name, v in LANE.items()},
        }
        (place.folder / "bandstand.toml").touch()
        return [Command([sys.executable, "-m", "bandstand", "join"], environment)] * workers

    return commands


def _read_only(place: Place) -> Sequence[Command]:
    script = str(_PEERS / "read_only.py")
    topics = place.topics
    return [Command([sys.executable, script, place.servers, topics.decisions, topics.rewards], {})]


CONTESTANTS = (
    Contestant(
        "bandstand",
        "One worker; one outcome for each decision when its window has closed, every decision's "
        "bytes checked, duplicates, late and wrongly timed events told apart, in effect once.",
        _bandstand(1),
        bandstand_outcomes,
        in_lane=True,
    ),
    Contestant(
        "bandstand-2",
        "The same with two workers, a partition each.",
        _bandstand(2),
        bandstand_outcomes,
        in_lane=True,
    ),
    Contestant(
        "read-only",
        "confluent-kafka reads both logs and does nothing: the floor, no join.",
        _read_only,
        outcomes=None,
    ),
)
