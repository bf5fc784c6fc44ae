"""The frame of a role, in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from bandstand.errors import BrokerError, TopicError
from bandstand.local import Kafka
from bandstand.role import Role, persist
from bandstand.settings import KafkaSettings, Settings
from tests.waiting import PATIENCE_S, until

ROLE = """
from bandstand.role import running
from bandstand.settings import Settings
with running("thing", Settings()) as role:
    role.health.started()
    while not role.stop.is_set():
        role.stop.wait(0.01)
"""
DYING = """
import atexit
from bandstand.role import die, running
from bandstand.settings import Settings
atexit.register(lambda: print("at exit"))
with running("thing", Settings()):
    try:
        die("thing", RuntimeError("offset 7 is gone"))
    finally:
        print("finally")
"""
SUPERVISED = (
    """
from bandstand.supervisor import stop_with_parent
stop_with_parent()
"""
    + ROLE
)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Collect processes, and end them."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def _start(code: str, started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    started.append(process)
    return process


def _event(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """Read the log up to an event."""
    assert process.stderr is not None
    for line in process.stderr:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == name:
            return event
    raise AssertionError(f"{name!r} wasn't logged")


def _wait_until_ready(url: str) -> None:
    until(lambda: requests.get(url + "/readyz", timeout=PATIENCE_S).status_code == 200)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_role_cleanly(
    number: signal.Signals, started: list[subprocess.Popen[str]]
) -> None:
    """A role answers while it runs; told to stop, it leaves its loop and exits with 0."""
    process = _start(ROLE, started)
    url = _event(process, "role starts")["web"]
    _wait_until_ready(url)
    process.send_signal(number)
    assert _event(process, "role stops")["signal"] == number.name
    assert _event(process, "role ends")["role"] == "thing"
    assert process.wait(PATIENCE_S) == 0


def test_a_role_that_dies_does_nothing_more(started: list[subprocess.Popen[str]]) -> None:
    """`die` logs the cause and ends the process: no `finally`, no exit handler, exit code 70."""
    process = _start(DYING, started)
    assert "offset 7 is gone" in _event(process, "role dies")["error"]
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (70, "")


def test_a_supervised_role_ends_with_its_parent(started: list[subprocess.Popen[str]]) -> None:
    """When standard input is closed, the role stops as if it were told to."""
    process = _start(SUPERVISED, started)
    _event(process, "role starts")
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    assert _event(process, "role stops")["signal"] == "SIGTERM"
    assert process.wait(PATIENCE_S) == 0


def test_a_role_begins_anew_when_kafka_was_away_and_ends_when_it_refuses(
    bandstand_kafka: Kafka,
) -> None:
    """What passes is waited for, topics that a new broker denies, too; what doesn't is an error."""
    kafka = KafkaSettings(bootstrap_servers=bandstand_kafka.bootstrap_servers)
    role = Role("thing", Settings(kafka=kafka))
    role.health.started()
    answers = [
        BrokerError("away", passing=True),
        TopicError("not known yet"),
        BrokerError("no right to read"),
    ]
    seen: list[bool] = []

    def work() -> None:
        seen.append(role.health.ready)
        raise answers[len(seen) - 1]

    with pytest.raises(BrokerError, match="no right"):
        persist(role, work)
    assert seen == [True, True, True]
