"""The contestants in Python: Bandstand's workers as they are run, and scripts in processes.

Quix Streams has an environment of its own, made at its first use: what it needs and what Bandstand
needs may differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.environments import EnvironmentNotMadeError, python_of
from benchmarks.join.place import Place
from benchmarks.join.turn import Command, TurnError

__all__ = ["PEERS", "bandstand", "faust", "quix", "read_only"]

PEERS = Path(__file__).parent / "peers"


def bandstand(workers: int) -> Callable[[Place], Sequence[Command]]:
    """Give the commands of some workers of the join."""

    def commands(place: Place) -> Sequence[Command]:
        settings = place.folder / "bandstand.toml"
        settings.touch()
        lane = place.traffic.lane()
        environment = {
            "BANDSTAND_CONFIG": str(settings),
            "BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": place.servers,
            "BANDSTAND_TOPICS__PREFIX": place.prefix,
            "BANDSTAND_JOIN__GROUP": f"{place.prefix}join",
            **{f"BANDSTAND_LANES__DEFAULT__{name.upper()}": v for name, v in lane.items()},
        }
        return [Command([sys.executable, "-m", "bandstand", "join"], environment)] * workers

    return commands


def read_only(place: Place) -> Sequence[Command]:
    """Give the command of the floor."""
    _, decisions, rewards, _ = _topics(place)
    return [_script(sys.executable, "read_only.py", place.servers, decisions, rewards)]


def faust(place: Place) -> Sequence[Command]:
    """Give the command of stock Faust."""
    given = [*_topics(place), f"{place.prefix}join", str(place.traffic.partitions)]
    return [_script(sys.executable, "faust_table.py", *given)]


def quix(place: Place) -> Sequence[Command]:
    """Give the command of Quix Streams, installed first where it isn't yet."""
    spans = map(str, place.traffic.rules[:2])
    given = [*_topics(place), f"{place.prefix}join", *spans]
    return [_script(_python_of("quix"), "quix_join.py", *given)]


def _topics(place: Place) -> tuple[str, str, str, str]:
    return place.servers, *place.topics


def _script(python: str, name: str, *arguments: str) -> Command:
    return Command([python, str(PEERS / name), *arguments], {})


def _python_of(name: str) -> str:
    try:
        return str(python_of(PEERS / f"{name}.txt"))
    except EnvironmentNotMadeError as error:
        raise TurnError(str(error)) from None
