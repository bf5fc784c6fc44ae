"""The join's clock: asks the broker for the time and writes it into the logs, in its own thread.

What may be written when is decided in `tick_guards`; here are the producers and the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    Message,
)

from bandstand.clients import Producer
from bandstand.errors import BandstandError, TopicError
from bandstand.kafka import producer_config
from bandstand.logs import get_logger
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.settings import Settings
from bandstand.streams.join_types import TICK_HEADER
from bandstand.streams.leaders import GONE, RECONNECT_MS, Leaders, Place
from bandstand.streams.tick_guards import Brake, GuardRules, Heard, LogClock, Reading

__all__ = ["BrokerClock", "TickState", "Ticker", "now"]

_log = get_logger(__name__)
_POLL_S = 0.05
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Give seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


def _tick_producer(settings: Settings, rules: GuardRules) -> Producer:
    # Not idempotent: a tick twice does no harm, a producer that repairs its sequence delays.
    # No retries: each try needs a fresh time, and its error tells why.
    deadline_ms = round(rules.deadline * 1_000)
    config = producer_config(
        settings,
        enable_idempotence=False,
        message_timeout_ms=deadline_ms,
        request_timeout_ms=deadline_ms,
        reconnect_backoff_max_ms=RECONNECT_MS,
        linger_ms=0,
        retries=0,
    )
    return Producer(config)


def _produce(
    producer: Producer,
    answer: Callable[[KafkaError | None, Message | None], None],
    **record: Any,
) -> None:
    """Send a record; whatever becomes of it, at once or later, the answer says it."""
    try:
        producer.produce(**record, on_delivery=answer)
    except KafkaException as error:
        answer(error.args[0], None)


class BrokerClock:
    """Reads the broker's time: the append time of a record in the topic `clock`; thread-safe.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = TopicNames(settings.topics.prefix).clock
        rules = GuardRules.from_settings(settings.join)
        self._producer = _tick_producer(settings, rules)
        self._patience = rules.gone
        self._gone_since: float | None = None

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
        answers: list[tuple[KafkaError | None, Message | None]] = []
        _produce(self._producer, lambda *answer: answers.append(answer), topic=self._topic)
        while not answers and now() - asked < within:
            self._producer.poll(min(_POLL_S, within))
        if not answers:
            return None
        error, message = answers[0]
        if error is not None or message is None:
            self._note_gone(error)
            return None
        self._gone_since = None
        kind, broker_ms = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            raise TopicError(
                f"topic {self._topic!r} doesn't carry the broker's time; run kafka-configs --alter "
                f"--topic {self._topic} --add-config message.timestamp.type=LogAppendTime"
            )
        return Reading(broker_ms, asked)

    def _note_gone(self, error: KafkaError | None) -> None:
        # A broker that has just started may deny topics that it has.
        if error is None or error.code() not in GONE:
            return
        self._gone_since = self._gone_since or now()
        if now() - self._gone_since > self._patience:
            raise TopicError(
                f"topic {self._topic!r} can't be written: {error.str()}; run 'bandstand topics "
                "check', and look whether this user may write there"
            )


class TickState(NamedTuple):
    """How it stands with the ticks of a log.

    Parameters
    ----------
    without
        Seconds since the last one that this worker wrote.
    reason
        Why none is written now.
    braked
        Whether the broker's clock is held to be wrong.
    time, end
        Of the last tick: its time, and the log's end behind it; None before the first.
    """

    without: float
    reason: str
    braked: bool
    time: int | None
    end: int | None


class _Ticked:
    """A log that gets ticks."""

    def __init__(self, clock: LogClock, header: bytes, busy: Callable[[], bool]) -> None:
        self.clock = clock
        self.header = header
        self.busy = busy
        self.ticked_at: float = now()
        self.reason = "due"
        self.gone_since: float | None = None
        self.written: tuple[int, int] | tuple[None, None] = (None, None)


