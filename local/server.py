"""What all local servers have in common: their life, from free ports to the end of the process."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from bandstand.errors import ServerError
from bandstand.local.parts import OnProgress
from bandstand.local.ports import are_free, is_open
from bandstand.local.processes import Guard, Process, await_condition

_CLASH_TRIES = 5
_LAST_LINES = 15
# All that a server sees of the user's environment: no option may come in by a back door.
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ")
_CLASHES = ("already in use", "to be in use", "is not available on", "BindException")


class _PortTakenError(Exception):
    """Somebody else took a port between its choice and its use."""


class Server(ABC):
    """A server on this machine, with all that it writes in one folder.

    As a context manager it runs in the block; it ends with this process, too, even when that is
    killed. It may be stopped and started again: same ports, same data.

    Parameters
    ----------
    folder
        Where its data, settings and log are; made where it is missing. One server a folder.
    ports
        Ports to try first, in the order of ``ports`` of an earlier run.
    ready_within
        Seconds until it must answer a real client.
    on_progress
        Called with what takes more than a moment.
    """

    name: ClassVar[str]

    def __init__(
        self,
        folder: Path | str,
        *,
        ports: Sequence[int] = (),
        ready_within: float = 180.0,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.ports = list(ports)
        self.log_path = self.folder / f"{self.name}.log"
        self._ready_within = ready_within
        self._on_progress = on_progress
        self._process: Process | None = None
        self._guard: Guard | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """What a client is given to find it."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The ``BANDSTAND_*`` variables that make Bandstand use it."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a real client's call succeeds now."""

    def _is_ours(self, log: str) -> bool:  # noqa: ARG002
        """Whether it is this server that answers, where ``answers`` alone can't tell."""
        return True

    @abstractmethod
    def _pick_ports(self) -> list[int]: ...

    @abstractmethod
    def _prepare(self) -> None:
        """Write what the program reads at its start; the ports are known."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _variables(self) -> Mapping[str, str]:
        return {}

    def _set_up(self) -> None:  # noqa: B027 - most need nothing
        """Ask of the running server what makes it of use."""

    def _litter(self) -> list[Path]:
        """Name what its program may leave behind outside its folder."""
        return []

    @property
    def process(self) -> Process:
        """The server's process.

        Raises
        ------
        ServerError
            It was never started, or was stopped.
        """
        if self._process is None:
            raise ServerError(f"{self.name} in {self.folder} isn't running; start it first")
        return self._process

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it, and return when it answers.

        Raises
        ------
        ServerError
            It runs already, can't be fetched, ends at once, or doesn't answer in time; with the
            last lines of its log.
        """
        if self._process is not None:
            raise ServerError(f"{self.name} in {self.folder} is running already; stop it first")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServerError(f"folder {self.folder} can't be made: {error}") from error
        for _ in range(_CLASH_TRIES):
            if not self.ports or not are_free(self.ports):
                self.ports = self._pick_ports()
            try:
                return self._start_once()
            except _PortTakenError:
                self.ports = []
        raise ServerError(f"{self.name}: its ports were taken by others, {_CLASH_TRIES} times")

    def _start_once(self) -> Self:
        self._prepare()
        seen = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._guard = self._spawn()
        self._process = self._guard.process
        try:
            self._await_ready(seen)
            self._set_up()
        except BaseException:
            self.stop()
            raise
        return self

    def _spawn(self) -> Guard:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return Guard(
            self._command(),
            folder=self.folder,
            log=self.log_path,
            environment={**passed_on, **self._variables()},
            litter=self._litter(),
        )

    def _await_ready(self, seen: int) -> None:
        process = self.process
        ready = await_condition(
            lambda: not process.alive or self._is_ready(seen), self._ready_within
        )
        if process.alive and ready:
            return
        log = self._log_since(seen)
        if any(clash in log for clash in _CLASHES):
            raise _PortTakenError
        fate = f"doesn't answer after {self._ready_within:.0f} s" if process.alive else "has ended"
        last = "\n".join(log.splitlines()[-_LAST_LINES:])
        raise ServerError(f"{self.name} {fate}; the end of {self.log_path}:\n{last}")

    def _is_ready(self, seen: int) -> bool:
        # The cheap question first; the last one because another's server may have our port.
        return is_open(self.ports[0]) and self.answers() and self._is_ours(self._log_since(seen))

    def _log_since(self, seen: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(seen)
            return log.read().decode(errors="replace")

    def stop(self, *, grace: float = 10.0) -> None:
        """End it, cleanly or after ``grace`` seconds by force; no harm where it has ended."""
        if self._process is not None:
            self._process.stop(grace)
            self._forget()

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would."""
        self.process.kill()
        self._forget()

    def _forget(self) -> None:
        if self._guard is not None:
            self._guard.reap()
        self._guard = self._process = None
        for path in self._litter():
            path.unlink(missing_ok=True)

    def detach(self) -> None:
        """Let it go on when this process ends; `stop` still ends it."""
        if self._guard is not None:
            self._guard.detach()
            self._guard = None

    def attach(self, process: Process) -> Self:
        """Take over the process of this server that an earlier one detached.

        Raises
        ------
        ServerError
            That process has ended.
        """
        if not process.alive:
            raise ServerError(f"{self.name}: process {process.pid} of {self.folder} has ended")
        self._process = process
        return self

    def restart(self) -> Self:
        """Stop it (where it runs) and start it again, on the same ports and data.

        Raises
        ------
        ServerError
            Somebody else has taken a port meanwhile, or as in `start`.
        """
        self.stop()
        if not are_free(self.ports):
            raise ServerError(f"{self.name} can't restart: one of its ports {self.ports} is taken")
        return self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing is answered."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self.process.signal(signal.SIGCONT)
