"""Bandits, snapshots and topics that the tests of this folder begin with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from confluent_kafka import Message, Producer

from bandstand.kafka import TopicReader, producer_config
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.schemas.topics import TopicNames, artifact_key, pointer_key
from bandstand.schemas.wire import Wire
from bandstand.serving import Client
from bandstand.settings import Settings
from tests.waiting import PATIENCE_S

WIRE = Wire.single_object()
NOWHERE = "127.0.0.1:1"


def homepage(bandit: str = "homepage") -> Spec:
    """Give a bandit without context."""
    return parse_spec(
        f"""
        bandit: {bandit}
        actions: [spring, summer, plain]
        policy: {{name: beta_thompson}}
        reward: {{name: click}}
        floor: 0.05
        """,
        "homepage.yaml",
    )


def shop(bandit: str = "shop") -> Spec:
    """Give a contextual bandit."""
    return parse_spec(
        f"""
        bandit: {bandit}
        actions: [low, middle, high]
        features:
          - {{name: age, kind: numeric, low: 0, high: 100}}
          - {{name: country, kind: categorical, values: [ch, no]}}
        policy: {{name: linear_thompson, prior_precision: 2.0, noise_variance: 0.25}}
        reward: {{name: purchase, aggregate: sum, low: 0, high: 500}}
        floor: 0.02
        """,
        "shop.yaml",
    )


HOMEPAGE, SHOP = homepage(), shop()
AGE_41 = {"age": 41, "country": "no", "member": True}


def snapshot(spec: Spec, outcomes: int = 0, epoch: int = 0) -> dict[str, Any]:
    """Give the snapshot after so many outcomes; one of a contextual bandit learned nothing."""
    statistics = Statistics.empty(spec)
    if not spec.features:
        counts = np.array([outcomes, 0, 0], np.int64)
        arrays = {"outcomes": counts, "reward": counts * 4096}
        statistics = Statistics.from_arrays(spec, arrays, {}, outcomes, None)
    return build(spec, statistics, epoch, "", {})


def settings_for(servers: str, prefix: str = "t.", **sections: Any) -> Settings:
    """Give settings for a broker."""
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": servers},
            "topics": {"prefix": prefix, "learner_state_partitions": 2},
            "lanes": {"default": {"partitions": 2}},
            **sections,
        }
    )


@contextmanager
def client(settings: Settings, **options: Any) -> Iterator[Client]:
    """Give a client that doesn't wait long for its end."""
    it = Client(settings, **options)
    try:
        yield it
    finally:
        it.close(timeout=1.0 if settings.kafka.bootstrap_servers != NOWHERE else 0.0)


class Publisher:
    """Writes to the snapshots topic what a publisher would."""

    def __init__(self, settings: Settings) -> None:
        self.topic = TopicNames(settings.topics.prefix).snapshots
        self._producer = Producer(producer_config(settings))

    def write(self, key: bytes, value: bytes | None) -> None:
        """Write one record."""
        self._producer.produce(self.topic, value, key, partition=0)
        assert self._producer.flush(PATIENCE_S) == 0

    def artifact(self, record: Mapping[str, Any]) -> None:
        """Write a snapshot."""
        key = artifact_key(record["bandit"], record["version"])
        self.write(key, WIRE.dumps("snapshot", record))

    def point(self, bandit: str, version: str, reason: str = "published") -> None:
        """Move the pointer."""
        pointer = {"bandit": bandit, "version": version, "reason": reason}
        self.write(pointer_key(bandit), WIRE.dumps("snapshot_pointer", pointer))

    def publish(self, record: Mapping[str, Any]) -> str:
        """Write a snapshot, then the pointer to it; give its version."""
        self.artifact(record)
        self.point(record["bandit"], record["version"])
        return str(record["version"])


def read_all(settings: Settings, topic: str) -> list[Message]:
    """Give all records of a topic."""
    reader = TopicReader(settings, topic)
    try:
        return list(reader.read_to_end(PATIENCE_S))
    finally:
        reader.close()
