"""What the tests of the roles start from: settings for one broker, specs, plain producers."""

from __future__ import annotations

from datetime import timedelta

from confluent_kafka import Message, Producer

from bandstand.kafka import TopicReader, producer_config
from bandstand.local import Kafka
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.settings import Settings
from tests.waiting import PATIENCE_S


def given_settings(kafka: Kafka, prefix: str, **sections: object) -> Settings:
    """Give settings with one lane, ``fast``, of two partitions.

    Its topics keep what is old: the tests' outcomes have times of long ago.
    """
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            # Outcomes of tests are years old; the broker would delete them under their readers.
            "topics": {"prefix": prefix, "learner_state_partitions": 2, "retention": "9999d"},
            "lanes": {"fast": {"partitions": 2, "window": "1s"}},
            **sections,
        }
    )


def never_expelled(settings: Settings) -> Settings:
    """Let a learner that stands still for a second keep its place: what it reads counts once."""
    learn = settings.learn.model_copy(update={"session_timeout": timedelta(minutes=1)})
    return settings.model_copy(update={"learn": learn})


def given_spec(bandit: str = "home", *, lane: str = "fast", default: float = 0.0) -> Spec:
    """Give a small contextual bandit."""
    return parse_spec(
        f"""
        bandit: {bandit}
        lane: {lane}
        actions: [a, b, c]
        features:
          - {{name: age, kind: numeric, low: 0, high: 100}}
          - {{name: plan, kind: categorical, values: [free, paid]}}
        policy: {{name: linear_thompson, prior_precision: 2.0, noise_variance: 0.5}}
        reward: {{name: click, default: {default}}}
        """,
        "given.yaml",
    )


def given_records(
    settings: Settings, topic: str, *records: tuple[bytes | None, bytes | None]
) -> None:
    """Write keys and values as they are."""
    producer = Producer(producer_config(settings))
    for key, value in records:
        producer.produce(topic, value, key)
    assert producer.flush(PATIENCE_S) == 0


def everything_in(settings: Settings, topic: str) -> list[Message]:
    """Read a topic once, what is committed."""
    reader = TopicReader(settings, topic)
    messages = list(reader.read_to_end(PATIENCE_S))
    reader.close()
    return messages
