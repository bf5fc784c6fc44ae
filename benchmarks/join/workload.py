"""The two logs that every contestant reads; hides how a million events are made and loaded fast.

Decisions come at a steady pace of event time, some of them with one reward inside its window, and
rewards lie in their log in the order of their time. The lane's logs also have the ticks that a live
join would have written, one a second; the peers' logs have none.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from random import Random
from typing import Final, NamedTuple

from confluent_kafka import Producer

from bandstand.kafka import producer_config
from bandstand.schemas.primitives import write_long
from bandstand.schemas.topics import TICK_KEY
from bandstand.settings import Settings
from bandstand.streams.join_types import TICK_HEADER, Rules
from benchmarks.events import START_MS, WIRE, decision, sized

__all__ = [
    "BASE",
    "CLOSING",
    "RULES",
    "Event",
    "Topics",
    "Traffic",
    "Workload",
    "load",
    "send",
]

RULES: Final = Rules(
    window_ms=10_000, grace_ms=2_000, lateness_ms=3_600_000, backward_ms=0, skew_ms=60_000
)
CLOSING: Final = b"closing-"
"""How the ids begin of what is sent only to move the time of joins that know no other clock."""

_FORMS = 500
_QUEUE_MESSAGES = 500_000


class Traffic(NamedTuple):
    """What flows through a lane, and by which rules it is joined."""

    partitions: int = 2
    rewarded_percent: int = 5
    """Decisions of a hundred that have a reward, evenly spread; 0 to 100."""
    decision_bytes: int = 235
    per_second: int = 5_000
    """Decisions in a second of event time, all partitions together."""
    rules: Rules = RULES

    def rewarded(self, number: int) -> bool:
        """Tell whether a decision has a reward."""
        return number * self.rewarded_percent % 100 < self.rewarded_percent

    def lane(self) -> dict[str, str]:
        """Give the settings of the lane."""
        spans = {name.removesuffix("_ms"): f"{ms}ms" for name, ms in self.rules._asdict().items()}
        return {"partitions": str(self.partitions), **spans}


BASE: Final = Traffic()


class Event(NamedTuple):
    """One record to be sent."""

    ts: int
    key: bytes
    value: bytes | None
    partition: int = -1
    """-1: by the key."""


class Topics(NamedTuple):
    """Where a contestant reads and writes."""

    decisions: str
    rewards: str
    outcomes: str


class Workload:
    """The events of one size, the same in each run but for the day.

    Parameters
    ----------
    count
        How many decisions, at least 1.
    now
        The broker's time, milliseconds since 1970; the last tick lies a minute before it.
    traffic
        What is in the logs.
    tick_ms
        Time from tick to tick.
    tick_gap_ms
        From when to when, after the first decision, no tick was written.
    closed
        Whether the ticks go on until the last window has closed; otherwise both logs end with the
        last decision.
    """

    def __init__(
        self,
        count: int,
        now: int,
        traffic: Traffic = BASE,
        *,
        tick_ms: int = 1_000,
        tick_gap_ms: tuple[int, int] = (0, 0),
        closed: bool = True,
    ) -> None:
        self.count = count
        self.traffic = traffic
        self._tick_ms, self._tick_gap_ms = tick_ms, tick_gap_ms
        length, rules = count * 1000 // traffic.per_second, traffic.rules
        self._closed = length + (rules.window_ms + rules.grace_ms if closed else 0)
        self._start = now - now % 1000 - self._closed - 63_000
        self._forms = list(_forms(Random(3), traffic.decision_bytes))
        self._closings = 0

    @cached_property
    def rewarded(self) -> list[int]:
        """Numbers of the decisions that have a reward."""
        return [number for number in range(self.count) if self.traffic.rewarded(number)]

    def key(self, number: int) -> bytes:
        """Give a decision's id: a UUID of version 7, made from its number alone."""
        noise = _noise(number)
        text = f"{self._ts(number):012x}7{number & 0xFFF:03x}{noise | 1 << 63:016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}".encode()

    def decisions(self) -> Iterator[Event]:
        """Give the decisions by time."""
        for number in range(self.count):
            yield self._decision(self._ts(number), self.key(number), number)

    def rewards(self) -> Iterator[Event]:
        """Give the rewards by time, each within its decision's window."""
        window_ms = self.traffic.rules.window_ms
        due = [(self._ts(n) + _noise(n) % window_ms, self.key(n)) for n in self.rewarded]
        end = self._start + self._closed
        return (_reward(ts, key) for ts, key in sorted(due) if ts <= end)

    def ticks(self) -> Iterator[Event]:
        """Give the ticks of all partitions of a log, until the last window has closed."""
        first, last = self._tick_gap_ms
        for ms in range(0, self._closed + 2_000 + self._tick_ms, self._tick_ms):
            if first < ms < last:
                continue
            for partition in range(self.traffic.partitions):
                yield Event(self._start + ms, TICK_KEY, None, partition)

    def closing(self) -> tuple[list[Event], list[Event]]:
        """Give a decision and its reward for each partition, later than all windows so far."""
        self._closings += 1
        ts = self._start + self._closed + self._closings * 1000
        many = self.traffic.partitions
        keys = [CLOSING + b"%028d" % (many * self._closings + p) for p in range(many)]
        decisions = [self._decision(ts, key, 0)._replace(partition=p) for p, key in enumerate(keys)]
        return decisions, [_reward(ts, key)._replace(partition=p) for p, key in enumerate(keys)]

    @property
    def end(self) -> int:
        """Time of the last tick, milliseconds since 1970."""
        return self._start + (self._closed + 1_999 + self._tick_ms) // self._tick_ms * self._tick_ms

    def _ts(self, number: int) -> int:
        return self._start + number * 1000 // self.traffic.per_second

    def _decision(self, ts: int, key: bytes, number: int) -> Event:
        head, between, rest = self._forms[number % _FORMS]
        return Event(ts, key, b"".join((head, key, between, write_long(ts), rest)))


