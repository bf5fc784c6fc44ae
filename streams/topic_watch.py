"""Sees that topics stay what they are; one that was deleted or made anew must not be read on.

The client library says nothing of it where partitions are assigned by hand: it waits for a topic
that is gone, and goes on at the same offset of another one that has its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException, TopicCollection

from bandstand.errors import BandstandError, LogGapError, TopicError
from bandstand.kafka import admin, is_passing
from bandstand.logs import get_logger
from bandstand.settings import Settings

__all__ = ["TopicWatch"]

_log = get_logger(__name__)
_EVERY_S = 5.0
_PATIENCE_S = 30.0
_ANSWER_S = 5.0


class TopicWatch:
    """Asks for topics now and then, and compares what they are with what they were at first.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.
    topics
        Names of topics.
    lost
        Called with a topic that was deleted and made anew, or that was missing or forbidden for
        longer than a moment, and why; it isn't watched any more.
    every
        Seconds from an answer to the next question, >= 0.
    patience
        Seconds for which a topic may be missing or forbidden.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Iterable[str],
        lost: Callable[[str, BandstandError], None],
        *,
        every: float = _EVERY_S,
        patience: float = _PATIENCE_S,
    ) -> None:
        self._admin = admin(settings)
        self._topics = list(topics)
        self._lost = lost
        self._every = every
        self._patience = patience
        self._ids: dict[str, str] = {}
        self._missing: dict[str, float] = {}
        self._answers: dict[str, Future[Any]] = {}
        self._ask_at = 0.0

    @property
    def known(self) -> int:
        """How many topics have been found so far."""
        return len(self._ids)

    def look(self) -> None:
        """Take what answers there are, and ask again where it is time; never waits."""
        now = time.monotonic()
        if self._answers and all(answer.done() for answer in self._answers.values()):
            for topic, answer in self._answers.items():
                self._take(topic, answer, now)
            self._answers = {}
            self._ask_at = now + self._every
        if self._topics and not self._answers and now >= self._ask_at:
            self._answers = self._admin.describe_topics(
                TopicCollection(self._topics), request_timeout=_ANSWER_S
            )

    def _take(self, topic: str, answer: Future[Any], now: float) -> None:
        try:
            found = str(answer.result().topic_id)
        except KafkaException as error:
            if not is_passing(error.args[0]):
                self._miss(topic, error.args[0].str(), now)
            return
        self._missing.pop(topic, None)
        if self._ids.setdefault(topic, found) != found:
            why = (
                f"topic {topic!r} was deleted and made anew; the outcomes that are there belong to "
                "the old one: open a new lane"
            )
            self._give_up(topic, LogGapError(why))

    def _miss(self, topic: str, error: str, now: float) -> None:
        since = self._missing.setdefault(topic, now)
        _log.warning("a topic is missing", topic=topic, why=error, seconds=round(now - since, 1))
        if now - since >= self._patience:
            why = (
                f"topic {topic!r} can't be found for {self._patience:g} s: {error}; was it "
                "deleted, or the right to see it taken away? One that is made anew is another "
                "log: open a new lane for it"
            )
            self._give_up(topic, TopicError(why))

    def _give_up(self, topic: str, why: BandstandError) -> None:
        self._topics.remove(topic)
        self._lost(topic, why)
