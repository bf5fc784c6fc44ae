"""The demo's stage: real servers and all roles, in a folder that is gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bandstand.errors import ServerError
from bandstand.local import Kafka, Progress, SeaweedFS
from bandstand.schemas.spec import Spec
from bandstand.settings import Settings, load_settings
from bandstand.streams.in_force import Wanted
from bandstand.streams.specs import SpecFollower, apply
from bandstand.streams.topics import create

__all__ = ["Stage", "await_that", "open_stage"]

_STOP_S = 60.0
_PREFIX = "demo."


@dataclass
class Stage:
    """Servers and roles that run.

    Parameters
    ----------
    settings
        The settings that all of them use.
    log
        What the roles have to say.
    roles
        The supervisor's process.
    """

    settings: Settings
    log: Path
    roles: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise `ServerError` with the roles' last words if they have ended."""
        if self.roles.poll() is not None:
            raise ServerError(f"the roles ended early; their log ends with:\n{self.last_words()}")

    def stop_roles(self) -> float:
        """Stop all roles cleanly; gives the seconds that took.

        Raises
        ------
        ServerError
            If they don't end cleanly.
        """
        started = time.monotonic()
        self.check()
        self.roles.send_signal(signal.SIGTERM)
        code = self.roles.wait(_STOP_S)
        if code != 0:
            raise ServerError(
                f"the roles ended with exit code {code}; their log ends with:\n{self.last_words()}"
            )
        return time.monotonic() - started

    def last_words(self) -> str:
        """Give the end of the roles' log."""
        return "\n".join(self.log.read_text().splitlines()[-15:])


def await_that(condition: Callable[[], bool], seconds: float, what: str, stage: Stage) -> None:
    """Wait until a condition holds.

    Raises
    ------
    ServerError
        If it doesn't within the time, or the roles end meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        stage.check()
        if time.monotonic() > deadline:
            raise ServerError(f"{what}: not within {seconds:g} s; roles:\n{stage.last_words()}")
        time.sleep(0.05)


@contextmanager
def open_stage(
    lanes: dict[str, dict[str, str | int]],
    specs: list[Spec],
    log: Path,
    tell: Callable[[str], None],
) -> Iterator[Stage]:
    """Start servers and roles, and put everything away afterwards.

    Parameters
    ----------
    lanes
        Settings by lane.
    specs
        What to apply before the roles start.
    log
        Where the roles' log goes.
    tell
        Called with what is being done.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bandstand-demo-")))
        tell("starting Kafka")
        kafka = stack.enter_context(
            Kafka(folder / "kafka", on_progress=lambda step: tell(_in_percent(step)))
        )
        tell("starting S3 (SeaweedFS)")
        s3 = stack.enter_context(SeaweedFS(folder / "s3"))
        s3.create_bucket("bandstand")
        document = {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "s3": {
                "endpoint_url": s3.endpoint_url,
                "access_key_id": s3.access_key_id,
                "secret_access_key": s3.secret_access_key,
            },
            "topics": {"prefix": _PREFIX},
            "archive": {"max_age": "5s"},
            "log": {"format": "console", "level": "info"},
            "lanes": lanes,
        }
        settings, config = _settings(folder, document)
        tell("creating topics, applying specs")
        create(settings)
        with SpecFollower(settings, "apply") as follower:
            apply(settings, follower, [Wanted(spec, "demo") for spec in specs], "demo")
        tell("starting the roles: join, learn, publish, archive")
        roles = stack.enter_context(_roles(log, config))
        stage = Stage(settings, log, roles)
        yield stage


def _in_percent(step: Progress) -> str:
    return f"{step.task} {step.done / step.total:.0%}" if step.total else step.task


def _settings(folder: Path, document: dict[str, object]) -> tuple[Settings, Path]:
    for name in [name for name in os.environ if name.startswith("BANDSTAND_")]:
        del os.environ[name]  # the demo stands alone: nobody's own servers are touched
    config = folder / "bandstand.toml"
    config.write_text(_toml(document))
    return load_settings(config), config


def _toml(document: dict[str, object], prefix: str = "") -> str:
    plain = {name: value for name, value in document.items() if not isinstance(value, dict)}
    text = f"[{prefix}]\n" if prefix and plain else ""
    text += "".join(f"{name} = {json.dumps(value)}\n" for name, value in plain.items())
    for name, value in document.items():
        if isinstance(value, dict):
            text += _toml(value, f"{prefix}.{name}" if prefix else name)
    return text


@contextmanager
def _roles(log_path: Path, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run all roles; they end with this process, whose end of their standard input closes then."""
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bandstand", "--config", str(config), "run", "--supervised"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(_STOP_S)
            if process.stdin is not None:
                process.stdin.close()
