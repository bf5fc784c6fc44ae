"""The producers of a storm: decisions and rewards of every kind, and what must become of them.

Whatever the join is told by its clock, an honest decision must have one outcome, and a reward that
was sent in its window must be in it: `Ledger` knows that from the senders' side, without the logs.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import Producer

from bandstand.durations import milliseconds
from bandstand.kafka import producer_config
from bandstand.partitioner import partition_for
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.settings import Settings
from bandstand.streams.join_types import Log
from tests.streams.bench import WIRE, decision
from tests.streams.storm_scene import at_work

__all__ = ["Content", "Ledger", "Load"]

_THREADS = 3
_PAUSE_S = 0.012
_DELIVERED_S = 60.0
_RECENT = 200
_RETRY_MOST_MS = 200
"""How long a producer may wait until it tries again: far less than the clock settles."""


class Ledger:
    """What was sent, and what its senders must see again; thread-safe.

    Parameters
    ----------
    patience
        Seconds that a record may be under way while the broker is up. A slower one, on a machine
        that is too busy, is no promise of the join's.
    """

    def __init__(self, patience: float) -> None:
        self.client_repeats = 0
        """Records that lie in a log once more than they were sent."""
        self.errors: list[str] = []
        self.excused = 0
        """Rewards that didn't count for their decision because they were too long under way."""
        self._patience = patience
        self._lock = threading.Lock()
        self._open: dict[str, dict[str, _Sent]] = {}
        self._closed: set[str] = set()
        self._delivered: set[Content] = set()
        self._unread: Counter[Content] = Counter()
        self._outages: list[tuple[float, float]] = []

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Note that the broker is away while the block runs."""
        began = time.time()
        self._outages.append((began, math.inf))
        try:
            yield
        finally:
            self._outages[-1] = (began, time.time())

    def promise(self, decision_id: str) -> None:
        """Note an honest decision before it is sent: it must have an outcome."""
        with self._lock:
            self._open[decision_id] = {}

    def promise_reward(self, decision_id: str, reward_id: str, now: float) -> None:
        """Note a reward before it is sent: it must be in its decision's outcome."""
        with self._lock:
            if decision_id in self._open:
                self._open[decision_id][reward_id] = _Sent(now)

    def settle(self, outcome: Mapping[str, Any], decision_id: str) -> str | None:
        """Compare an outcome with what was promised; give what is wrong with it."""
        with self._lock:
            if decision_id in self._closed:
                return f"decision {decision_id!r} has a second outcome"
            self._closed.add(decision_id)
            promised = self._open.pop(decision_id, {})
            if outcome["state"] == "oversize":
                return None
            lacking = promised.keys() - {reward["reward_id"] for reward in outcome["rewards"]}
            slow = {reward_id for reward_id in lacking if self._is_slow(promised[reward_id])}
            self.excused += len(slow)
        if lacking - slow:
            return f"decision {decision_id!r} lacks rewards sent in time: {sorted(lacking - slow)}"
        return None

    def _is_slow(self, sent: _Sent) -> bool:
        until = sent.delivered or time.time()
        away = sum(
            max(0.0, min(until, ended) - max(sent.at, began)) for began, ended in self._outages
        )
        return until - sent.at - away > self._patience

    def is_open(self, decision_id: str) -> bool:
        """Tell whether a decision still must have an outcome."""
        with self._lock:
            return decision_id in self._open

    @property
    def open(self) -> list[str]:
        """Decisions that must have an outcome and have none yet."""
        with self._lock:
            return list(self._open)

    def on_delivery(self, content: Content, about: tuple[str, str] | None, error: object) -> None:
        """Note what became of a record; `about` names the decision and reward of a promised one."""
        with self._lock:
            if error is not None:
                self.errors.append(f"{content} was not delivered: {error}")
                return
            self._delivered.add(content)
            self._unread[content] += 1
            if about is not None and (sent := self._open.get(about[0], {}).get(about[1])):
                sent.delivered = time.time()

    def read(self, content: Content) -> None:
        """Note a record that is in a log."""
        with self._lock:
            self._unread[content] -= 1

    @property
    def unread(self) -> list[Content]:
        """Records that the broker took and that weren't read yet."""
        with self._lock:
            return [content for content, count in self._unread.items() if count > 0]

    def close_round(self) -> None:
        """Count what the client library has written twice, once all is read.

        After a broker's crash an idempotent producer of librdkafka may begin a new epoch, and then
        sends again what it had no answer for.

        Raises
        ------
        AssertionError
            If a record is there that nobody sent.
        """
        with self._lock:
            for content, count in self._unread.items():
                assert not count or content in self._delivered, f"nobody sent {content}"
                self.client_repeats -= count
            self._unread.clear()
            self._delivered.clear()


