"""The one place that creates the topics, and compares what is there with the plans.

`plan` says it as data; `create` makes what is missing; `check` compares what is there; `require` is
what a role calls before it starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from bandstand.errors import BrokerError, TopicError
from bandstand.kafka import admin, broker_errors, end_offsets
from bandstand.logs import get_logger
from bandstand.settings import Settings
from bandstand.streams.topic_plans import FRAME_BYTES, TABLE_RECORD_BYTES, Rule, TopicPlan, plan

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

_log = get_logger(__name__)
_TIMEOUT_S = 15.0
_PATIENCE_S = 45.0


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
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _create_missing(settings, plans)
        except BrokerError as error:
            # A client that once heard that there is no controller doesn't ask again: take another.
            if not error.passing or time.monotonic() > deadline:
                raise
            _log.warning("topics could not be created, trying again", problem=str(error))


def _create_missing(settings: Settings, plans: Sequence[TopicPlan]) -> list[str]:
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
        answers = client.create_topics(
            new, operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S
        )
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
