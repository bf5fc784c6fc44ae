"""The ticker on a real broker: what all logs of a process share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from bandstand.errors import BandstandError
from bandstand.kafka import TopicReader, producer_config
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.leaders import Place
from bandstand.streams.tick_guards import Reading
from bandstand.streams.ticker import BrokerClock, Ticker, now
from tests.streams.given import given_settings
from tests.waiting import PATIENCE_S, until


class _Clock(BrokerClock):
    """The broker's real time, which a test may move ahead."""

    ahead_ms = 0

    def read(self, within: float) -> Reading | None:
        reading = super().read(within)
        return reading and reading._replace(broker_ms=reading.broker_ms + self.ahead_ms)


def _fail(error: BaseException) -> None:
    raise error


def _lost(place: Place, error: BandstandError) -> None:
    raise AssertionError(f"{place}: {error}")


class _Bench:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        topics.create(settings)
        self.clock = _Clock(settings)
        names = TopicNames(settings.topics.prefix)
        self.places = [Place(names.decisions("fast"), p) for p in range(2)]
        self.ticker = Ticker(settings, self.clock, watched=self.places, lost=_lost, die=_fail)
        self.ticker.start()

    def open(self, place: Place) -> None:
        self.ticker.open(place, header=b"{}", opened=now(), ticked=None, busy=lambda: True)

    def records(self, place: Place) -> int:
        reader = TopicReader(self.settings, place.topic)
        found = [m for m in reader.read_to_end(PATIENCE_S) if m.partition() == place.partition]
        reader.close()
        return len(found)

    def braked(self, place: Place) -> bool:
        found = self.ticker.state(place)
        return found is not None and found[1:3] == ("brake", True)


@pytest.fixture
def bench(bandstand_kafka: Any, bandstand_prefix: str) -> Iterator[_Bench]:
    """Tick two logs ten times a second."""
    join = {"tick": "100ms", "pause": "2s", "settle": "2s"}
    bench = _Bench(given_settings(bandstand_kafka, bandstand_prefix, join=join))
    yield bench
    bench.ticker.stop()


def test_a_log_that_is_opened_while_the_brake_holds_gets_no_tick(bench: _Bench) -> None:
    """The broker's clock jumps; a partition that comes over meanwhile isn't ticked either."""
    first, second = bench.places
    bench.open(first)
    until(lambda: bench.records(first) > 1)
    bench.clock.ahead_ms = 8_000
    until(lambda: bench.braked(first))
    bench.open(second)
    until(lambda: bench.braked(second))
    assert bench.records(second) == 0
    bench.ticker.accept()
    until(lambda: bench.records(second) > 1)


def test_a_process_knows_the_time_before_its_first_log(bench: _Bench) -> None:
    """A worker that waits for its first partition notices a jump of the broker's clock."""
    until(lambda: bench.records(Place(TopicNames(bench.settings.topics.prefix).clock, 0)) > 1)
    bench.clock.ahead_ms = 8_000
    bench.open(bench.places[0])
    until(lambda: bench.braked(bench.places[0]))
    assert bench.records(bench.places[0]) == 0


def test_a_tick_tells_where_its_log_ends(bench: _Bench) -> None:
    """After the last tick the worker knows the log's end, whoever else wrote into it."""
    place = bench.places[0]
    bench.open(place)
    producer = Producer(producer_config(bench.settings))
    for _ in range(100):
        producer.produce(place.topic, b"x", b"key", place.partition)
    assert producer.flush(PATIENCE_S) == 0
    until(lambda: (((state := bench.ticker.state(place)) and state.end) or 0) > 100)
    bench.ticker.close(place)
    known = bench.records(place)
    assert bench.ticker.state(place) is None
    bench.open(place)
    until(lambda: (state := bench.ticker.state(place)) is not None and state.end is not None)
    state = bench.ticker.state(place)
    assert state is not None
    assert state.end is not None
    assert known < state.end <= bench.records(place)
