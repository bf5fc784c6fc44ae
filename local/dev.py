"""Servers for development: they stay when the command that started them ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bandstand.errors import ServerError
from bandstand.local.apicurio import Apicurio
from bandstand.local.kafka import Kafka
from bandstand.local.parts import OnProgress, Progress, locked
from bandstand.local.processes import Process
from bandstand.local.seaweedfs import SeaweedFS
from bandstand.local.server import Server

DEFAULT_FOLDER = Path(".bandstand")
_STATE = "dev.json"
_LOCK_S = 300.0


@dataclass(frozen=True)
class DevServer:
    """One server as it was found.

    Parameters
    ----------
    name
        ``kafka``, ``s3`` or ``registry``.
    pid
        Of its process, the last one where it has ended.
    address
        Where clients find it.
    log
        What it wrote.
    alive
        Whether its process runs.
    answering
        Whether a real client's call succeeded.
    """

    name: str
    pid: int
    address: str
    log: Path
    alive: bool
    answering: bool


@dataclass(frozen=True)
class DevState:
    """The servers of one folder.

    Parameters
    ----------
    folder
        Where their data is.
    servers
        All that were ever started there.
    environment
        The ``BANDSTAND_*`` variables that make Bandstand use those that run.
    started
        Names of those that this call started; the others were running.
    """

    folder: Path
    servers: tuple[DevServer, ...]
    environment: dict[str, str]
    started: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Record:
    """What the state file holds of one server."""

    name: str
    process: Process
    ports: list[int]
    environment: dict[str, str]

    @classmethod
    def read(cls, entry: dict[str, Any]) -> _Record:
        process = Process(entry["pid"], entry["started"])
        return cls(entry["name"], process, entry["ports"], entry["environment"])

    @classmethod
    def of(cls, server: Server) -> _Record:
        return cls(server.name, server.process, server.ports, server.environment)

    def write(self, address: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "pid": self.process.pid,
            "started": self.process.started,
            "address": address,
            "ports": self.ports,
            "environment": self.environment,
        }


def up(
    folder: Path | str = DEFAULT_FOLDER,
    *,
    registry: bool = False,
    on_progress: OnProgress | None = None,
) -> DevState:
    """Start what isn't running yet, on the data, ports and credentials of the last time.

    Parameters
    ----------
    folder
        Where all data is; made where it is missing.
    registry
        A schema registry, too.
    on_progress
        Called with what takes more than a moment.

    Raises
    ------
    ServerError
        A server can't be started; then none is left that this call started.
    """
    folder = Path(folder).absolute()
    wanted = ["kafka", "s3", *(["registry"] if registry else [])]
    with _held(folder), ExitStack() as started:
        records = {record.name: record for record in _read(folder)}
        missing = [n for n in wanted if n not in records or not records[n].process.alive]
        servers = [_make(folder, name, records.get(name), on_progress) for name in missing]
        for server in servers:
            _start(server, on_progress)
            started.callback(server.stop)
            records[server.name] = _Record.of(server)
        _write(folder, records.values())
        for server in servers:
            server.detach()
        started.pop_all()
    return _look(folder, tuple(missing))


def down(folder: Path | str = DEFAULT_FOLDER, *, delete_data: bool = False) -> tuple[str, ...]:
    """Stop what runs, and return the names of what was stopped.

    Parameters
    ----------
    folder
        Where the data is.
    delete_data
        Remove the folder, too.

    Raises
    ------
    ServerError
        A server doesn't end, or the folder to remove isn't one that `up` made.
    """
    folder = Path(folder).absolute()
    if not (folder / _STATE).exists():
        return ()
    with _held(folder):
        running = [record for record in _read(folder) if record.process.alive]
        for record in running:
            _make(folder, record.name, record, None).attach(record.process).stop()
        if delete_data:
            shutil.rmtree(folder)
    return tuple(record.name for record in running)


def status(folder: Path | str = DEFAULT_FOLDER) -> DevState:
    """Tell which servers run, and whether they answer."""
    return _look(Path(folder).absolute(), ())


def _held(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    return locked(folder / "dev.lock", within=_LOCK_S)


def _make(
    folder: Path, name: str, record: _Record | None, on_progress: OnProgress | None
) -> Server:
    ports = record.ports if record else []
    known = record.environment if record else {}
    if name == "kafka":
        return Kafka(folder / name, ports=ports, on_progress=on_progress)
    if name == "registry":
        return Apicurio(folder / name, ports=ports, on_progress=on_progress)
    return SeaweedFS(
        folder / name,
        access_key_id=known.get("BANDSTAND_S3__ACCESS_KEY_ID", ""),
        secret_access_key=known.get("BANDSTAND_S3__SECRET_ACCESS_KEY", ""),
        ports=ports,
        on_progress=on_progress,
    )


def _start(server: Server, on_progress: OnProgress | None) -> None:
    report = on_progress or (lambda _: None)
    report(Progress(f"Starting {server.name}", 0, 1))
    server.start()
    report(Progress(f"Starting {server.name}", 1, 1))


def _look(folder: Path, started: tuple[str, ...]) -> DevState:
    servers, environment = [], {}
    for record in _read(folder):
        server = _make(folder, record.name, record, None)
        alive = record.process.alive
        answering = alive and server.answers()
        log, pid = server.log_path, record.process.pid
        servers.append(DevServer(record.name, pid, server.address, log, alive, answering))
        if alive:
            environment.update(record.environment)
    return DevState(folder, tuple(servers), environment, started)


def _read(folder: Path) -> list[_Record]:
    path = folder / _STATE
    try:
        return [_Record.read(entry) for entry in json.loads(path.read_text())["servers"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{path} isn't what 'dev up' writes ({error!r}); remove it") from error


def _write(folder: Path, records: Iterable[_Record]) -> None:
    entries = [r.write(_make(folder, r.name, r, None).address) for r in records]
    half = folder / f"{_STATE}.half"
    half.touch(mode=0o600)  # it holds credentials
    half.write_text(json.dumps({"servers": entries}, indent=2) + "\n")
    half.replace(folder / _STATE)
