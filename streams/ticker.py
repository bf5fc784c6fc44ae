"""The join's clock: asks the broker for the time and writes it into the logs, in its own thread.

What may be written when is decided in `tick_guards`; here are the producers, the questions to the
leaders and the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from bandstand.errors import TopicError
from bandstand.kafka import admin, producer_config
from bandstand.logs import get_logger
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.settings import Settings
from bandstand.streams.join_types import TICK_HEADER
from bandstand.streams.tick_guards import GuardRules, LogClock, Reading

__all__ = ["BrokerClock", "Place", "Ticker", "now"]

_log = get_logger(__name__)
_METADATA_AGE_MS = 1_000
_DEADLINE_MS = 2_000
_POLL_S = 0.05
_GONE_S = 30.0
_GONE = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Place(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


def now() -> float:
    """Give seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


def _tick_producer(settings: Settings, **overrides: object) -> Producer:
    # Not idempotent: a tick twice does no harm, a producer that repairs its sequence delays.
    config = producer_config(
        settings,
        enable_idempotence=False,
        message_timeout_ms=_DEADLINE_MS,
        request_timeout_ms=_DEADLINE_MS,
        linger_ms=0,
        **overrides,
    )
    return Producer(config)


class BrokerClock:
    """Reads the broker's time: the append time of a record in the topic `clock`; thread-safe.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = TopicNames(settings.topics.prefix).clock
        self._producer = _tick_producer(settings)

    def read(self, within: float) -> Reading | None:
        """Ask for the time.

        Parameters
        ----------
        within
            Seconds to wait for the answer, > 0.

        Returns
        -------
        Reading or None
            None where no answer came.

        Raises
        ------
        TopicError
            If the topic doesn't carry the broker's time, or isn't there.
        """
        asked = now()
        answers: list[tuple[KafkaError | None, Message]] = []
        self._producer.produce(
            self._topic, b"", on_delivery=lambda error, message: answers.append((error, message))
        )
        while not answers and now() - asked < within:
            self._producer.poll(min(_POLL_S, within))
        if not answers:
            return None
        error, message = answers[0]
        if error is not None:
            if error.code() in _GONE:
                raise TopicError(f"topic {self._topic!r} can't be written: {error.str()}")
            return None
        kind, broker_ms = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            raise TopicError(
                f"topic {self._topic!r} doesn't carry the broker's time; run kafka-configs --alter "
                f"--topic {self._topic} --add-config message.timestamp.type=LogAppendTime"
            )
        return Reading(broker_ms, asked)


class _Ticked:
    """A log that gets ticks."""

    def __init__(self, clock: LogClock, header: bytes, busy: Callable[[], bool]) -> None:
        self.clock = clock
        self.header = header
        self.busy = busy
        self.ticked_at: float = now()
        self.reason = "due"
        self.gone_since: float | None = None


class Ticker:
    """Writes ticks into every log that is open.

    Parameters
    ----------
    settings
        The settings in force.
    clock
        Gives the broker's time.
    die
        Called with an error after which nothing may go on.
    """

    def __init__(
        self, settings: Settings, clock: BrokerClock, die: Callable[[BaseException], None]
    ) -> None:
        self._rules = GuardRules.from_settings(settings.join)
        self._clock = clock
        self._die = die
        self._producer = _tick_producer(settings)
        # After an election the client library asks with the old leader's epoch, and is refused,
        # as long as it has that in its memory.
        self._admin: AdminClient = admin(settings, metadata_max_age_ms=_METADATA_AGE_MS)
        self._logs: dict[Place, _Ticked] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._accept = threading.Event()
        self._questions: dict[Place, Future[Any]] = {}
        self._asked = 0.0
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more ticks."""
        self._stop.set()

    def open(
        self,
        place: Place,
        *,
        header: bytes,
        opened: Reading,
        last_tick: int | None,
        settled: bool,
        busy: Callable[[], bool],
    ) -> None:
        """Begin to tick a log.

        Parameters
        ----------
        place
            The log.
        header
            The lane's rules, for the tick's header.
        opened, last_tick, settled
            See `LogClock`.
        busy
            Tells whether the log had a record since its last tick or a decision waits.
        """
        clock = LogClock(self._rules, opened=opened, last_tick=last_tick, settled=settled)
        with self._lock:
            self._logs[place] = _Ticked(clock, header, busy)

    def close(self, place: Place) -> None:
        """Write no more ticks into a log."""
        with self._lock:
            self._logs.pop(place, None)

    def accept(self) -> None:
        """Trust the broker's time as it is now: an operator says that it is right."""
        self._accept.set()

    def without_tick(self, place: Place) -> tuple[float, str, bool] | None:
        """Give the seconds since a log's last tick, why there is none now, and whether it's braked.

        None where the log isn't open.
        """
        log = self._logs.get(place)
        return None if log is None else (now() - log.ticked_at, log.reason, log.clock.braked)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                began = now()
                self._round()
                self._poll_until(began + self._rules.tick)
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must not go on
            self._die(error)

    def _round(self) -> None:
        with self._lock:
            logs = dict(self._logs)
        if not logs:
            return
        reading = self._clock.read(within=_DEADLINE_MS / 1_000)
        self._hear_leaders(logs)
        if reading is not None:
            if self._accept.is_set():
                self._accept.clear()
                self._accept_time(logs, reading)
            for place, log in logs.items():
                self._maybe_tick(place, log, reading)
        self._ask_leaders(logs)

    def _accept_time(self, logs: dict[Place, _Ticked], reading: Reading) -> None:
        _log.warning("the broker's time was accepted by an operator", time_ms=reading.broker_ms)
        for log in logs.values():
            log.clock.accept(reading)

    def _maybe_tick(self, place: Place, log: _Ticked, reading: Reading) -> None:
        busy = log.busy()
        braked = log.clock.braked
        verdict = log.clock.decide(reading, now=now(), busy=busy)
        if verdict.reason != log.reason and verdict.reason == "settle":
            _log.warning("leader was silent; no ticks until it settles", place=place)
        log.reason = verdict.reason
        if log.clock.braked and not braked:
            _log.error(
                "the broker's clock ran ahead of this worker's; no ticks until an operator "
                "confirms it (POST /clock/accept) or the brake's time is over",
                place=place,
                broker_ms=reading.broker_ms,
            )
        if verdict.tick:
            self._tick(place, log, reading)

    def _tick(self, place: Place, log: _Ticked, reading: Reading) -> None:
        log.clock.sent(reading)
        self._producer.produce(
            place.topic,
            None,
            TICK_KEY,
            place.partition,
            timestamp=reading.broker_ms,
            headers=[(TICK_HEADER, log.header)],
            on_delivery=partial(self._ticked, log, reading.at),
        )

    def _ticked(self, log: _Ticked, at: float, error: KafkaError | None, message: Message) -> None:
        if error is None:
            log.clock.delivered()
            log.ticked_at = at
            log.gone_since = None
            return
        log.clock.failed()
        where = f"{message.topic()}/{message.partition()}"
        _log.warning("a tick was not written", place=where, error=error.str())
        if error.code() in _GONE:
            self._note_gone(log, where, error)

    def _note_gone(self, log: _Ticked, where: str, error: KafkaError) -> None:
        # A broker that has just started may deny topics that it has.
        log.gone_since = log.gone_since or now()
        if now() - log.gone_since > _GONE_S:
            raise TopicError(
                f"{where} can't be written any more: {error.str()}; was the topic deleted, or the "
                "right to write taken away?"
            )

    def _poll_until(self, end: float) -> None:
        while not self._stop.is_set():
            left = end - now()
            self._producer.poll(max(min(left, _POLL_S), 0))
            if left <= 0:
                return

    def _ask_leaders(self, logs: dict[Place, _Ticked]) -> None:
        if self._questions or now() - self._asked < self._rules.pause / 5:
            return
        silent = [place for place, log in logs.items() if log.reason != "due"]
        if not silent:
            return
        self._asked = now()
        end: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        futures = self._admin.list_offsets(
            {TopicPartition(*place): end for place in silent},
            request_timeout=_DEADLINE_MS / 1_000,
        )
        self._questions = {Place(tp.topic, tp.partition): f for tp, f in futures.items()}

    def _hear_leaders(self, logs: dict[Place, _Ticked]) -> None:
        answered, _ = wait(self._questions.values(), timeout=0)
        for place, future in list(self._questions.items()):
            if future in answered:
                del self._questions[place]
                if place in logs and _is_answer(future):
                    logs[place].clock.answered(asked=self._asked, now=now())


def _is_answer(future: Future[Any]) -> bool:
    # A question that ran out of time comes back without an error, and with no offset either.
    return future.exception() is None and future.result().offset >= 0
