"""A role as a process of its own, to be stopped, killed and frozen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from bandstand.settings import Settings
from tests.waiting import PATIENCE_S, until

_RUN = """
import sys
from bandstand.settings import Settings
from bandstand.streams.{role} import run
{first}
run(Settings.model_validate_json(sys.argv[1]))
"""


class RoleProcess:
    """One running role; ends with the block it is used in.

    Parameters
    ----------
    role
        Its name, e.g. ``learn``.
    settings
        Its settings.
    folder
        Where its log goes.
    first
        Python that it runs first.
    """

    def __init__(self, role: str, settings: Settings, folder: Path, first: str = "") -> None:
        self.log = folder / f"{role}-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _RUN.format(role=role, first=first),
                    settings.model_dump_json(),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if not k.startswith("BANDSTAND_")},
            )

    def __enter__(self) -> RoleProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait_until_ready(self) -> RoleProcess:
        """Wait until it says that it does its work."""
        until(lambda: self.get("/readyz")[0] == 200)
        return self

    def get(self, path: str) -> tuple[int, str]:
        """Ask its web server: status and text; status 0 as long as it has none."""
        assert self.process.poll() is None, self.log.read_text()
        url = re.search(r"http://[0-9.:]+", self.log.read_text())
        if url is None:
            return 0, ""
        try:
            with urllib.request.urlopen(url[0] + path, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def stop(self) -> float:
        """Send SIGTERM and give the seconds until a clean end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        assert code == 0, self.log.read_text()
        return time.monotonic() - began

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait()


def wait_for_metrics(role: RoleProcess, prefix: str, wanted: Mapping[str, float]) -> None:
    """Wait until its metrics with a prefix are these."""
    until(lambda: metrics_of(role, prefix) == wanted, lambda: str(metrics_of(role, prefix)))


def metrics_of(role: RoleProcess, prefix: str) -> dict[str, float]:
    """Give its metrics with a prefix, by their names without it and their labels."""
    lines = [line.rpartition(" ") for line in role.get("/metrics")[1].splitlines()]
    return {
        name.removeprefix(prefix): float(value)
        for name, _, value in lines
        if name.startswith(prefix)
    }
