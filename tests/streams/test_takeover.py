"""How long a killed worker's partitions give no outcomes; docs/faults.md has the figures."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import pytest

from bandstand.local import Kafka
from tests.streams.bench import Bench, Crowd, long_fault
from tests.waiting import until

ROUNDS = 5


@long_fault
@pytest.mark.parametrize("session_s", [1, 6])
def test_partitions_of_a_killed_worker_go_on_soon_after_its_session(
    bandstand_kafka: Kafka,
    bandstand_prefix: str,
    tmp_path: Path,
    session_s: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From kill -9 to the next outcome of every partition: the session, and about a tick."""
    settings = {
        "BANDSTAND_JOIN__SESSION_TIMEOUT": f"{session_s}s",
        "BANDSTAND_JOIN__TICK": "1s",
        "BANDSTAND_JOIN__SETTLE": "15s",
    }
    bench = Bench(bandstand_kafka, bandstand_prefix, tmp_path, 2, None, **settings)
    bench.start().wait_until_logged("took over")
    crowd = Crowd(bench, size=2, every=0.05)
    seconds = []
    try:
        for _ in range(ROUNDS):
            bench.start().wait_until_logged("took over")
            _wait_for_more(bench)
            seconds.append(_kill_and_wait(bench))
        ids = crowd.stop()
        bench.wait_for(ids)
        bench.assert_equal_to_the_pure_core()
    finally:
        crowd.stop()
        bench.close()
    with capsys.disabled():
        shown = " ".join(f"{s:.1f}" for s in sorted(seconds))
        sys.stdout.write(f"\nsession {session_s} s: next outcome after {shown} s\n")
    assert median(seconds) < session_s + 5


def _kill_and_wait(bench: Bench) -> float:
    """Kill the older worker; give the seconds until every partition has a new outcome."""
    began = time.monotonic()
    bench.workers[-2].kill()
    time.sleep(0.5)  # for what was under way
    _wait_for_more(bench)
    return time.monotonic() - began


def _wait_for_more(bench: Bench) -> None:
    """Wait until every partition has outcomes that it hasn't now."""
    before = [len(bench.outcomes().get(p, [])) for p in range(bench.partitions)]
    until(
        lambda: all(len(bench.outcomes().get(p, [])) > n for p, n in enumerate(before)),
        "outcomes of every partition",
    )
