"""How every topic must be set up so that nothing is lost, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bandstand.durations import format_duration, milliseconds
from bandstand.errors import SettingsError
from bandstand.schemas.topics import TopicNames
from bandstand.settings import LaneSettings, Settings

__all__ = ["FRAME_BYTES", "TABLE_RECORD_BYTES", "Rule", "TopicPlan", "plan"]

_FOREVER_MS = 2**63 - 1
_RECORD_BYTES = 1_048_588
TABLE_RECORD_BYTES: Final = 2 * _RECORD_BYTES
"""Largest record of specs, learner-state and snapshots, its frame included."""
FRAME_BYTES: Final = 8_192
"""Room for a record's key, headers and batch beside its value."""
_CLOCK_RETENTION_MS = milliseconds(timedelta(hours=1))
_COMPACTED_SEGMENT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Rule:
    """What one setting of a topic must be.

    Parameters
    ----------
    setting
        Name of the topic's setting in Kafka.
    value
        What `create` sets.
    least
        Smallest whole number allowed; -1 then means unlimited and is allowed too. None: only
        `value` itself is.
    why
        What would be lost otherwise.
    """

    setting: str
    value: str
    least: int | None = None
    why: str = ""

    @property
    def allowed(self) -> str:
        """What is allowed, for a message."""
        return self.value if self.least is None else f"{self.least} or more"

    def allows(self, value: str) -> bool:
        """Tell whether a value found on the broker is right.

        Examples
        --------
        >>> Rule("retention.ms", "1000", least=500).allows("499")
        False
        >>> Rule("cleanup.policy", "compact").allows("compact,delete")
        False
        """
        if self.least is None:
            return value == self.value
        return int(value) >= self.least or (self.setting.startswith("retention.") and value == "-1")


@dataclass(frozen=True)
class TopicPlan:
    """How one topic must be set up.

    Parameters
    ----------
    name
        Full name, prefix included.
    partitions
        Partition count, at least 1.
    partitions_setting
        Bandstand's setting that gives the count; empty where the count is fixed.
    replication_factor
        Copies of each partition, at least 1.
    rules
        What its settings must be.
    """

    name: str
    partitions: int
    partitions_setting: str
    replication_factor: int
    rules: tuple[Rule, ...]


def plan(settings: Settings) -> list[TopicPlan]:
    """Give the set-up of every topic that these settings call for.

    Raises
    ------
    SettingsError
        If ``topics.retention`` is too short for a lane, or more replicas must be in sync than there
        are.

    Examples
    --------
    >>> [topic.name for topic in plan(Settings())][:3]
    ['bandstand.default.decisions', 'bandstand.default.rewards', 'bandstand.default.outcomes']
    """
    topics = settings.topics
    if topics.min_insync_replicas > topics.replication_factor:
        raise SettingsError(
            f"topics.min_insync_replicas is {topics.min_insync_replicas}; allowed: at most "
            f"topics.replication_factor, {topics.replication_factor}; lower it or add replicas"
        )
    names = TopicNames(topics.prefix)
    lanes = [plan for lane in settings.lanes for plan in _lane_plans(settings, names, lane)]
    return [*lanes, *_shared_plans(settings, names)]


def _lane_plans(settings: Settings, names: TopicNames, lane: str) -> Iterator[TopicPlan]:
    rules = settings.lanes[lane]
    # A reward counts for decisions that come up to `lateness + backward + skew` after it.
    span = rules.window + rules.grace + rules.lateness + rules.backward + rules.skew
    needed = milliseconds(span) + 1
    retention = milliseconds(settings.topics.retention)
    if retention < needed:
        raise SettingsError(
            f"topics.retention is {format_duration(settings.topics.retention)}; allowed: longer "
            f"than window + grace + lateness + backward + skew of lane {lane!r}, "
            f"{format_duration(span)}; raise it"
        )
    kept = _kept_by_time(retention, least=needed)
    for name in names.lane(lane):
        far = _FOREVER_MS if name == names.outcomes(lane) else milliseconds(rules.skew)
        yield TopicPlan(
            name,
            rules.partitions,
            f"lanes.{lane}.partitions",
            settings.topics.replication_factor,
            (*_safe(settings), *kept, *_event_time(far), _record_size(rules)),
        )


def _shared_plans(settings: Settings, names: TopicNames) -> Iterator[TopicPlan]:
    topics = settings.topics
    copies = topics.replication_factor
    safe = _safe(settings)
    wide = Rule(
        "max.message.bytes",
        str(TABLE_RECORD_BYTES),
        TABLE_RECORD_BYTES,
        "the widest snapshot must fit",
    )
    table = (*safe, *_compacted(), wide)
    count, setting = topics.learner_state_partitions, "topics.learner_state_partitions"
    retention = milliseconds(topics.retention)
    yield TopicPlan(names.specs, 1, "", copies, table)
    yield TopicPlan(names.learner_state, count, setting, copies, table)
    yield TopicPlan(names.snapshots, count, setting, copies, table)
    letters = Rule(
        "max.message.bytes",
        str(2 * _RECORD_BYTES),
        _RECORD_BYTES + FRAME_BYTES,
        "so that the largest record fits into its dead letter",
    )
    yield TopicPlan(
        names.dead_letters, 1, "", copies, (*safe, *_kept_by_time(retention, least=1), letters)
    )
    stamp = Rule(
        "message.timestamp.type", "LogAppendTime", why="the join's clock is the broker's time"
    )
    yield TopicPlan(
        names.clock, 1, "", copies, (*safe, *_kept_by_time(_CLOCK_RETENTION_MS, least=1), stamp)
    )


def _safe(settings: Settings) -> tuple[Rule, ...]:
    least = settings.topics.min_insync_replicas
    return (
        Rule("min.insync.replicas", str(least), least, "fewer copies than topics asks for"),
        Rule(
            "unclean.leader.election.enable",
            "false",
            why="a replica that is behind would become leader and drop what was acknowledged",
        ),
    )


def _kept_by_time(retention_ms: int, least: int) -> tuple[Rule, ...]:
    return (
        Rule("cleanup.policy", "delete", why="compaction would drop records that share a key"),
        Rule("retention.ms", str(retention_ms), least, "records must outlive those that wait"),
        Rule("retention.bytes", "-1", why="deleting by size would drop records that still wait"),
    )


def _compacted() -> tuple[Rule, ...]:
    return (
        Rule("cleanup.policy", "compact", why="the newest record of each key must stay for good"),
        Rule("segment.bytes", str(_COMPACTED_SEGMENT_BYTES), 2**20),
        Rule("message.timestamp.after.max.ms", str(_FOREVER_MS)),
    )


def _event_time(after_max_ms: int) -> tuple[Rule, ...]:
    return (
        Rule("message.timestamp.type", "CreateTime", why="the Kafka timestamp is the event time"),
        Rule(
            "message.timestamp.after.max.ms",
            str(after_max_ms),
            why="one record far ahead would stop retention for all that follow; must be the "
            "lane's skew (on outcomes: no limit, since the join may not lose one)",
        ),
        Rule(
            "message.timestamp.before.max.ms",
            str(_FOREVER_MS),
            why="the broker refuses a whole batch for one old record; the join judges lateness",
        ),
    )


def _record_size(rules: LaneSettings) -> Rule:
    least = rules.max_outcome_bytes + FRAME_BYTES
    return Rule(
        "max.message.bytes", str(_RECORD_BYTES), least, "the lane's largest outcome must fit"
    )