def _forms(random: Random, size: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Give what stands before a decision's id, between it and the time, and after that."""
    for _ in range(_FORMS):
        event = decision(random, START_MS, eligible=0, features=False)
        head, rest = sized(event, size).split(event["decision_id"].encode())
        between, tail = rest.split(write_long(START_MS))
        yield head, between, tail


def _noise(number: int) -> int:
    """Give 62 bits that look like noise."""
    return (number + 1) * 0x9E3779B97F4A7C15 >> 1 & (1 << 62) - 1


def _reward(ts: int, key: bytes) -> Event:
    decision_id = key.decode()
    event = {
        "bandit": "bench",
        "decision_id": decision_id,
        "reward_id": f"r-{decision_id}",
        "name": "click",
        "value": 1.0,
        "ts": ts,
    }
    return Event(ts, key, WIRE.dumps("reward", event))


def load(settings: Settings, topics: Topics, workload: Workload, *, ticks: bool) -> None:
    """Write both logs, and return when the broker has them."""
    for topic, events in (
        (topics.decisions, workload.decisions()),
        (topics.rewards, workload.rewards()),
    ):
        found = _by_time(workload.ticks(), events) if ticks else events
        send(settings, topic, found, workload.traffic.rules)


def _by_time(ticks: Iterable[Event], events: Iterable[Event]) -> Iterator[Event]:
    return heapq.merge(ticks, events, key=lambda event: event.ts)


def send(settings: Settings, topic: str, events: Iterable[Event], rules: Rules = RULES) -> None:
    """Write events to a topic, ticks with these rules, and return when the broker has them."""
    lost: list[object] = []
    producer = Producer(
        {
            **producer_config(settings, linger_ms=20),
            "log_level": 0,  # new topics make it retry
            "queue.buffering.max.messages": _QUEUE_MESSAGES,
            "on_delivery": lambda error, _: lost.append(error) if error else None,
            "delivery.report.only.error": True,
        }
    )
    tick: list[tuple[str, str | bytes | None]] = [(TICK_HEADER, rules.to_header())]
    for ts, key, value, partition in events:
        while True:
            try:
                producer.produce(
                    topic, value, key, partition, timestamp=ts, headers=None if value else tick
                )
                break
            except BufferError:
                producer.poll(0.1)
    deadline = time.monotonic() + 60
    while producer.flush(1) and time.monotonic() < deadline:
        pass
    assert not len(producer), f"{len(producer)} records of {topic} weren't delivered in a minute"
    assert not lost, lost[:3]
