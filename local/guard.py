"""Starts one server, and ends it when the process that asked for it is gone.

Run as a script, with nothing but the standard library, so that it is there in milliseconds:
``python -I -S guard.py PARENT LOG LITTER COMMAND...``. It prints the server's process id. On
SIGUSR1 it goes away and leaves the server to itself. LITTER are files that the server may leave
behind, to be removed at its end, joined as paths are in ``PATH``.
"""

from __future__ import annotations

import os
import signal
import sys
import time

_POLL_S = 0.1
_GRACE_S = 5.0


def _spawn(log: str, command: list[str]) -> int:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, out, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=streams, setpgroup=0)


def _ended(server: int) -> bool:
    return os.waitpid(server, os.WNOHANG)[0] != 0


def _end(server: int) -> None:
    os.kill(server, signal.SIGTERM)
    os.kill(server, signal.SIGCONT)
    deadline = time.monotonic() + _GRACE_S
    while not _ended(server):
        if time.monotonic() > deadline:
            os.killpg(server, signal.SIGKILL)
            os.waitpid(server, 0)
            return
        time.sleep(_POLL_S)


def _watch(server: int, parent: int) -> None:
    while not _ended(server):
        if os.getppid() != parent:
            _end(server)
            return
        time.sleep(_POLL_S)


def _remove(litter: str) -> None:
    for path in filter(None, litter.split(os.pathsep)):
        if os.path.lexists(path):
            os.unlink(path)  # noqa: PTH108 - pathlib takes half of the guard's start


def main(parent: int, log: str, litter: str, command: list[str]) -> None:
    """Start ``command`` and stay until it or the parent has ended."""
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    server = _spawn(log, command)
    sys.stdout.write(f"{server}\n")
    sys.stdout.flush()
    _watch(server, parent)
    _remove(litter)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
