"""Sees that no client of this process stays without a broker beside a broker that answers.

A client of librdkafka that is told of no brokers while its connection closes stays disconnected for
good (its issue #5301; 2.16.0 has it). Nothing mends it but a new client, so its role ends, and goes
on where it stopped when its supervisor has started it again.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from bandstand.clients import Client, all_clients, disconnected
from bandstand.errors import BrokerError
from bandstand.logs import get_logger
from bandstand.probe import Probe
from bandstand.settings import Settings

__all__ = ["MARK", "Watchdog", "patience"]

MARK = "librdkafka issue #5301"
"""In the error of a client that is stuck."""

_log = get_logger(__name__)
_LOOK_S = 1.0
_WITNESS_S = 1.0
_CLIENT_S = 2.0
"""Longer than the other: where a broker is slow, the witness is the first to be without answer."""
_ROUND_S = 2 * (_LOOK_S + _WITNESS_S + _CLIENT_S)
"""What a round may take; more than that and this process or its machine stood still."""
_NEW_WITNESS_AFTER = 10
_BACKOFF_MS = 10_000
"""The client library's own longest time between two tries to connect."""
_LEAST_S = 30.0
"""A client that isn't stuck may need several tries on a busy machine, whatever the settings say."""


def patience(settings: Settings) -> float:
    """Give for how many seconds a client may be without answer beside one that is answered.

    Three times what a healthy one may take: it may wait for its next try to connect, and the join
    takes ``pause`` and ``settle`` to find its feet. Half a minute at least.

    Examples
    --------
    >>> patience(Settings())
    60.0
    """
    backoff = int((settings.kafka.model_extra or {}).get("reconnect_backoff_max_ms", _BACKOFF_MS))
    join = settings.join
    longest = max((join.pause + join.settle).total_seconds(), backoff / 1_000)
    return max(3 * longest, _LEAST_S)


class Watchdog:
    """Looks after all clients of this process, in a thread of its own.

    Where one has said that all its brokers are down, each is asked until it was answered once; but
    only while a witness, a fresh client made from the same settings, is answered.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    stuck
        Called with the error when a client won't be answered any more.
    """

    def __init__(self, settings: Settings, stuck: Callable[[BrokerError], None]) -> None:
        self._settings = settings
        self._stuck = stuck
        self._patience = patience(settings)
        self._suspects: list[weakref.ref[Client]] = []
        self._witness: Probe | None = None
        self._unanswered = 0
        """Rounds in which the witness had no answer."""
        self._first: weakref.ref[Client] | None = None
        self._silent = 0.0
        """Seconds for which the first suspect had no answer, while the witness had."""
        self._last_round = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; doesn't wait for a question under way."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            if disconnected.is_set():
                disconnected.clear()
                known = set(self._suspects)
                self._suspects += [client for client in all_clients() if client not in known]
            if self._suspects:
                self._round()

    def _round(self) -> None:
        now = time.monotonic()
        passed, self._last_round = now - self._last_round, now
        if not self._kafka_answers() or passed > _ROUND_S:
            self._silent = 0.0
            return
        while self._suspects and not self._stop.is_set():
            first = self._suspects[0]
            client = first()
            if client is not None and not client.answered(_CLIENT_S):
                self._mind(first, type(client).__name__, passed)
                return
            self._suspects.pop(0)
        self._witness = None

    def _kafka_answers(self) -> bool:
        if self._witness is None or self._unanswered >= _NEW_WITNESS_AFTER:
            self._witness, self._unanswered = Probe(self._settings), 0  # it may be stuck itself
        try:
            answered = self._witness.ask(_WITNESS_S)
        except BrokerError:
            answered = False
        self._unanswered = 0 if answered else self._unanswered + 1
        return answered

    def _mind(self, first: weakref.ref[Client], kind: str, passed: float) -> None:
        self._silent = self._silent + passed if first is self._first else 0.0
        if first is not self._first:
            self._first = first
            _log.warning("a client has no broker, beside one that is answered", client=kind)
        if self._silent <= self._patience:
            return
        self._witness = None
        if self._kafka_answers() and not self._stop.is_set():
            self._stuck(
                BrokerError(
                    f"a client ({kind}) has had no answer from Kafka for {self._silent:.0f} s, "
                    "while a fresh one made from the same settings has: it won't find its brokers "
                    f"any more ({MARK}); nothing is lost: start this role again"
                )
            )
