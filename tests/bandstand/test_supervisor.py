"""All roles under one supervisor, on the real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bandstand.local import Kafka
from bandstand.settings import load_settings
from bandstand.streams.topics import create
from tests.waiting import PATIENCE_S, STOPS_WITHIN_S, until

ROLES = ["learn", "publish"]


class Run:
    """`bandstand run` and what it logs."""

    def __init__(self, environment: dict[str, str], log: Path, roles: list[str]) -> None:
        self.log = log
        command = [sys.executable, "-m", "bandstand", "run", *roles]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, env=environment, stderr=file)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give the events of a name so far."""
        lines = self.log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if event["event"] == name]

    def pids(self) -> dict[str, int]:
        """Give the children's process ids by role."""
        return {event["child"]: event["pid"] for event in self.events("role started")}

    def is_gone(self) -> bool:
        """Tell whether no child is left."""
        return not any(_lives(pid) for pid in self.pids().values())


@pytest.fixture
def start(
    bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path
) -> Iterator[Callable[..., Run]]:
    """Make the topics, and give what starts a supervisor."""
    environment = {
        "BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": bandstand_kafka.bootstrap_servers,
        "BANDSTAND_TOPICS__PREFIX": bandstand_prefix,
        "BANDSTAND_TOPICS__LEARNER_STATE_PARTITIONS": "1",
        "BANDSTAND_LANES__DEFAULT__PARTITIONS": "1",
        "BANDSTAND_LOG__FORMAT": "json",
    }
    create(load_settings(environment=environment))
    runs: list[Run] = []

    def start(*roles: str, **more: str) -> Run:
        environs = {**os.environ, **environment, **more}
        runs.append(Run(environs, tmp_path / "log", list(roles or ROLES)))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()
        until(run.is_gone)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _all_started(run: Run) -> bool:
    return len(run.events("role starts")) == len(ROLES)


def test_a_child_that_dies_takes_all_down_and_is_named(start: Callable[..., Run]) -> None:
    """When one role is gone, the others stop cleanly, and one line says which it was."""
    run = start()
    until(lambda: _all_started(run))
    os.kill(run.pids()["publish"], signal.SIGKILL)
    assert run.process.wait(PATIENCE_S) == 1
    assert run.is_gone()
    text = run.log.read_text()
    assert "error: role 'publish' ended with exit code -9, so all roles were stopped" in text
    assert [event["role"] for event in run.events("role ends")] == ["learn"]
    assert "Traceback" not in text


def test_sigterm_stops_all_cleanly(start: Callable[..., Run]) -> None:
    """Told to stop, the supervisor stops each role and ends with 0, in time."""
    run = start()
    until(lambda: _all_started(run))
    began = time.monotonic()
    run.process.terminate()
    assert run.process.wait(PATIENCE_S) == 0
    assert time.monotonic() - began < STOPS_WITHIN_S
    assert {event["role"] for event in run.events("role ends")} == set(ROLES)


def test_children_end_with_a_supervisor_that_is_killed(start: Callable[..., Run]) -> None:
    """SIGKILL of the supervisor leaves no role behind: each sees its input closed."""
    run = start()
    until(lambda: _all_started(run))
    run.process.kill()
    run.process.wait()
    until(run.is_gone)
    assert {event["role"] for event in run.events("role ends")} == set(ROLES)


def test_a_role_that_cannot_start_is_named(start: Callable[..., Run]) -> None:
    """A wrong set-up ends all at once, with the role's own one-line reason."""
    run = start("publish", BANDSTAND_TOPICS__PREFIX="missing.")
    assert run.process.wait(PATIENCE_S) == 1
    text = run.log.read_text()
    assert "run 'bandstand topics create'" in text
    assert "ended with exit code 1, so all roles were stopped" in text
    assert "Traceback" not in text
