"""Reading back what learners wrote, in the cases that a whole run doesn't meet."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import Producer

from bandstand.errors import StateError
from bandstand.kafka import TopicReader, producer_config
from bandstand.learners.statistics import Statistics
from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.learner_records import PartitionSums, sums_records
from bandstand.streams.restore import restore
from bandstand.streams.specs import SpecFollower, apply_spec
from bandstand.streams.transactions import Transactions
from tests.streams.given import given_records, given_settings, given_spec
from tests.waiting import PATIENCE_S

WIRE = Wire.single_object()


@pytest.fixture
def settings(bandstand_kafka: Kafka, bandstand_prefix: str) -> Settings:
    """Make topics, one bandit, and a spec that only a newer version can read."""
    settings = given_settings(bandstand_kafka, bandstand_prefix)
    topics.create(settings)
    apply_spec(settings, given_spec())
    given_records(settings, TopicNames(settings.topics.prefix).specs, (b"home", b"newer"))
    return settings


def _write_sums(settings: Settings, *, epoch: int) -> None:
    sums = PartitionSums("fast", 0, epoch, 10, Statistics.empty(given_spec()))
    given_records(
        settings, TopicNames(settings.topics.prefix).learner_state, *sums_records(sums, WIRE)
    )


def test_sums_of_a_spec_that_cannot_be_read_are_not_taken_for_old_ones(settings: Settings) -> None:
    """A learner of an older version stops, rather than delete what a newer one has learned."""
    _write_sums(settings, epoch=2)
    with (
        SpecFollower(settings) as specs,
        pytest.raises(StateError, match="specs record 2, which this version can't read"),
    ):
        restore(settings, WIRE, [("fast", 0)], specs, threading.Event())


def test_a_stop_ends_reading_early(settings: Settings) -> None:
    """Nothing is assigned then."""
    stop = threading.Event()
    stop.set()
    with SpecFollower(settings) as specs:
        assert restore(settings, WIRE, [("fast", 0)], specs, stop) is None


def test_only_what_was_assigned_is_restored(settings: Settings) -> None:
    """Sums of other partitions are left to their owners; without a position it starts anew."""
    _write_sums(settings, epoch=0)
    with SpecFollower(settings) as specs:
        restored = restore(settings, WIRE, [("fast", 0), ("fast", 1)], specs, threading.Event())
        assert restored is not None
        assert [len(part.held) for part in restored.values()] == [1, 0]
        assert [part.position for part in restored.values()] == [None, None]


def test_reading_to_the_end_waits_for_the_open_transactions_of_others(settings: Settings) -> None:
    """What was committed behind somebody's open transaction isn't missed by a restore."""
    topic = TopicNames(settings.topics.prefix).learner_state
    slow = Producer(producer_config(settings, transactional_id=f"{topic}.slow"))
    slow.init_transactions(PATIENCE_S)
    slow.begin_transaction()
    slow.produce(topic, b"slow", b"slow", 0)
    slow.flush(PATIENCE_S)
    quick = Transactions(settings, f"{topic}.quick", topic)
    quick.open()
    quick.write([(0, b"quick", b"quick")])
    reader = TopicReader(settings, topic)
    threading.Timer(0.5, slow.commit_transaction).start()
    assert [m.value() for m in reader.read_to_end(PATIENCE_S)] == [b"slow", b"quick"]
    reader.close()
