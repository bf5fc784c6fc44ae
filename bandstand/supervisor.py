"""All roles as child processes of one: when one ends, all end, and it says which."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from bandstand.errors import BandstandError
from bandstand.logs import get_logger
from bandstand.role import on_signals
from bandstand.settings import Settings

__all__ = ["ROLES", "Supervisor", "stop_with_parent"]

ROLES = ("join", "learn", "publish", "archive")

_log = get_logger(__name__)
_POLL_S = 0.05
_STOP_S = 8.0


def stop_with_parent() -> None:
    """Send this process SIGTERM once its standard input is closed: its parent is gone.

    If that doesn't end it in time, SIGKILL does: nobody else is left to do it.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_STOP_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class Supervisor:
    """Runs roles as children until it is told to stop or one of them ends.

    Parameters
    ----------
    settings
        The settings in force; a web port other than 0 is the first role's, the next ones follow.
    roles
        Names of the roles.
    environment
        Environment of the children.
    """

    def __init__(
        self, settings: Settings, roles: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._roles = roles
        self._environment = environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()

    def run(self) -> None:
        """Start all, and wait.

        Raises
        ------
        BandstandError
            If a role ended by itself; names it and its exit code.
        """
        with on_signals(self._told_to_stop):
            try:
                self._start()
                ended = self._wait()
            finally:
                self._stop_all()
        if ended is not None:
            code = self._children[ended].returncode
            raise BandstandError(
                f"role {ended!r} ended with exit code {code}, so all roles were stopped; its last "
                "lines above say why"
            )

    def _start(self) -> None:
        for number, role in enumerate(self._roles):
            port = self._settings.web.port
            environment = {
                **self._environment,
                "BANDSTAND_WEB__PORT": str(port + number if port else 0),
            }
            self._children[role] = subprocess.Popen(
                [sys.executable, "-m", "bandstand", role, "--supervised"],
                stdin=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            _log.info("role started", child=role, pid=self._children[role].pid)

    def _told_to_stop(self, signal_name: str) -> None:
        _log.info("stops all roles", signal=signal_name)
        self._stop.set()

    def _wait(self) -> str | None:
        while not self._stop.wait(_POLL_S):
            for role, child in self._children.items():
                if child.poll() is not None:
                    return role
        return None

    def _stop_all(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _STOP_S
        for role, child in self._children.items():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("role didn't stop in time, killed", child=role, seconds=_STOP_S)
                child.kill()
                child.wait()
            if child.stdin is not None:
                child.stdin.close()