class Ticker:
    """Writes ticks into every log that is open.

    Parameters
    ----------
    settings
        The settings in force.
    clock
        Gives the broker's time.
    watched
        All logs that may be opened one day: their leaders are asked all the while.
    lost
        Called with a log that can't be written any more, and why; from the ticker's thread.
    die
        Called with an error after which nothing may go on.
    """

    def __init__(
        self,
        settings: Settings,
        clock: BrokerClock,
        *,
        watched: Iterable[Place],
        lost: Callable[[Place, BandstandError], None],
        die: Callable[[BaseException], None],
    ) -> None:
        self._rules = GuardRules.from_settings(settings.join)
        self._clock = clock
        self._lost = lost
        self._die = die
        self._producer = _tick_producer(settings, self._rules)
        self._leaders = Leaders(settings, timeout=self._rules.deadline)
        self._brake = Brake(self._rules)
        self._logs: dict[Place, _Ticked] = {}
        self._heard = {place: Heard(self._rules) for place in watched}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._accept = threading.Event()
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
        opened: float,
        ticked: float | None,
        busy: Callable[[], bool],
    ) -> None:
        """Begin to tick a log.

        Parameters
        ----------
        place
            The log.
        header
            The lane's rules, for the tick's header.
        opened
            When it was taken over; seconds of the monotonic clock.
        ticked
            When it had its last tick; None where it never had one, minus infinity where that was
            too long ago to be found.
        busy
            Tells whether the log had a record since its last tick or a decision waits.
        """
        known: float | None = opened
        if ticked is not None:
            known = self._heard[place].known(ticked=min(ticked, opened), now=opened)
        clock = LogClock(self._rules, known=known)
        with self._lock:
            self._logs[place] = _Ticked(clock, header, busy)

    def close(self, place: Place) -> None:
        """Write no more ticks into a log."""
        with self._lock:
            self._logs.pop(place, None)

    def forget(self, place: Place) -> None:
        """Ask no more for a log that won't be opened again."""
        self.close(place)
        with self._lock:
            self._heard.pop(place, None)

    def accept(self) -> None:
        """Trust the broker's time as it is now: an operator says that it is right."""
        self._accept.set()

    def state(self, place: Place) -> TickState | None:
        """Tell how it stands with a log's ticks; None where the log isn't open."""
        log = self._logs.get(place)
        if log is None:
            return None
        return TickState(now() - log.ticked_at, log.reason, self._brake.engaged, *log.written)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                began = now()
                self._round()
                self._poll_until(began + self._rules.tick)
            self._leaders.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must not go on
            self._die(error)

    def _round(self) -> None:
        with self._lock:
            logs, watched = dict(self._logs), list(self._heard)
        # Also where no log is open: the brake must know the time before one is.
        reading = self._clock.read(within=self._rules.deadline)
        self._hear_leaders(logs)
        if reading is None:
            for log in logs.values():
                log.reason = "no_time"
        else:
            braked = self._is_braked(reading)
            if not logs and not braked:
                self._brake.trust(reading)
            for place, log in logs.items():
                self._maybe_tick(place, log, reading, braked=braked)
        self._ask_leaders(watched)

    def _is_braked(self, reading: Reading) -> bool:
        if self._accept.is_set():
            self._accept.clear()
            _log.warning("the broker's time was accepted by an operator", time_ms=reading.broker_ms)
            self._brake.accept(reading)
        engaged = self._brake.engaged
        if self._brake.holds(reading) and not engaged:
            _log.error(
                "the broker's clock ran ahead of this worker's; no ticks until an operator "
                "confirms it (POST /clock/accept) or the brake's time is over",
                broker_ms=reading.broker_ms,
            )
        return self._brake.engaged

    def _maybe_tick(self, place: Place, log: _Ticked, reading: Reading, *, braked: bool) -> None:
        verdict = log.clock.decide(reading, now=now(), busy=log.busy(), braked=braked)
        if verdict.reason != log.reason and verdict.reason == "settle":
            _log.warning("the log can't be written; no ticks until it settles", place=place)
        log.reason = verdict.reason
        if verdict.tick:
            self._tick(place, log, reading)

    def _tick(self, place: Place, log: _Ticked, reading: Reading) -> None:
        log.clock.sent(reading)
        _produce(
            self._producer,
            partial(self._ticked, place, log, reading),
            topic=place.topic,
            key=TICK_KEY,
            partition=place.partition,
            timestamp=reading.broker_ms,
            headers=[(TICK_HEADER, log.header)],
        )

    def _ticked(
        self,
        place: Place,
        log: _Ticked,
        reading: Reading,
        error: KafkaError | None,
        record: Message | None,
    ) -> None:
        if error is None:
            offset = None if record is None else record.offset()
            if offset is not None:
                log.written = reading.broker_ms, offset + 1
            self._brake.trust(reading)
            log.clock.delivered()
            log.ticked_at = reading.at
            log.gone_since = None
            return
        log.clock.failed()
        _log.warning("a tick was not written", place=place, error=error.str())
        if error.code() in GONE:
            self._note_gone(place, log, error)

    def _note_gone(self, place: Place, log: _Ticked, error: KafkaError) -> None:
        # A broker that has just started may deny topics that it has.
        log.gone_since = log.gone_since or now()
        if now() - log.gone_since > self._rules.gone:
            why = TopicError(
                f"topic {place.topic!r}, partition {place.partition}, can't be written any more: "
                f"{error.str()}; was the topic deleted, or the right to use it taken away? Give "
                "the right back; what was deleted is lost, and needs a new lane"
            )
            self._lost(place, why)

    def _poll_until(self, end: float) -> None:
        while not self._stop.is_set():
            left = end - now()
            self._producer.poll(max(min(left, _POLL_S), 0))
            if left <= 0:
                return

    def _ask_leaders(self, watched: list[Place]) -> None:
        if self._leaders.asked or now() - self._asked < self._rules.pause / 5:
            return
        if watched:
            self._asked = now()
            self._leaders.ask(watched)

    def _hear_leaders(self, logs: dict[Place, _Ticked]) -> None:
        answer = self._leaders.hear()
        if answer is None:
            return
        for place in answer.writable:
            if place in self._heard:
                self._heard[place].answered(asked=self._asked, now=now())
            if place in logs:
                logs[place].clock.answered(asked=self._asked, now=now())
        for place in answer.gone.keys() & logs.keys():
            self._note_gone(place, logs[place], answer.gone[place])
