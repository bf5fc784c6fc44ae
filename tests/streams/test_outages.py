"""The broker goes away under eight producers: nothing that waited in them is judged by its absence.

By default the outage is short, and so are the join's pause and settle, and the longest time after
which a producer tries to reconnect. With ``LONG_FAULTS=1`` (``make faults``) it lasts a minute, and
all these have their defaults.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bandstand.local import Kafka
from tests.streams.bench import LONG_FAULTS, Bench, Crowd
from tests.waiting import until

OUTAGE_S = 60 if LONG_FAULTS else 6
SETTLE_S = 15 if LONG_FAULTS else 3
LANE = {"BANDSTAND_LANES__DEFAULT__WINDOW": "2s"}
SHORT = {
    "BANDSTAND_JOIN__PAUSE": "1s",
    "BANDSTAND_JOIN__SETTLE": f"{SETTLE_S}s",
    "BANDSTAND_LANES__DEFAULT__GRACE": "1s",
}
DEFAULTS = {
    "BANDSTAND_JOIN__TICK": "1s",
    "BANDSTAND_JOIN__SESSION_TIMEOUT": "6s",
    "BANDSTAND_JOIN__SETTLE": "15s",
    "BANDSTAND_LANES__DEFAULT__GRACE": "5s",
    "BANDSTAND_LANES__DEFAULT__SKEW": "60s",
}
PRODUCER = {} if LONG_FAULTS else {"reconnect_backoff_max_ms": 500}


@pytest.fixture
def bench(bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Make a lane of two partitions with a window of two seconds."""
    settings = DEFAULTS if LONG_FAULTS else SHORT
    bench = Bench(bandstand_kafka, bandstand_prefix, tmp_path, 2, None, **LANE, **settings)
    yield bench
    bench.close()


def _killed(kafka: Kafka) -> Callable[[], object]:
    kafka.kill()
    return kafka.start


def _frozen(kafka: Kafka) -> Callable[[], object]:
    kafka.pause()
    return kafka.resume


@pytest.mark.parametrize("go_away", [_killed, _frozen])
def test_eight_producers_lose_nothing_to_an_outage(
    bench: Bench, bandstand_kafka: Kafka, go_away: Callable[[Kafka], Callable[[], object]]
) -> None:
    """Nothing comes in behind the watermark when the broker is back, nothing is late or clock."""
    worker = bench.start()
    bench.wait_for(bench.decide(20, reward_every=1))
    crowd = Crowd(bench, size=8, every=0.1, **PRODUCER)
    try:
        until(lambda: len(crowd.ids) > 80, "producers at work")
        come_back = go_away(bandstand_kafka)
        try:
            time.sleep(OUTAGE_S)
        finally:
            come_back()
        worker.wait_until_logged("no ticks until it settles")
        back = len(crowd.ids)
        until(lambda: len(crowd.ids) > back + 80, "producers at work again")
    finally:
        ids = crowd.stop()
    bench.wait_for(ids)
    states = bench.states()
    assert {states[i] for i in ids} == {"joined"}
    assert bench.furthest_behind() < OUTAGE_S * 1_000 / 2
    assert not bench.dead_letters()
    assert worker.states("rewards").keys() == {"joined"}
    bench.assert_equal_to_the_pure_core()
