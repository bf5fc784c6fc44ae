"""The dead letters tried again with today's code, and published where that takes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams.join_types import Log, Rules
from bandstand.streams.letter_types import Letter, bandit_of, event_names
from bandstand.streams.letters import LetterReader
from bandstand.streams.offset_set import OffsetSet
from bandstand.streams.redrive_core import LogNow, Verdict, judge, refuse
from bandstand.streams.redrive_marks import OncePublisher, read_marks
from bandstand.streams.scan import OnProgress, silent
from bandstand.streams.tail import LogEnds

__all__ = ["Redriven", "redrive"]

_LOOK_AGAIN_MS = 10_000
_LOGS: tuple[Log, Log] = ("decisions", "rewards")

Wanted = Callable[[Letter], Letter | None]
"""Gives a letter as it is to be tried, repaired or as it is; None: leave it alone."""


class Redriven(NamedTuple):
    """What a redrive came to.

    Parameters
    ----------
    published
        Records that were published now.
    before
        Wanted letters whose records had been published before.
    """

    published: int
    before: int


def redrive(
    settings: Settings,
    wanted: Wanted,
    tell: Callable[[Verdict], None],
    *,
    dry_run: bool = False,
    on_progress: OnProgress = silent,
) -> Redriven:
    """Try the letters that are wanted, and publish the records of those that are readable now.

    Parameters
    ----------
    settings
        The settings in force.
    wanted
        Which letters, and repaired how.
    tell
        Gets the verdict on each letter that wasn't redriven before; on a readable one before its
        record is published.
    dry_run
        Publish nothing.
    on_progress
        Told how far each reading has come.

    Raises
    ------
    FencedError
        If another redrive has begun; it does what is left.
    BrokerError
        If Kafka refuses or can't be reached. Run it again: what was published is found.
    """
    if dry_run:
        done = read_marks(settings, on_progress).done
        return _try_all(settings, wanted, done, tell, _leave, on_progress)
    with closing(OncePublisher(settings, on_progress)) as publisher:
        names, wire = event_names(settings), wire_from(settings)

        def publish(letter: Letter) -> None:
            publisher.add(letter, bandit_of(letter, names, wire))

        result = _try_all(settings, wanted, publisher.done, tell, publish, on_progress)
        publisher.flush()
        return result


def _try_all(
    settings: Settings,
    wanted: Wanted,
    done: OffsetSet,
    tell: Callable[[Verdict], None],
    publish: Callable[[Letter], None],
    on_progress: OnProgress,
) -> Redriven:
    published, before, tried = 0, 0, OffsetSet()
    with closing(_Judge(settings)) as judges:
        for letters in LetterReader(settings, on_progress).read():
            chosen = [one for one in map(wanted, letters) if one is not None and not one.is_mark]
            fresh = [one for one in chosen if tried.add(*one.place)]
            left = [one for one in fresh if one.place not in done]
            before += len(fresh) - len(left)
            for verdict in judges.verdicts(left):
                tell(verdict)
                if verdict.word == "readable":
                    published += 1
                    publish(verdict.letter)
    return Redriven(published, before)


def _leave(letter: Letter) -> None:
    """Publish nothing."""
    del letter


class _Judge:
    """Knows the lanes' logs as they were a few seconds ago."""

    def __init__(self, settings: Settings) -> None:
        names = TopicNames(settings.topics.prefix)
        self._wire = wire_from(settings)
        self._looks = LogEnds(settings)
        self._lanes = {
            topic: (log, Rules.from_settings(lane))
            for name, lane in settings.lanes.items()
            for log, topic in zip(_LOGS, names.lane(name)[:2], strict=True)
        }
        self._logs: dict[str, LogNow] = {}

    def verdicts(self, letters: Iterable[Letter]) -> Iterator[Verdict]:
        """Judge letters about any topics."""
        by_topic: dict[str, list[Letter]] = {}
        for letter in letters:
            ours = letter.role == "join" and letter.topic in self._lanes
            by_topic.setdefault(letter.topic if ours else "", []).append(letter)
        yield from refuse(by_topic.pop("", []))
        for topic, own in by_topic.items():
            yield from judge(own, self._log(topic), self._wire)

    def close(self) -> None:
        self._looks.close()

    def _log(self, topic: str) -> LogNow:
        now = int(time.time() * 1_000)
        if topic not in self._logs or now - self._logs[topic].now > _LOOK_AGAIN_MS:
            log, rules = self._lanes[topic]
            partitions = range(self._looks.partition_count(topic))
            watermarks = [self._looks.newest_tick(topic, p) for p in partitions]
            self._logs[topic] = LogNow(log, rules, watermarks, now)
        return self._logs[topic]
