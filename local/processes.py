"""Server processes: started in a group of their own, known for certain, and ended for certain."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bandstand.errors import ServerError

_GUARD = Path(__file__).with_name("guard.py")
_POLL_S = 0.02
_SPAWN_S = 30.0
_KILLED_S = 10.0
_REAP_S = 10.0


def await_condition(condition: Callable[[], bool], within: float) -> bool:
    """Poll until the condition holds; False when it still doesn't after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


@dataclass(frozen=True)
class Process:
    """One run of a program; a later process that got the same id is a different one.

    Parameters
    ----------
    pid
        The process id, also the id of its group.
    started
        When it was started, as the system tells it; only compared.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Identify the process that has this id now; ``started`` is empty where none has."""
        return cls(pid, _start_of(pid))

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie doesn't)."""
        return self.started != "" and _start_of(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.alive:
            _kill(os.kill, self.pid, number)

    def stop(self, grace: float = 10.0) -> None:
        """End it by SIGTERM or, where it takes longer than ``grace`` seconds, by SIGKILL.

        Raises
        ------
        ServerError
            It is still there after both.
        """
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not await_condition(lambda: not self.alive, grace):
            self.kill()

    def kill(self) -> None:
        """End it, and all that it started, by SIGKILL.

        Raises
        ------
        ServerError
            It is still there after ten seconds.
        """
        if self.alive:
            _kill(os.killpg, self.pid, signal.SIGKILL)
        if not await_condition(lambda: not self.alive, _KILLED_S):
            raise ServerError(f"process {self.pid} is still there after SIGKILL; end it by hand")


def _kill(how: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        how(pid, number)
    except ProcessLookupError:
        return


def _start_of(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return _start_by_proc(pid)
    return _start_by_ps(pid)


def _start_by_proc(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else f"{boot}/{fields[18]}"


def _start_by_ps(pid: int) -> str:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


class Guard:
    """The small process that starts a server, and ends it when this process is gone.

    Parameters
    ----------
    command
        The program's full path, then its arguments.
    folder
        Its working directory.
    log
        File that its output is appended to.
    environment
        All of its environment.
    litter
        Files that it may leave behind, to be removed at its end.

    Raises
    ------
    ServerError
        The program can't be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str],
        litter: Sequence[Path] = (),
    ) -> None:
        rest = os.pathsep.join(map(str, litter))
        # -I -S: nothing of the user's environment, and quick.
        guard = [
            sys.executable,
            "-I",
            "-S",
            str(_GUARD),
            str(os.getpid()),
            str(log),
            rest,
            *command,
        ]
        with log.open("ab") as errors:
            self._popen = subprocess.Popen(
                guard,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.process = Process.of(self._read_pid(command[0], log))

    def _read_pid(self, program: str, log: Path) -> int:
        assert self._popen.stdout is not None
        with self._popen.stdout as answer:
            ready, _, _ = select.select([answer], [], [], _SPAWN_S)
            line = answer.readline() if ready else b""
        if not line.strip():
            self._popen.kill()
            self.reap()
            raise ServerError(f"{program} can't be started; the reason is at the end of {log}")
        return int(line)

    def detach(self) -> None:
        """Send the guard away: the server goes on when this process ends."""
        self._popen.send_signal(signal.SIGUSR1)
        self.reap()

    def reap(self) -> None:
        """Await the guard's end, which follows the server's."""
        self._popen.wait(timeout=_REAP_S)
