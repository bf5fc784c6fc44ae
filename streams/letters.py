"""Dead letters read back from their topic, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from confluent_kafka import Message

from bandstand.errors import BandstandError, EventError
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams.letter_types import REDRIVEN, Letter, parse_origin
from bandstand.streams.scan import OnProgress, scan, silent

__all__ = ["LetterReader"]


class LetterReader:
    """Reads the dead letters of a pipeline.

    Parameters
    ----------
    settings
        Where the broker is, and the topics' prefix.
    on_progress
        Told how far the reading has come.
    """

    def __init__(self, settings: Settings, on_progress: OnProgress = silent) -> None:
        self.topic = TopicNames(settings.topics.prefix).dead_letters
        self.wire = wire_from(settings)
        self.unreadable = 0
        """Records of the topic that are no letters."""
        self._settings = settings
        self._on_progress = on_progress

    def read(self) -> Iterator[list[Letter]]:
        """Give all letters and marks that are there now, in batches, in their order.

        Raises
        ------
        TopicError
            If the topic isn't there.
        BrokerError
            If it can't be read.
        """
        for messages in scan(self._settings, self.topic, on_progress=self._on_progress):
            yield list(self._letters(messages))

    def find(self, origin: str) -> tuple[list[Letter], Letter | None]:
        """Give the letters of one record, and the mark that it was redriven.

        Parameters
        ----------
        origin
            ``topic/partition/offset``.

        Raises
        ------
        BandstandError
            If there is none, or this is no origin.
        """
        key = origin.encode()
        parse_origin(origin)
        letters: list[Letter] = []
        for messages in scan(self._settings, self.topic, on_progress=self._on_progress):
            letters += self._letters(message for message in messages if message.key() == key)
        found = [letter for letter in letters if not letter.is_mark]
        if not found:
            raise BandstandError(
                f"no dead letter of {origin} in topic {self.topic!r}; "
                "'bandstand dead-letters list' tells which topics have some"
            )
        return found, next((mark for mark in letters if mark.reason == REDRIVEN), None)

    def _letters(self, messages: Iterable[Message]) -> Iterator[Letter]:
        for message in messages:
            try:
                fields = self.wire.loads("dead_letter", message.value())
            except EventError:
                self.unreadable += 1
            else:
                yield Letter(message.timestamp()[1], **fields)
