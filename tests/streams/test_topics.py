"""The topics' set-up, as data and on the real broker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from bandstand.errors import SettingsError, TopicError
from bandstand.kafka import admin
from bandstand.local import Kafka
from bandstand.settings import LaneSettings, Settings, TopicSettings
from bandstand.streams import topics


def _settings(kafka: Kafka, prefix: str, **topic_settings: object) -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "topics": {"prefix": prefix, "learner_state_partitions": 2, **topic_settings},
            "lanes": {"fast": {"partitions": 2, "window": "1s"}},
        }
    )


def _alter(settings: Settings, topic: str, **values: str) -> None:
    resource = ConfigResource(
        ResourceType.TOPIC,
        topic,
        incremental_configs=[
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in values.items()
        ],
    )
    client = admin(settings)
    for answer in client.incremental_alter_configs([resource]).values():
        answer.result()


def test_created_topics_are_found_to_be_right(
    bandstand_kafka: Kafka, bandstand_prefix: str
) -> None:
    """What `create` makes passes `check`, and a second call makes nothing."""
    settings = _settings(bandstand_kafka, bandstand_prefix)
    assert set(topics.create(settings)) == {plan.name for plan in topics.plan(settings)}
    assert topics.check(settings) == []
    assert topics.create(settings) == []


def test_create_adds_what_is_missing_only(bandstand_kafka: Kafka, bandstand_prefix: str) -> None:
    """A lane that was added later gets its topics; those that are there stay as they are."""
    settings = _settings(bandstand_kafka, bandstand_prefix)
    topics.create(settings)
    lanes = {**settings.lanes, "slow": LaneSettings(partitions=1)}
    more = settings.model_copy(update={"lanes": lanes})
    assert topics.create(more) == [
        f"{bandstand_prefix}slow.{kind}" for kind in ("decisions", "rewards", "outcomes")
    ]


def test_check_names_topic_setting_value_and_remedy(
    bandstand_kafka: Kafka, bandstand_prefix: str
) -> None:
    """Each wrong setting is one finding, and a role refuses to start with all of them."""
    settings = _settings(bandstand_kafka, bandstand_prefix)
    topics.create(settings)
    _alter(settings, f"{bandstand_prefix}fast.decisions", message_timestamp_after_max_ms="1000")
    _alter(
        settings, f"{bandstand_prefix}fast.outcomes", retention_ms="5000", cleanup_policy="compact"
    )
    _alter(settings, f"{bandstand_prefix}clock", message_timestamp_type="CreateTime")
    found = {(f.topic.removeprefix(bandstand_prefix), f.setting): f for f in topics.check(settings)}
    assert set(found) == {
        ("fast.decisions", "message.timestamp.after.max.ms"),
        ("fast.outcomes", "retention.ms"),
        ("fast.outcomes", "cleanup.policy"),
        ("clock", "message.timestamp.type"),
    }
    retention = found["fast.outcomes", "retention.ms"]
    assert (retention.value, retention.allowed) == ("5000", "3666001 or more")
    with pytest.raises(TopicError, match=r"fast\.outcomes: retention.ms is 5000; allowed: 3666001"):
        topics.require(settings)


def test_check_finds_missing_topics_and_wrong_counts(
    bandstand_kafka: Kafka, bandstand_prefix: str
) -> None:
    """A missing topic and a partition count that differs are findings of their own."""
    settings = _settings(bandstand_kafka, bandstand_prefix)
    assert {f.setting for f in topics.check(settings)} == {"existence"}
    topics.create(settings)
    lanes = {"fast": settings.lanes["fast"].model_copy(update={"partitions": 3})}
    findings = topics.check(settings.model_copy(update={"lanes": lanes}))
    assert [(f.setting, f.value, f.allowed) for f in findings] == [("partitions", "2", "3")] * 3


def test_settings_that_contradict_each_other_are_refused() -> None:
    """Retention that is too short, or more replicas in sync than there are, never reach Kafka."""
    short = Settings(topics=TopicSettings(retention=timedelta(hours=1)))
    with pytest.raises(SettingsError, match=r"topics.retention is 1h; allowed: longer than"):
        topics.plan(short)
    with pytest.raises(SettingsError, match="min_insync_replicas is 2; allowed: at most"):
        topics.plan(Settings(topics=TopicSettings(min_insync_replicas=2)))


def test_retention_covers_rewards_that_come_before_their_decision() -> None:
    """A reward must still be there when its decision comes, also after a restart."""
    lane = LaneSettings(backward=timedelta(days=1))
    short = Settings(topics=TopicSettings(retention=timedelta(days=1)), lanes={"a": lane})
    with pytest.raises(SettingsError, match=r"backward \+ skew of lane 'a'"):
        topics.plan(short)
