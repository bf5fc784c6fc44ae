"""Fixtures of the command line's tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bandstand import cli
from bandstand.local import Kafka
from tests.bandstand.calling import Call, Result


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["bandstand", *arguments])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def kafka(bandstand_kafka: Kafka, bandstand_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Kafka:
    """Let commands find the real broker."""
    address = bandstand_kafka.bootstrap_servers
    monkeypatch.setenv("BANDSTAND_KAFKA__BOOTSTRAP_SERVERS", address)
    monkeypatch.setenv("BANDSTAND_TOPICS__PREFIX", bandstand_prefix)
    monkeypatch.setenv("BANDSTAND_LANES__DEFAULT__PARTITIONS", "1")
    monkeypatch.setenv("BANDSTAND_TOPICS__LEARNER_STATE_PARTITIONS", "1")
    return bandstand_kafka
