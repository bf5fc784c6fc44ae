from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from bandstand.errors import ServerError
from bandstand.local import SeaweedFS, dev
from bandstand.local.processes import Process
from tests.waiting import PATIENCE_S

UP = "import sys; from bandstand.local import dev; print(dev.up(sys.argv[1]).started)"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Name a folder whose servers are stopped after the test, come what may."""
    yield tmp_path / "dev"
    dev.down(tmp_path / "dev", delete_data=True)


def _up_in_another_process(folder: Path) -> str:
    command = [sys.executable, "-c", UP, str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=True
    ).stdout


def test_servers_stay_until_down(folder: Path) -> None:
    """Servers outlive the command, a second one finds them, and the next run keeps addresses."""
    assert "('kafka', 's3')" in _up_in_another_process(folder)
    again = dev.up(folder)
    assert again.started == ()
    assert [(s.name, s.alive, s.answering) for s in again.servers] == [
        ("kafka", True, True),
        ("s3", True, True),
    ]
    assert again.environment["BANDSTAND_S3__BUCKET"] == "bandstand"
    assert dev.down(folder) == ("kafka", "s3")
    stopped = dev.status(folder)
    assert [(s.alive, s.answering) for s in stopped.servers] == [(False, False)] * 2
    assert stopped.environment == {}
    assert dev.down(folder) == ()
    assert [s.address for s in stopped.servers] == [s.address for s in again.servers]


def test_data_is_deleted_on_demand_only(tmp_path: Path) -> None:
    """A folder that holds no state of ours is left alone; nothing runs there."""
    (tmp_path / "mine").touch()
    assert dev.down(tmp_path, delete_data=True) == ()
    assert (tmp_path / "mine").exists()
    assert dev.status(tmp_path / "nothing").servers == ()


def test_recycled_process_id_is_spared(tmp_path: Path) -> None:
    """A state file that survived a reboot makes nobody end somebody else's process."""
    entry = {
        "name": "kafka",
        "pid": os.getpid(),
        "started": "before the reboot",
        "ports": [1, 2],
        "environment": {"BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"},
    }
    (tmp_path / "dev.json").write_text(json.dumps({"servers": [entry]}))
    assert [s.alive for s in dev.status(tmp_path).servers] == [False]
    assert dev.down(tmp_path) == ()


def test_broken_state_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """A state file that isn't ours is named."""
    (tmp_path / "dev.json").write_text("[]")
    with pytest.raises(ServerError, match=r"dev\.json isn't what 'dev up' writes"):
        dev.status(tmp_path)


def test_failed_up_leaves_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a later server can't be started, the earlier ones are stopped again."""
    started: list[Process] = []

    class First(SeaweedFS):
        def start(self) -> Self:
            super().start()
            started.append(self.process)
            return self

    monkeypatch.setattr(dev, "Kafka", First)
    (tmp_path / "s3").write_text("a file where a folder should be")
    with pytest.raises(ServerError, match="s3 can't be made"):
        dev.up(tmp_path)
    assert [process.alive for process in started] == [False]
    assert dev.status(tmp_path).servers == ()
