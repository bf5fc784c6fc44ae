from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bandstand.errors import ServerError
from bandstand.local.processes import Guard, Process, await_condition
from tests.waiting import PATIENCE_S

SHELL = "/bin/sh"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
PARENT = """
import json, signal, sys
from pathlib import Path
from bandstand.local import Kafka, SeaweedFS

folder = Path(sys.argv[1])
with Kafka(folder / "kafka") as kafka, SeaweedFS(folder / "s3") as s3:
    print(json.dumps([[s.process.pid, s.process.started] for s in (kafka, s3)]), flush=True)
    signal.pause()
"""


def _start(folder: Path, script: str) -> Guard:
    log = folder / "log"
    guard = Guard([SHELL, "-c", script], folder=folder, log=log, environment=dict(os.environ))
    assert await_condition(lambda: "ready" in log.read_text(), PATIENCE_S)
    return guard


def test_killed_parent_takes_its_servers_along(tmp_path: Path) -> None:
    """Kafka and S3 end soon after SIGKILL has ended the process that started them."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout:
        servers = [Process(*known) for known in json.loads(parent.stdout.readline())]
        alive = [server.alive for server in servers]
        parent.kill()
    assert alive == [True, True]
    assert await_condition(lambda: not any(server.alive for server in servers), PATIENCE_S)


def test_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """SIGKILL follows where SIGTERM doesn't end a process in time."""
    guard = _start(tmp_path, STUBBORN)
    guard.process.stop(grace=0.2)
    guard.reap()
    assert not guard.process.alive


def test_paused_server_can_be_stopped(tmp_path: Path) -> None:
    """A frozen process gets to see its SIGTERM."""
    guard = _start(tmp_path, "trap 'echo bye; exit' TERM; echo ready; while :; do sleep 0.1; done")
    guard.process.signal(signal.SIGSTOP)
    guard.process.stop()
    guard.reap()
    assert "bye" in (tmp_path / "log").read_text()


def test_litter_of_a_server_is_removed(tmp_path: Path) -> None:
    """What a server is known to leave behind is gone after its end, and only that."""
    kept, left = tmp_path / "kept", tmp_path / "left"
    command = [SHELL, "-c", f"touch {kept} {left}"]
    log = tmp_path / "log"
    guard = Guard(command, folder=tmp_path, log=log, environment={}, litter=[left, tmp_path / "no"])
    guard.reap()
    assert kept.exists()
    assert not left.exists()


def test_detached_server_outlives_its_guard(tmp_path: Path) -> None:
    """After the guard was sent away the server is still there."""
    guard = _start(tmp_path, STUBBORN)
    guard.detach()
    alive = guard.process.alive
    guard.process.kill()
    assert alive
    assert not guard.process.alive


def test_later_process_with_the_same_id_is_spared() -> None:
    """No signal goes to a process that was started at another time than the one that is meant."""
    recycled = Process(os.getpid(), "long ago")
    recycled.stop()
    recycled.kill()
    assert not recycled.alive
    assert Process.of(os.getpid()).alive


def test_zombie_counts_as_ended() -> None:
    """A process that has ended isn't alive just because its parent hasn't looked yet."""
    child = subprocess.Popen([SHELL, "-c", "read line"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.alive
    assert child.stdin is not None
    child.stdin.close()
    assert await_condition(lambda: not process.alive, PATIENCE_S)
    child.wait(PATIENCE_S)


def test_ps_tells_the_same_as_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, ps tells a process from a later one."""
    monkeypatch.setattr("bandstand.local.processes._start_of", _by_ps())
    own = Process.of(os.getpid())
    assert own.alive
    assert not Process(own.pid, "long ago").alive
    assert not Process.of(2**22 + 1).alive


def _by_ps() -> object:
    from bandstand.local import processes

    return processes._start_by_ps


def test_missing_program_is_a_server_error(tmp_path: Path) -> None:
    """A program that can't be started is named, with the place of the reason."""
    with pytest.raises(ServerError, match=r"/no/such/program can't be started.*log"):
        Guard(["/no/such/program"], folder=tmp_path, log=tmp_path / "log", environment={})
    assert "No such file" in (tmp_path / "log").read_text()
