"""The contestants in Python: Bandstand's workers as they are run, and scripts in processes.

Quix Streams has an environment of its own, made at its first use: what it needs and what Bandstand
needs may differ.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.join.place import Place
from benchmarks.join.turn import Command, TurnError

__all__ = ["PEERS", "bandstand", "faust", "quix", "read_only"]

PEERS = Path(__file__).parent / "peers"
_ENVIRONMENTS = Path(__file__).resolve().parents[2] / "build" / "bench"


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
    return [_script(str(_installed("quix") / "bin" / "python"), "quix_join.py", *given)]


def _topics(place: Place) -> tuple[str, str, str, str]:
    return place.servers, *place.topics


def _script(python: str, name: str, *arguments: str) -> Command:
    return Command([python, str(PEERS / name), *arguments], {})


def _installed(name: str) -> Path:
    """Find the environment of a lock beside the scripts; it is ready when it has its mark."""
    lock = PEERS / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    folder = _ENVIRONMENTS / f"{name}-{digest[:8]}"
    ready = folder / ".ready"
    if not ready.exists():
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(folder / "bin" / "python"), *install, "--require-hashes", "-r", str(lock)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise TurnError(f"{name} can't be installed:\n{done.stdout}{done.stderr}")
        ready.touch()
    return folder
