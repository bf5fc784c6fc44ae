"""How every topic must be set up so that nothing is lost, and the one place that creates them.

`plan` says it as data; `create` makes what is missing; `check` compares what is there; `require` is
what a role calls before it starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from bandstand.errors import SettingsError, TopicError
from bandstand.kafka import admin, broker_errors, end_offsets
from bandstand.schemas.topics import TopicNames
from bandstand.settings import LaneSettings, Settings, format_duration, milliseconds

__all__ = [
    "FRAME_BYTES",
    "TABLE_RECORD_BYTES",
    "Finding",
    "Rule",
    "TopicPlan",
    "check",
    "create",
    "plan",
    "require",
]

_TIMEOUT_S = 15.0
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


@dataclass(frozen=True)
class Finding:
    """One way in which a topic differs from its plan.

    Parameters
    ----------
    topic
        Full name of the topic.
    setting
        What is wrong: a topic setting of Kafka, ``partitions``, ``replication.factor`` or
        ``existence``.
    value
        What was found.
    allowed
        What is allowed.
    action
        What to do, and why.
    """

    topic: str
    setting: str
    value: str
    allowed: str
    action: str

    def __str__(self) -> str:
        return (
            f"topic {self.topic}: {self.setting} is {self.value}; "
            f"allowed: {self.allowed}; {self.action}"
        )


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


def create(settings: Settings) -> list[str]:
    """Create the topics that are missing; leave the others as they are.

    Returns once the broker serves the new ones.

    Returns
    -------
    list
        Names of the topics that were created now.

    Raises
    ------
    SettingsError
        If the settings contradict each other.
    TopicError
        If a new topic isn't served within a quarter of a minute.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    plans = plan(settings)
    client = admin(settings)
    with broker_errors("listing topics"):
        known = client.list_topics(timeout=_TIMEOUT_S).topics
    created = list(_create(client, [p for p in plans if p.name not in known]))
    new = [p for p in plans if p.name in created]
    _wait_until_served(client, new)
    for each in new:
        end_offsets(settings, each.name, range(each.partitions))
    return created


def check(settings: Settings) -> list[Finding]:
    """Compare the topics on the broker with their plan; an empty list means: all is well.

    Raises
    ------
    SettingsError
        If the settings contradict each other.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    plans = plan(settings)
    client = admin(settings)
    with broker_errors("listing topics"):
        known = client.list_topics(timeout=_TIMEOUT_S).topics
    there = [p for p in plans if p.name in known]
    missing = [_missing(p) for p in plans if p.name not in known]
    configs = _configs(client, [p.name for p in there])
    return [
        *missing,
        *(f for p in there for f in _shape_findings(p, known[p.name])),
        *(f for p in there for f in _config_findings(p, configs[p.name])),
    ]


def require(settings: Settings) -> None:
    """Refuse to go on unless every topic is set up as planned.

    Raises
    ------
    TopicError
        If one isn't; names every topic, setting and value, what is allowed, and what to do.
    SettingsError
        If the settings contradict each other.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    findings = check(settings)
    if findings:
        raise TopicError("\n".join(map(str, findings)))


def _lane_plans(settings: Settings, names: TopicNames, lane: str) -> Iterator[TopicPlan]:
    rules = settings.lanes[lane]
    needed = milliseconds(rules.window + rules.grace + rules.lateness) + 1
    retention = milliseconds(settings.topics.retention)
    if retention < needed:
        raise SettingsError(
            f"topics.retention is {format_duration(settings.topics.retention)}; allowed: longer "
            f"than window + grace + lateness of lane {lane!r}, "
            f"{format_duration(rules.window + rules.grace + rules.lateness)}; raise it"
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


def _create(client: AdminClient, plans: Sequence[TopicPlan]) -> Iterator[str]:
    if not plans:
        return
    new = [
        NewTopic(
            p.name,
            num_partitions=p.partitions,
            replication_factor=p.replication_factor,
            config={rule.setting: rule.value for rule in p.rules},
        )
        for p in plans
    ]
    with broker_errors("creating topics"):
        answers = client.create_topics(new, operation_timeout=_TIMEOUT_S)
    for name, answer in answers.items():
        if _was_created(name, answer):
            yield name


def _was_created(name: str, answer: object) -> bool:
    with broker_errors(f"creating topic {name!r}"):
        try:
            answer.result()  # type: ignore[attr-defined]
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise
    return True


def _wait_until_served(client: AdminClient, plans: Sequence[TopicPlan]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    waiting = {p.name: p.partitions for p in plans}
    while waiting:
        with broker_errors("listing topics"):
            known = client.list_topics(timeout=_TIMEOUT_S).topics
        for name in [n for n, count in waiting.items() if _is_served(known.get(n), count)]:
            del waiting[name]
        if waiting and time.monotonic() > deadline:
            raise TopicError(
                f"created topics are not served after {_TIMEOUT_S:g} s: {', '.join(waiting)}; "
                "look at the brokers' logs, then run 'bandstand topics check'"
            )


def _is_served(topic: TopicMetadata | None, partitions: int) -> bool:
    if topic is None or topic.error is not None or len(topic.partitions) != partitions:
        return False
    return all(p.error is None and p.leader >= 0 for p in topic.partitions.values())


def _configs(client: AdminClient, names: Iterable[str]) -> dict[str, dict[str, ConfigEntry]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    with broker_errors("reading the topics' settings"):
        answers = client.describe_configs(resources, request_timeout=_TIMEOUT_S)
        return {resource.name: answer.result() for resource, answer in answers.items()}


def _missing(plan: TopicPlan) -> Finding:
    return Finding(plan.name, "existence", "missing", "there", "run 'bandstand topics create'")


def _shape_findings(plan: TopicPlan, topic: TopicMetadata) -> Iterator[Finding]:
    count = len(topic.partitions)
    if count != plan.partitions:
        yield Finding(
            plan.name,
            "partitions",
            str(count),
            str(plan.partitions),
            f"set {plan.partitions_setting} to {count} if all topics that share it have as many, "
            "else delete the topic and run 'bandstand topics create'; a count is for good"
            if plan.partitions_setting
            else "delete the topic and run 'bandstand topics create'",
        )
    copies = min(len(p.replicas) for p in topic.partitions.values())
    if copies < plan.replication_factor:
        yield Finding(
            plan.name,
            "replication.factor",
            str(copies),
            f"{plan.replication_factor} or more",
            "add replicas with kafka-reassign-partitions or lower topics.replication_factor",
        )


def _config_findings(plan: TopicPlan, found: dict[str, ConfigEntry]) -> Iterator[Finding]:
    for rule in plan.rules:
        entry = found.get(rule.setting)
        if entry is None or entry.value is None:
            value, action = "unknown to this broker", "use Apache Kafka 3.6 or newer"
        elif rule.allows(entry.value):
            continue
        else:
            value = entry.value
            action = (
                f"run kafka-configs --alter --topic {plan.name} "
                f"--add-config {rule.setting}={rule.value}"
            )
        why = f" ({rule.why})" if rule.why else ""
        yield Finding(plan.name, rule.setting, value, rule.allowed, action + why)
