"""The specs in force: how they are set, and how every role follows them.

The topic ``specs`` holds the newest spec of each bandit. The offset of its record is the bandit's
epoch: all that is learned and published says which epoch it belongs to.

All who write there share one transactional name: each fences off the others, reads to the end, and
writes only if it still has the name. So nobody takes the place of a spec that it hasn't read.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache
from typing import Self

from confluent_kafka import Message

from bandstand.errors import BrokerError, EventError, SpecError
from bandstand.kafka import TopicReader, end_offsets
from bandstand.learners.evidence import Evidence
from bandstand.logs import get_logger
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams.dead_letters import DeadLetters, origin_of
from bandstand.streams.in_force import InForce, SpecChange, Start, Wanted
from bandstand.streams.spec_records import read_spec_record, spec_record
from bandstand.streams.transactions import Transactions

__all__ = [
    "InForce",
    "SpecChange",
    "SpecFollower",
    "Wanted",
    "apply",
    "apply_spec",
    "specs_in_force",
]

_log = get_logger(__name__)
_READ_S = 30.0
_TRY_S = 30.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.2
"""Before another try: longer each time, lest many fence each other off for ever."""


def apply_spec(
    settings: Settings,
    spec: Spec,
    author: str = "",
    reason: str = "",
    evidence: Evidence | None = None,
    instead_of: int | None = None,
    *,
    retained: bool = False,
) -> int:
    """Put one spec in force for all roles; gives the bandit's epoch.

    See `apply`, which does so for many at once, and `Wanted`.
    """
    with SpecFollower(settings, role="apply") as specs:
        wanted = Wanted(spec, reason, evidence, instead_of, retained)
        return apply(settings, specs, [wanted], author)[0]


def apply(
    settings: Settings, specs: SpecFollower, wanted: Sequence[Wanted], author: str = ""
) -> list[int]:
    """Put specs in force for all roles, all or none; no record is written where one is already.

    Parameters
    ----------
    settings
        The settings in force.
    specs
        Reads what is in force. What changes is told by its next `SpecFollower.poll`.
    wanted
        What is wanted, at most one spec a bandit.
    author
        Who does it; kept with the records.

    Returns
    -------
    list of int
        The bandits' epochs; -1 where none is in force and `Wanted.instead_of` asks for one.

    Raises
    ------
    SettingsError
        If a spec's lane isn't set up.
    SpecError
        If a record would be too large, or two specs are of one bandit.
    BrokerError
        If Kafka refuses or can't be reached, or others apply specs without a pause.
    """
    count = Counter(one.spec.bandit for one in wanted)
    if twice := [repr(bandit) for bandit, number in count.items() if number > 1]:
        raise SpecError(f"several specs of {', '.join(twice)}; give one a bandit")
    for one in wanted:
        settings.lane(one.spec.lane)
    specs.look()
    written: dict[str, int] = {}
    deadline, pause = time.monotonic() + _TRY_S, _PAUSE_S
    while not written and any(one.is_due(specs.current) for one in wanted):
        try:
            written = _write(settings, specs, wanted, author)
        except BrokerError as error:
            if not error.passing:
                raise
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"applying specs, for {_TRY_S:g} s: {error}; try again", passing=True
                ) from error
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            specs.look()  # shows what was written, if it was
    epochs = {bandit: in_force.epoch for bandit, in_force in specs.current.items()} | written
    return [epochs.get(one.spec.bandit, -1) for one in wanted]


def _write(
    settings: Settings, specs: SpecFollower, wanted: Iterable[Wanted], author: str
) -> dict[str, int]:
    """Fence off others, and write what is due by all that they have written; gives the offsets."""
    names, wire = TopicNames(settings.topics.prefix), wire_from(settings)

    @cache
    def ends(lane: str) -> tuple[Start, ...]:
        partitions = range(settings.lane(lane).partitions)
        outcomes = end_offsets(settings, names.outcomes(lane), partitions)
        decisions = end_offsets(settings, names.decisions(lane), partitions)
        return tuple(Start(outcomes[p], decisions[p]) for p in partitions)

    with closing(Transactions(settings, names.specs, names.specs)) as producer:
        producer.open()
        specs.look()
        ts = time.time_ns() // 1_000_000
        records = [
            (
                0,
                one.spec.bandit.encode(),
                spec_record(one.after(specs.current, ends), ts, author, one.reason, wire),
            )
            for one in wanted
            if one.is_due(specs.current)
        ]
        offsets = producer.write(records) if records else {}
    return {key.decode(): offset for key, offset in offsets.items()}


def specs_in_force(settings: Settings) -> dict[str, InForce]:
    """Read the specs once.

    Raises
    ------
    BrokerError
        If Kafka refuses or can't be reached.
    """
    with SpecFollower(settings, role="apply") as follower:
        follower.catch_up()
        return dict(follower.current)


class SpecFollower:
    """Follows ``specs`` from its start, without a consumer group.

    A record that can't be read goes to ``dead-letters``; what was in force before stays in force.

    Parameters
    ----------
    settings
        The settings in force.
    role
        Name of the role that follows, for dead letters.

    Raises
    ------
    TopicError
        If the topic isn't there.
    """

    def __init__(self, settings: Settings, role: str = "specs") -> None:
        self.current: dict[str, InForce] = {}
        """What is in force, by bandit."""
        self.unreadable: set[int] = set()
        """Offsets of records that were refused: epochs that a newer version may know."""
        self._changes: list[SpecChange] = []
        self._wire = wire_from(settings)
        self._letters = DeadLetters(settings, role, self._wire)
        self._reader = TopicReader(settings, TopicNames(settings.topics.prefix).specs)

    def poll(self, timeout: float = 0.0) -> list[SpecChange]:
        """Give what has changed since the last call, oldest first.

        Parameters
        ----------
        timeout
            Seconds to wait for a first record, >= 0.
        """
        self._take(self._reader.poll(timeout))
        return self._told()

    def catch_up(self, timeout: float = _READ_S) -> list[SpecChange]:
        """Read up to the end that the topic has now; gives what has changed.

        Parameters
        ----------
        timeout
            Seconds within which the end must be reached, > 0.

        Raises
        ------
        BrokerError
            If it isn't.
        """
        self.look(timeout)
        return self._told()

    def look(self, timeout: float = _READ_S) -> None:
        """Read up to the end as `catch_up` does; what has changed is told by the next call."""
        self._take(self._reader.read_to_end(timeout))

    def close(self) -> None:
        """Stop following."""
        self._reader.close()
        self._letters.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _told(self) -> list[SpecChange]:
        changes, self._changes = self._changes, []
        return changes

    def _take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            try:
                change = self._change(message)
            except EventError as error:
                _log.warning("spec refused", offset=message.offset(), problem=str(error))
                self._letters.send(origin_of(message), error.reason, error.detail)
                self.unreadable.add(message.offset() or 0)
                continue
            self._note(change)
            self._changes.append(change)

    def _change(self, message: Message) -> SpecChange:
        origin = origin_of(message)
        bandit, now = read_spec_record(origin.key, origin.value, origin.offset, self._wire)
        return SpecChange(bandit, now, self.current.get(bandit))

    def _note(self, change: SpecChange) -> None:
        if change.now is None:
            self.current.pop(change.bandit, None)
        else:
            self.current[change.bandit] = change.now
        _log.debug(
            "spec changes",
            bandit=change.bandit,
            epoch=change.now.epoch if change.now else None,
            spec_hash=change.now.spec.hash[:16] if change.now else None,
        )
