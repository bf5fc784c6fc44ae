"""Reading many logs by one thread, on a real broker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from bandstand.errors import BandstandError, BrokerError, LogGapError, TopicError
from bandstand.kafka import admin, producer_config
from bandstand.local import Kafka
from bandstand.settings import KafkaSettings, Settings
from bandstand.streams.log_reader import LogReader
from bandstand.streams.topic_watch import TopicWatch
from tests.waiting import PATIENCE_S, until

Place = tuple[str, int]


class Logs:
    """Topics of a test, and a reader's place in each of their logs."""

    def __init__(self, kafka: Any, topic: str, partitions: int, **config: str) -> None:
        self.settings = Settings(kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
        self.admin: AdminClient = admin(self.settings)
        self.topic = topic
        self.config = config
        self.create(partitions)
        self.positions: dict[Place, int] = {(topic, p): 0 for p in range(partitions)}
        self.found: dict[Place, list[bytes | None]] = {place: [] for place in self.positions}
        self.largest = 0

    def create(self, partitions: int) -> None:
        """Make the topic."""
        new = NewTopic(self.topic, partitions, 1, config=self.config)
        until(lambda: _done(self.admin.create_topics([new])), "a topic")

    def fill(self, partition: int, count: int, size: int = 10, start: int = 0) -> list[bytes]:
        """Write records to one log, and give their values."""
        producer = Producer(producer_config(self.settings))
        noise = os.urandom(size)  # the client's own bounds are those of compressed bytes
        values = [b"%d." % (start + i) + noise for i in range(count)]
        for value in values:
            producer.produce(self.topic, value, b"key", partition, timestamp=start + 1)
            producer.poll(0)
        producer.flush(PATIENCE_S)
        return values

    def write(self, transactions: list[tuple[str, list[bytes]]]) -> None:
        """Write transactions to the first log, and end each in the way that it says."""
        producer = Producer(producer_config(self.settings, transactional_id=self.topic))
        producer.init_transactions(PATIENCE_S)
        for end, values in transactions:
            producer.begin_transaction()
            for value in values:
                producer.produce(self.topic, value, b"key", 0)
            producer.flush(PATIENCE_S)
            getattr(producer, f"{end}_transaction")(10)

    def delete_before(self, partition: int, offset: int) -> None:
        """Delete the first records of a log."""
        place = TopicPartition(self.topic, partition, offset)
        for answer in self.admin.delete_records([place]).values():
            answer.result(PATIENCE_S)

    def delete(self) -> None:
        """Delete the topic."""
        for answer in self.admin.delete_topics([self.topic]).values():
            answer.result(PATIENCE_S)

    def reader(self, patience: float = 30.0) -> LogReader:
        """Give a reader."""
        return LogReader(self.settings, [self.topic], _raise, patience)

    def read(self, reader: LogReader, wanted: Collection[Place] | None = None) -> None:
        """Read one round, and check that every batch begins where it should."""
        found = reader.read(self.positions, self.positions if wanted is None else wanted)
        for place, records in found.batches:
            assert records.start == self.positions[place]
            assert records.offsets[0] >= records.start
            self.found[place] += records.values
            self.positions[place] = records.offsets[-1] + 1
        self.largest = max(self.largest, reader.kept_bytes)
        if found.few:
            time.sleep(0.005)

    def read_until(
        self,
        condition: Callable[[], object],
        reader: LogReader,
        wanted: Collection[Place] | None = None,
    ) -> None:
        """Read on until a condition holds."""

        def step() -> object:
            self.read(reader, wanted)
            return condition()

        until(step, f"what should be read; found {[len(x) for x in self.found.values()]}")


def _raise(_: object, why: BandstandError) -> None:
    raise why


def _done(answers: dict[str, Any]) -> bool:
    return all(answer.exception() is None for answer in answers.values())


@pytest.fixture
def topic(bandstand_prefix: str) -> str:
    """Name a topic."""
    return f"{bandstand_prefix}log"


def test_batches_follow_each_other_wherever_the_reader_goes(
    bandstand_kafka: Any, topic: str
) -> None:
    """Whatever is wanted, stepped back to or leapt over: each batch is the log's from there on."""
    logs = Logs(bandstand_kafka, topic, 3)
    values = {(topic, p): logs.fill(p, 9_000 * p) for p in range(3)}
    reader, random = logs.reader(), Random(5)
    seeks = 0
    for _ in range(150):
        wanted = random.sample(sorted(logs.positions), random.randint(0, 3))
        before = dict(logs.positions)
        logs.found = {place: [] for place in values}
        logs.read(reader, wanted)
        for place, start in before.items():
            assert logs.found[place] == values[place][start : logs.positions[place]]
        if random.random() < 0.1:
            place = random.choice(sorted(values)[1:])
            logs.positions[place] = random.randrange(len(values[place]))
            seeks += 1
    assert seeks > 5
    logs.found = {place: [] for place in values}
    begin = dict(logs.positions)
    logs.read_until(
        lambda: all(at == len(values[place]) for place, at in logs.positions.items()), reader
    )
    assert logs.found == {place: values[place][begin[place] :] for place in values}


def test_logs_come_and_go(bandstand_kafka: Any, topic: str) -> None:
    """A log that goes and comes back is read from the offset that its new reader expects."""
    logs = Logs(bandstand_kafka, topic, 2)
    values = [logs.fill(p, 500) for p in range(2)]
    first, second = logs.positions
    reader = logs.reader()
    both = dict(logs.positions)
    logs.positions = {first: 0}
    logs.read_until(lambda: len(logs.found[first]) == 500, reader)
    logs.positions = {second: 0}
    # Another thread may take a log away while it is still being asked for.
    logs.read_until(lambda: len(logs.found[second]) == 500, reader, wanted=[first, second])
    logs.positions = {**both, first: 400}
    logs.found = {first: [], second: []}
    logs.read_until(lambda: len(logs.found[second]) == 500 and logs.found[first], reader)
    assert logs.found == {first: values[0][400:], second: values[1]}


def test_a_hot_log_that_must_wait_holds_up_no_idle_one(bandstand_kafka: Any, topic: str) -> None:
    """One log with 60 MB that nobody wants yet, eleven with a trickle: the trickle comes through.

    What is kept stays within the bound, and nothing of the hot log is lost when it is wanted.
    """
    logs = Logs(bandstand_kafka, topic, 12)
    hot, *idle = sorted(logs.positions)
    count, size = 600, 100_000
    logs.fill(hot[1], count, size)
    for _, partition in idle:
        logs.fill(partition, 5)
    reader = logs.reader()
    logs.read_until(lambda: all(len(logs.found[place]) == 5 for place in idle), reader, idle)
    for _, partition in idle:
        logs.fill(partition, 5)
    _read_until_no_more_is_kept(logs, reader, idle[:1])
    logs.read_until(lambda: all(len(logs.found[place]) == 10 for place in idle), reader, idle)
    assert not logs.found[hot]
    assert 0 < logs.largest < 40_000_000
    logs.read_until(lambda: len(logs.found[hot]) == count, reader)
    assert [value and value.split(b".")[0] for value in logs.found[hot]] == [
        b"%d" % i for i in range(count)
    ]
    assert logs.largest < 40_000_000


def _read_until_no_more_is_kept(logs: Logs, reader: LogReader, wanted: Collection[Place]) -> None:
    rounds: list[int] = []

    def step() -> bool:
        rounds.append(reader.kept_bytes)
        return len(rounds) > 100 and rounds[-1] == rounds[-100]

    logs.read_until(step, reader, wanted)


def test_what_is_aborted_never_happened(bandstand_kafka: Any, topic: str) -> None:
    """Committed records come in order, aborted ones not at all; what comes next has its offset."""
    logs = Logs(bandstand_kafka, topic, 1)
    place = (topic, 0)
    logs.write(
        [
            ("commit", [b"a", b"b"]),
            ("abort", [b"never"] * 100),
            ("commit", [b"c"]),
            ("abort", [b"never"]),
        ]
    )
    last = logs.fill(0, 1)
    reader = logs.reader()
    logs.read_until(lambda: len(logs.found[place]) == 4, reader)
    assert logs.found[place] == [b"a", b"b", b"c", *last]
    assert logs.positions[place] == 2 + 1 + 100 + 1 + 1 + 1 + 1 + 1 + 1
    logs.positions[place] = 50
    logs.found[place] = []
    logs.read_until(lambda: len(logs.found[place]) == 2, reader)
    assert logs.found[place] == [b"c", *last]


def test_records_deleted_ahead_of_the_reader_are_an_error(bandstand_kafka: Any, topic: str) -> None:
    """The error says which offsets are lost; a log that ends before the reader is one too."""
    logs = Logs(bandstand_kafka, topic, 2)
    logs.fill(0, 100)
    logs.fill(1, 10)
    logs.delete_before(0, 60)
    logs.positions = {(topic, 0): 20}
    with pytest.raises(LogGapError, match="from offset 20 to 59 were deleted"):
        logs.read_until(lambda: False, logs.reader())
    logs.positions = {(topic, 1): 50}
    with pytest.raises(LogGapError, match="asked for offset 50, the log holds 0 to 9"):
        logs.read_until(lambda: False, logs.reader())


def test_a_deleted_topic_is_an_error_and_so_is_one_made_anew(
    bandstand_kafka: Any, topic: str
) -> None:
    """A topic that is gone for a while, or has another identity, ends whoever watches it."""
    logs = Logs(bandstand_kafka, topic, 1)
    watches = [
        TopicWatch(logs.settings, [topic], _raise, every=0.05, patience=p) for p in (1.0, 60.0)
    ]

    for watch in watches:
        _look(watch, until_known=True)
    logs.delete()
    with pytest.raises(TopicError, match="can't be found for 1 s"):
        _look(watches[0])
    logs.create(1)
    with pytest.raises(LogGapError, match="deleted and made anew"):
        _look(watches[1])


def _look(watch: TopicWatch, *, until_known: bool = False) -> None:
    def step() -> bool:
        watch.look()
        return until_known and bool(watch.known)

    until(step, "an answer")


@pytest.fixture(scope="module")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Start a broker that asks who may do what."""
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with Kafka(tmp_path_factory.mktemp("kafka"), properties=properties) as kafka:
        yield kafka


def test_a_log_that_may_not_be_read_is_an_error(guarded_kafka: Kafka, topic: str) -> None:
    """The right to read is taken away: borne for a while, then an error that says so."""
    logs = Logs(guarded_kafka, topic, 1)
    logs.fill(0, 10)
    reader = logs.reader(patience=1.0)
    logs.read_until(lambda: len(logs.found[topic, 0]) == 10, reader)
    denied = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.READ,
        AclPermissionType.DENY,
    )
    for answer in logs.admin.create_acls([denied]).values():
        answer.result(PATIENCE_S)
    with pytest.raises(BrokerError, match=r"can't be read for 1 s: .*[Aa]uthorization"):
        logs.read_until(lambda: False, reader)


def test_reading_goes_on_when_the_broker_is_back(guarded_kafka: Kafka, topic: str) -> None:
    """A broker that is killed and started again is waited for."""
    logs = Logs(guarded_kafka, topic, 1)
    values = logs.fill(0, 10)
    reader = logs.reader(patience=3.0)  # less than it takes; a broker may deny topics as it starts
    logs.read_until(lambda: len(logs.found[topic, 0]) == 10, reader)
    guarded_kafka.kill()
    for _ in range(100):
        logs.read(reader)
    guarded_kafka.start()
    values += logs.fill(0, 10, start=10)
    logs.read_until(lambda: logs.found[topic, 0] == values, reader)
