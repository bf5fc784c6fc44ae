"""Environments of the peers: what they need and what Bandstand needs may differ."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

__all__ = ["EnvironmentNotMadeError", "python_of"]

_FOLDER = Path(__file__).resolve().parents[1] / "build" / "bench"


class EnvironmentNotMadeError(Exception):
    """A peer can't be installed here."""


def python_of(lock: Path) -> Path:
    """Give the Python of an environment that has what a lock says; made at the first call.

    Raises
    ------
    EnvironmentNotMadeError
        With what pip said.
    """
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    folder = _FOLDER / f"{lock.stem}-{digest[:8]}"
    ready, python = folder / ".ready", folder / "bin" / "python"
    if not ready.exists():
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), *install, "--require-hashes", "-r", str(lock)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise EnvironmentNotMadeError(
                    f"{lock.stem} can't be installed:\n{done.stdout}{done.stderr}"
                )
        ready.touch()
    return python
