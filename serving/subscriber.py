"""Follows the snapshots topic in the background, and keeps one reference to what is current."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from confluent_kafka import Message

from bandstand.errors import BandstandError, BrokerError
from bandstand.kafka import TopicReader
from bandstand.logs import get_logger
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.serving.encoding import Layouts
from bandstand.serving.metrics import SNAPSHOT_AGE, SWAPS
from bandstand.serving.models import Model, load_model
from bandstand.serving.pointers import Artifact, Entry, Move, Pointers
from bandstand.settings import Settings

__all__ = ["Subscriber"]

_log = get_logger(__name__)
_POLL_S: Final = 0.2
_ANSWER_S: Final = 2.0
_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 5.0
_LONGEST_SILENCE_S: Final = 15.0


class Subscriber:
    """Keeps the current model of every bandit.

    Parameters
    ----------
    settings
        Where the broker is; how long without its answer is stale.
    wire
        Reads the records.
    models
        What to begin with, by bandit: the bootstrap snapshots.
    layouts
        Where encoders keep their layouts.
    now
        Gives the time, seconds since 1970, UTC; for the age in metrics.
    """

    def __init__(
        self,
        settings: Settings,
        wire: Wire,
        models: Mapping[str, Model],
        layouts: Layouts,
        now: Callable[[], float],
    ) -> None:
        self.models: Mapping[str, Model] = dict(models)
        """The current models; replaced as a whole, so that one read of it is one state."""
        self.live_until = -1.0
        """Until when, by the monotonic clock, the models count as live without another answer."""
        self._settings = settings
        self._wire = wire
        self._layouts = layouts
        self._now = now
        self._pointers = Pointers(wire)
        self._moves: dict[str, Move] = {}
        self._stale_after = settings.serve.stale_after / timedelta(seconds=1)
        self.trouble = "the snapshots topic hasn't been read yet"
        """Why the models may not be the newest; empty while they are."""
        self._ask_at = 0.0
        self._pause = _FIRST_RETRY_S
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bandstand-snapshots", daemon=True)
        self._thread.start()

    def wait(self, bandit: str, timeout: float) -> bool:
        """Wait until the topic was read to its end, and a bandit's snapshot taken into use.

        Gives whether that happened in time.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._has_live(bandit), timeout)

    def artifact(self, bandit: str) -> Artifact | None:
        """Give the bytes of the snapshot that a bandit's pointer names."""
        return self._pointers.artifact(bandit)

    def close(self, timeout: float) -> None:
        """Stop following; the models stay."""
        self._stop.set()
        self._thread.join(timeout)

    def _has_live(self, bandit: str) -> bool:
        model = self.models.get(bandit)
        return self.live_until >= 0.0 and model is not None and model.step == "live"

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - the service goes on deciding, and this thread tries again
                self._lose(error)
                self._stop.wait(self._pause)
                self._pause = min(2 * self._pause, _LONGEST_RETRY_S)

    def _lose(self, error: Exception) -> None:
        """Say what is in the way, once for each reason."""
        before, self.trouble = self.trouble, str(error) or repr(error)
        if self.trouble != before:
            _log.warning(
                "snapshots can't be followed, trying again",
                why=self.trouble,
                exc_info=None if isinstance(error, BandstandError) else error,
            )

    def _follow(self) -> None:
        topic = TopicNames(self._settings.topics.prefix).snapshots
        reader = TopicReader(self._settings, topic)
        reached = False
        try:
            while not self._stop.is_set():
                messages = reader.poll(_POLL_S)
                self._take(messages)
                if reader.caught_up or not messages:
                    self._load()
                if reader.caught_up:
                    self._hear(reader, heard=bool(messages) or not reached)
                    reached = True
                self._show_ages()
        finally:
            reader.close()

    def _hear(self, reader: TopicReader, *, heard: bool) -> None:
        """Note that the broker is there: it sent something, or it answers when asked."""
        now = time.monotonic()
        if not heard and now < self._ask_at:
            return
        self._ask_at = now + min(self._stale_after / 4, _LONGEST_SILENCE_S)
        if not heard:
            try:
                reader.ping(_ANSWER_S)
            except BandstandError as error:
                self._lose(error)
                return
        self._pause = _FIRST_RETRY_S
        with self._changed:
            self.live_until = now + self._stale_after
            self._changed.notify_all()
        if self.trouble:
            _log.info("snapshots are followed", topic=reader.topic)
        self.trouble = ""

    def _take(self, messages: Iterable[Message]) -> None:
        """Collect the moves, only the last of each bandit: those between needn't be loaded.

        Where the schema registry can't be asked, the topic is read again: no record's fault.
        """
        for message in messages:
            try:
                move = self._pointers.take(_entry(message))
            except BrokerError:
                raise
            except BandstandError as error:
                self._outdate((message.key() or b"").decode(errors="replace"), str(error))
            else:
                if move is not None:
                    self._moves[move.bandit] = move

    def _load(self) -> None:
        while self._moves:
            bandit, move = self._moves.popitem()
            try:
                model = load_model(
                    self._wire.loads("snapshot", move.artifact.value),
                    published=move.artifact.timestamp / 1000,
                    step="live",
                    layouts=self._layouts,
                )
            except BrokerError:
                self._moves[bandit] = move
                raise
            except Exception as error:  # noqa: BLE001 - a snapshot of another version may break anywhere
                self._outdate(bandit, f"snapshot {move.version} can't be used: {error!r}")
            else:
                SWAPS.labels(bandit).inc()
                self._put(model)
                _log.debug("snapshot taken into use", bandit=bandit, version=move.version)

    def _outdate(self, bandit: str, why: str) -> None:
        """Go on with the snapshot before, and say so in every answer."""
        _log.error("current snapshot not in use", bandit=bandit, why=why)
        model = self.models.get(bandit)
        if model is not None and model.step == "live":
            self._put(replace(model, step="last_good"))

    def _put(self, model: Model) -> None:
        with self._changed:
            self.models = {**self.models, model.bandit: model}
            self._changed.notify_all()

    def _show_ages(self) -> None:
        for bandit, model in self.models.items():
            if model.published is not None:
                SNAPSHOT_AGE.labels(bandit).set(max(0.0, self._now() - model.published))


def _entry(message: Message) -> Entry:
    offset = message.offset()
    assert offset is not None
    return Entry(offset, message.timestamp()[1], message.key() or b"", message.value())