class Content(NamedTuple):
    """A record but for its place."""

    log: Log
    key: bytes | None
    timestamp: int
    value: int
    """Its hash."""

    @classmethod
    def of(cls, log: Log, key: bytes | None, timestamp: int, value: bytes | None) -> Content:
        """Take a record's content."""
        return cls(log, key, timestamp, hash(value))


@dataclass
class _Sent:
    """When a reward was sent, and when the broker had taken it: seconds since the epoch."""

    at: float
    delivered: float | None = None


class Load:
    """Several producers, each a thread.

    Parameters
    ----------
    settings
        Where the broker is, and the lane's rules.
    ledger
        Where promises are written.
    seed
        Of the random numbers.
    """

    def __init__(self, settings: Settings, ledger: Ledger, seed: int) -> None:
        self._senders = [_Sender(settings, ledger, seed, number) for number in range(_THREADS)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send while the block runs; at its end everything sent is delivered.

        Raises
        ------
        AssertionError
            If a record isn't.
        """
        with at_work(*(one.run for one in self._senders)):
            yield
        for sender in self._senders:
            sender.flush()


class _Sender:
    """One producer: an honest service and its rewards, with some that are less so."""

    def __init__(self, settings: Settings, ledger: Ledger, seed: int, number: int) -> None:
        lane, names = settings.lanes["default"], TopicNames(settings.topics.prefix)
        self._topics = {
            "decisions": names.decisions("default"),
            "rewards": names.rewards("default"),
        }
        self._partitions = lane.partitions
        self._window, self._grace, self._lateness, self._backward = (
            milliseconds(value) for value in (lane.window, lane.grace, lane.lateness, lane.backward)
        )
        self._too_large = lane.max_outcome_bytes
        self._ledger = ledger
        self._draw = random.Random(f"{seed}/{number}")
        self._name = f"p{number}"
        self._count = 0
        self._recent: deque[tuple[str, int]] = deque(maxlen=_RECENT)
        self._later: list[tuple[int, str, str, int | None]] = []
        self._producer = Producer(
            producer_config(
                settings, linger_ms=2, message_timeout_ms=0, retry_backoff_max_ms=_RETRY_MOST_MS
            )
        )

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop, then what is promised still; the rest waits for the next run."""
        self._recent.clear()
        while not stop.is_set():
            self._decide()
            self._reward_later()
            self._producer.poll(0)
            time.sleep(self._pause())
        rest = [later for later in self._later if later[3] is not None]
        self._later = [later for later in self._later if later[3] is None]
        heapq.heapify(self._later)
        while self._later:
            self._reward_later()
            time.sleep(self._pause())
        self._later = rest
        heapq.heapify(self._later)

    def flush(self) -> None:
        """Wait until everything is delivered."""
        left = self._producer.flush(_DELIVERED_S)
        assert not left, f"{left} records of {self._name} not delivered in {_DELIVERED_S:g} s"
        assert not self._ledger.errors, self._ledger.errors[0]

    def _pause(self) -> float:
        return _PAUSE_S * self._draw.uniform(0.5, 1.5)

    def _decide(self) -> None:
        self._count += 1
        now, name = int(time.time() * 1_000), f"{self._name}-{self._count}"
        [kind] = self._draw.choices(
            ("now", "late", "too late", "again", "large", "bad", "bad reward", "unknown"),
            (76, 4, 3, 5, 3, 3, 3, 3),
        )
        match kind:
            case "now":
                self._honest(name, now)
            case "late":
                self._ledger.promise(name)
                self._send_decision(name, now - self._lateness // 2)
            case "too late":
                self._send_decision(name, now - 2 * self._lateness)
            case "large":
                self._ledger.promise(name)
                self._send_decision(name, now, size=self._too_large)
            case "again" if self._recent:
                again, ts = self._draw.choice(self._recent)
                self._send_decision(again, self._draw.choice((ts, now)))
            case "unknown":
                self._send_reward(f"{name}-nobody", "r", now)
            case "bad" | "bad reward":
                self._send_bad("decisions" if kind == "bad" else "rewards", name, now)

    def _honest(self, name: str, now: int) -> None:
        self._ledger.promise(name)
        if self._draw.random() < 0.05:
            self._promised_reward(name, "early", now - self._draw.randrange(self._backward), now)
        self._send_decision(name, now)
        self._recent.append((name, now))
        if self._draw.random() > 0.4:
            return
        [kind] = self._draw.choices(
            ("now", "delayed", "twice", "after", "too late"), (30, 40, 10, 10, 10)
        )
        match kind:
            case "now" | "twice":
                self._promised_reward(name, "now", now, now)
                if kind == "twice":
                    self._send_reward(name, "now", now + 1)
            case "delayed":
                for number in range(self._draw.choice((1, 1, 1, 3))):
                    at = now + self._draw.randrange(self._window * 4 // 5)
                    self._push(at, name, f"delayed{number}", None)
            case "after":
                at = now + self._window * 5 // 4
                self._push(at, name, "after", at)
            case "too late":
                at = now + self._window + self._grace * 3 // 2
                self._push(at, name, "late", now + self._window // 2)

    def _push(self, at: int, name: str, reward_id: str, ts: int | None) -> None:
        """Note a reward to be sent at a time; without one of its own it bears that, honestly."""
        heapq.heappush(self._later, (at, name, reward_id, ts))

    def _reward_later(self) -> None:
        while self._later and self._later[0][0] <= time.time() * 1_000:
            planned, name, reward_id, ts = heapq.heappop(self._later)
            now = int(time.time() * 1_000)
            if ts is not None:
                self._send_reward(name, reward_id, ts)
            elif now - planned < self._window // 10:  # else this thread slept through the window
                self._promised_reward(name, reward_id, now, now)

    def _promised_reward(self, name: str, reward_id: str, ts: int, now: int) -> None:
        self._ledger.promise_reward(name, reward_id, now / 1_000)
        self._send_reward(name, reward_id, ts, promised=True)

    def _send_decision(self, name: str, ts: int, *, size: int = 0) -> None:
        fields = {**decision(name, ts), "subject": "s" * size}
        self._send("decisions", name.encode(), WIRE.dumps("decision", fields), ts)

    def _send_reward(self, name: str, reward_id: str, ts: int, *, promised: bool = False) -> None:
        about = (name, reward_id) if promised else None
        self._send("rewards", name.encode(), _reward(name, reward_id, ts), ts, about)

    def _send_bad(self, log: Log, name: str, ts: int) -> None:
        good = WIRE.dumps("decision", decision(name, ts))
        if log == "rewards":
            good = _reward(name, "r", ts)
        key: bytes = name.encode()
        value: bytes | None = good
        match self._draw.randrange(8):
            case 0:
                value = b"{}"
            case 1:
                value = None
            case 2:
                value = good[:-1]
            case 3:
                value = good + b"\x00"
            case 4:
                key = b"somebody else"
            case 5:
                ts += 1
            case 6 if log == "rewards":
                value = _reward(name, "r", ts, float("nan"))
            case _:
                key, value = TICK_KEY, None
        self._send(log, key, value, ts)

    def _send(
        self,
        log: Log,
        key: bytes,
        value: bytes | None,
        ts: int,
        about: tuple[str, str] | None = None,
    ) -> None:
        content = Content.of(log, key, ts, value)
        self._producer.produce(
            self._topics[log],
            value,
            key,
            partition_for(key, self._partitions),
            timestamp=ts,
            on_delivery=lambda error, _: self._ledger.on_delivery(content, about, error),
        )


def _reward(name: str, reward_id: str, ts: int, value: float = 1.0) -> bytes:
    fields = {
        "bandit": "b",
        "decision_id": name,
        "reward_id": reward_id,
        "name": "click",
        "value": value,
        "ts": ts,
    }
    return WIRE.dumps("reward", fields)
