"""What really lies in the topics and in the archive, counted from there alone."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow.compute as pc
from confluent_kafka import Message

from bandstand.archive.reader import download
from bandstand.kafka import TopicReader
from bandstand.schemas.columns import columns
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings

__all__ = ["LaneFigures", "OutcomeCount", "archived_rows", "dead_letters", "lane_figures"]

_READ_S = 30.0


@dataclass
class LaneFigures:
    """Counts of one lane."""

    decisions: int
    rewards: int
    outcomes: int
    joined: int
    defaulted: int


@dataclass
class OutcomeCount:
    """Follows a lane's outcomes by the rule of every reader: source offsets only grow."""

    settings: Settings
    lane: str
    wire: Wire
    states: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        topic = TopicNames(self.settings.topics.prefix).outcomes(self.lane)
        self._reader = TopicReader(self.settings, topic)
        self._largest: dict[int, int] = {}

    def poll(self) -> int:
        """Read what is new; give the number of outcomes so far."""
        while messages := self._reader.poll(0.0):
            self._count([message for message in messages if message.value() is not None])
        return self.states.total()

    @property
    def caught_up(self) -> bool:
        """Whether the topic was read to its end."""
        return self._reader.caught_up

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _count(self, messages: list[Message]) -> None:
        batch = columns("outcome", [message.value() for message in messages], self.wire)
        if batch.bad:
            raise batch.bad[0].error
        offsets = batch.table["source_offset"].to_pylist()
        states = batch.table["state"].to_pylist()
        for message, offset, state in zip(messages, offsets, states, strict=True):
            partition = int(message.partition() or 0)
            if offset > self._largest.get(partition, -1):
                self._largest[partition] = offset
                self.states[state] += 1


def lane_figures(settings: Settings, lane: str, wire: Wire) -> LaneFigures:
    """Count a lane's events from its topics: good decisions and rewards, outcomes by state."""
    names = TopicNames(settings.topics.prefix)
    outcomes = OutcomeCount(settings, lane, wire)
    while not outcomes.caught_up:
        outcomes.poll()
    outcomes.close()
    return LaneFigures(
        decisions=_good(settings, names.decisions(lane), "decision", wire),
        rewards=_good(settings, names.rewards(lane), "reward", wire),
        outcomes=outcomes.states.total(),
        joined=outcomes.states["joined"],
        defaulted=outcomes.states["defaulted"],
    )


def _good(settings: Settings, topic: str, name: str, wire: Wire) -> int:
    """Count the distinct ids among the records that are what their key says, with real values."""
    messages = [m for m in _whole(settings, topic) if m.key() != TICK_KEY]
    batch = columns(name, [message.value() for message in messages], wire)
    keys = [messages[row].key() for row in batch.rows]
    ids = batch.table["decision_id"].to_pylist()
    number = "value" if name == "reward" else "propensity"
    real = pc.is_finite(batch.table[number]).to_pylist()
    rows = zip(ids, keys, real, strict=True)
    return len({one for one, key, finite in rows if finite and key == one.encode()})


def _whole(settings: Settings, topic: str) -> Iterator[Message]:
    reader = TopicReader(settings, topic)
    try:
        yield from reader.read_to_end(_READ_S)
    finally:
        reader.close()


def dead_letters(settings: Settings, lane: str, wire: Wire) -> dict[tuple[str, int, int], str]:
    """Give the reasons of a lane's dead letters by origin; a repeated letter counts once."""
    names = TopicNames(settings.topics.prefix)
    topics = set(names.lane(lane))
    found: dict[tuple[str, int, int], str] = {}
    for message in _whole(settings, names.dead_letters):
        letter = wire.loads("dead_letter", message.value())
        if letter["topic"] in topics:
            found[letter["topic"], letter["partition"], letter["offset"]] = letter["reason"]
    return found


def archived_rows(settings: Settings, lane: str) -> int:
    """Count a lane's events in Parquet with DuckDB: good decisions, rewards, outcomes."""
    names = TopicNames(settings.topics.prefix)
    counts = {
        names.decisions(lane): "DISTINCT decision_id) FILTER (decode(_key) = decision_id",
        names.rewards(lane): "DISTINCT reward_id) FILTER (decode(_key) = decision_id"
        " AND isfinite(value)",
        names.outcomes(lane): "DISTINCT (_partition, source_offset)) FILTER (_schema IS NOT NULL",
    }
    total = 0
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        for topic, count in counts.items():
            paths = [str(path) for path in download(settings, topic, Path(folder))]
            if not paths:
                continue
            query = f"SELECT count({count}) FROM read_parquet(?, hive_partitioning = true)"  # noqa: S608 - our own words
            answer = connection.execute(query, [paths]).fetchone()
            total += answer[0] if answer else 0
    return total
