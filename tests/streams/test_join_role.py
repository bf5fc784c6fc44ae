"""The role ``join`` on a real broker: what goes in, what comes out, whatever is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.streams.bench import Bench


@pytest.fixture
def bench(bandstand_kafka: Any, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Make a lane of two partitions with a window of a second."""
    bench = Bench(bandstand_kafka, bandstand_prefix, tmp_path)
    yield bench
    bench.close()


def test_outcomes_are_those_of_the_pure_core(bench: Bench) -> None:
    """Decisions and rewards go in, the outcomes of the pure core come out, SIGTERM is clean."""
    worker = bench.start()
    ids = bench.decide(200)
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()
    assert '"waiting": {}' in worker.get("/readyz")
    code, seconds = worker.stop()
    assert code == 0
    assert seconds < 5


def test_a_killed_worker_loses_nothing(bench: Bench) -> None:
    """Killed in the middle and started again: every decision has its outcome, once, unchanged."""
    worker = bench.start()
    ids = bench.decide(100)
    bench.wait_for(ids[:50])
    ids += bench.decide(100)
    worker.kill()
    ids += bench.decide(100)
    bench.start()
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()


def test_faust_command_line_runs_the_same_app(bench: Bench) -> None:
    """The app is one that Faust's own command line finds and runs."""
    worker = bench.start(
        [sys.executable, "-m", "faust", "-A", "bandstand.streams.app", "worker", "-l", "info"]
    )
    ids = bench.decide(50)
    bench.wait_for(ids)
    bench.assert_equal_to_the_pure_core()
    code, seconds = worker.stop()
    assert code == 0
    assert seconds < 5
