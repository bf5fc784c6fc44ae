"""The role in a process of its own, on a real broker and a real S3."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest
from confluent_kafka import TopicPartition

from bandstand.archive.columns import records
from bandstand.archive.reader import download, files, read_table
from bandstand.archive.store import Store
from bandstand.errors import StorageError
from bandstand.kafka import admin
from bandstand.local import Kafka, SeaweedFS
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.join_types import Record
from tests.archive.given import (
    Log,
    RunningArchive,
    decisions_log,
    given_settings,
    outcome,
    pointer,
    reward,
    snapshot,
    some_decisions,
    tick,
)
from tests.archive.test_objects import size
from tests.waiting import PATIENCE_S, STOPS_WITHIN_S, until

DIES_BEFORE_THE_SECOND_COMMIT = """
import os, signal
def die(self, marks, commit=source.Source.commit):
    if all(mark.name == "" for mark in marks.values()):
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(self, marks)
source.Source.commit = die
"""
FINDS_ITS_COORDINATOR_LATE = """
from confluent_kafka import KafkaError, KafkaException
from bandstand.clients import Consumer
ask = Consumer.committed
def fail_once(self, *places, **options):
    Consumer.committed = ask
    raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
Consumer.committed = fail_once
"""


def query(sql: str) -> list[tuple[object, ...]]:
    """Ask DuckDB."""
    found: list[tuple[object, ...]] = duckdb.connect().execute(sql).fetchall()
    return found


def archived(settings: Settings, topic: str, partition: int) -> list[Record]:
    """Give what the archive holds of a partition, in the order of its files."""
    try:
        return records(read_table(settings, topic, partitions=[partition]))
    except StorageError:
        return []


def holds(settings: Settings, log: Log) -> bool:
    """Tell whether the archive holds every record of a log; never more, nor one twice."""
    for partition, written in log.written.items():
        found = archived(settings, log.topic, partition)
        assert found == written[: len(found)]
        if len(found) < len(written):
            return False
    return True


def buffered(archive: RunningArchive) -> float:
    """Ask the role for the bytes that it holds."""
    found = re.search(r"^bandstand_archive_buffered_bytes (.+)$", archive.get("/metrics")[1], re.M)
    return float(found[1]) if found else 0.0


def file_count(settings: Settings, log: Log) -> int:
    """Count a topic's files."""
    return len(files(Store(settings), log.topic))


def test_all_topics_are_archived_and_duckdb_reads_them(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> None:
    """Events, ticks, tombstones and noise, a row each; on SIGTERM what is there is stored."""
    settings = given_settings(bandstand_kafka, bandstand_s3, bandstand_prefix)
    topics.create(settings)
    names = TopicNames(bandstand_prefix)
    decisions, rewards, outcomes = (Log(settings, topic) for topic in names.lane("fast"))
    snapshots = Log(settings, names.snapshots)
    events = some_decisions(30)
    now = events[0].timestamp
    for partition in (0, 1):
        decisions.write(partition, *events[:20], tick(0, now), *events[20:])
        rewards.write(partition, Record(0, now, b"d-1", reward(1, now), ()), tick(0, now))
        outcomes.write(partition, Record(0, now, b"d-1", outcome(1), ()))
        outcomes.write(partition, Record(0, now, b"d-1", b"noise", ()))
    kinds = [(b"home|1", snapshot("1")), (b"home", pointer("1")), (b"home|0", None)]
    snapshots.write(0, *(Record(0, now, key, value, ()) for key, value in kinds))
    logs = (decisions, rewards, outcomes, snapshots)
    everything = [record for log in logs for part in log.written.values() for record in part]
    with RunningArchive(settings, tmp_path) as archive:
        archive.wait_ready()
        held = sum(map(size, everything))
        until(lambda: buffered(archive) == held)
        assert archive.stop() < STOPS_WITHIN_S
    for log in logs:
        assert holds(settings, log), archive.log
        download(settings, log.topic, tmp_path / "s3")
    tree = f"read_parquet('{tmp_path}/s3/*/*/*/*.parquet', union_by_name = true, filename = true)"
    assert query(
        "select count(*), count(distinct (split_part(filename, '/dt=', 1), _partition, _offset)) "
        f"from {tree}"
    ) == [(len(everything), len(everything))]
    lane = (
        f"read_parquet('{tmp_path}/s3/{decisions.topic}/*/*/*.parquet', hive_partitioning = true)"
    )
    assert query(
        "select _partition, count(*), count(decision_id), sum(len(actions)), max(epoch_ms(ts)), "
        f"bool_and(strftime(dt, '%Y-%m-%d') <= strftime(_timestamp, '%Y-%m-%d')) from {lane} "
        "group by all order by 1"
    ) == [(partition, 31, 30, 90, now, True) for partition in (0, 1)]
    shots = f"read_parquet('{tmp_path}/s3/{snapshots.topic}/*/*/*.parquet')"
    assert query(f"select _schema, version, reason from {shots} order by _offset") == [
        ("snapshot", "1", None),
        ("snapshot_pointer", "1", "published"),
        (None, None, None),
    ]


def test_a_kill_loses_nothing_and_doubles_nothing(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> None:
    """Killed between upload and commit, and once more somewhere; each offset is there once."""
    limits = {"max_rows": 100, "max_age": "200ms"}
    settings = given_settings(bandstand_kafka, bandstand_s3, bandstand_prefix, limits)
    topics.create(settings)
    log = decisions_log(settings)
    for partition in (0, 1):
        log.write(partition, *some_decisions(1_030))
    with RunningArchive(settings, tmp_path, DIES_BEFORE_THE_SECOND_COMMIT) as first:
        assert first.process.wait(PATIENCE_S) == -9, first.log
    left = file_count(settings, log)
    assert left in (1, 2)
    with RunningArchive(settings, tmp_path) as second:
        until(lambda: second.log.count("file found") >= left and file_count(settings, log) >= 6)
        second.process.kill()
        second.process.wait()
    assert second.log.count("file found") == left
    with RunningArchive(settings, tmp_path) as third:
        log.write(0, *some_decisions(50, 1_030))
        until(lambda: holds(settings, log))
        assert third.stop() < STOPS_WITHIN_S
    assert file_count(settings, log) >= 22
    download(settings, log.topic, tmp_path / "s3")
    assert query(
        "select _partition, min(_offset), max(_offset), count(*), count(distinct _offset) "
        f"from '{tmp_path}/s3/*/*/*/*.parquet' group by 1 order by 1"
    ) == [(0, 0, 1_079, 1_080, 1_080), (1, 0, 1_029, 1_030, 1_030)]


def test_a_store_that_is_down_is_waited_for(
    bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path
) -> None:
    """It says so, keeps its place in the group, still ends in time, and loses nothing."""
    with SeaweedFS(tmp_path / "store") as s3:
        limits = {"max_rows": 100, "max_age": "100ms", "request_timeout": "500ms"}
        limits |= {"session_timeout": "20s"}  # or a busy machine costs it its place
        settings = given_settings(bandstand_kafka, s3, bandstand_prefix, limits)
        topics.create(settings)
        log = decisions_log(settings)
        log.write(0, *some_decisions(250))
        with RunningArchive(settings, tmp_path / "1") as archive:
            until(lambda: holds(settings, log))
            s3.pause()
            log.write(0, *some_decisions(250, 250))
            log.write(1, *some_decisions(50))
            until(lambda: archive.get("/readyz")[0] == 503)
            assert "storing" in archive.get("/readyz")[1]
            assert archive.get("/healthz")[0] == 200
            assert "storage_down 1.0" in archive.get("/metrics")[1]
            until(lambda: archive.log.count("storage is down") > 1)
            assert members(settings) == 1
            s3.resume()
            until(lambda: holds(settings, log))
            until(lambda: archive.get("/readyz")[0] == 200)
            assert archive.log.count("partitions assigned") == 1
            s3.kill()
            log.write(1, *some_decisions(50, 50))
            until(lambda: archive.get("/readyz")[0] == 503)
            assert archive.stop() < STOPS_WITHIN_S
        with RunningArchive(settings, tmp_path / "2") as archive:
            until(lambda: "storage is down" in archive.log)
            assert archive.get("/readyz")[0] == 503
            s3.restart()
            until(lambda: holds(settings, log))
            assert archive.stop() < STOPS_WITHIN_S


def members(settings: Settings) -> int:
    """Count the group's members."""
    group, client = settings.archive.group, admin(settings)
    return len(client.describe_consumer_groups([group])[group].result(PATIENCE_S).members)


def test_partitions_move_between_workers_without_a_seam(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> None:
    """A second worker comes while the first holds records, and the first one goes."""
    limits = {"max_rows": 70, "max_buffered_bytes": 10_000, "max_age": "1s"}
    settings = given_settings(bandstand_kafka, bandstand_s3, bandstand_prefix, limits)
    topics.create(settings)
    log = decisions_log(settings)

    def write(rounds: int) -> bool:
        for _ in range(rounds):
            for partition in (0, 1):
                log.write(partition, *some_decisions(40))
        return True

    with RunningArchive(settings, tmp_path / "1") as first:
        first.wait_ready()
        write(3)
        with RunningArchive(settings, tmp_path / "2") as second:
            until(lambda: write(1) and second.get("/readyz")[0] == 200)
            write(3)
            assert first.stop() < STOPS_WITHIN_S
            write(3)
            until(lambda: holds(settings, log))
            assert second.stop() < STOPS_WITHIN_S
    assert "partitions revoked" in first.log


def test_a_broker_that_hangs_does_not_hold_up_the_end(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> None:
    """What couldn't be committed stays in the log, for the next run."""
    settings = given_settings(bandstand_kafka, bandstand_s3, bandstand_prefix)
    topics.create(settings)
    log = decisions_log(settings)
    log.write(0, *some_decisions(10))
    with RunningArchive(settings, tmp_path) as archive:
        until(lambda: buffered(archive) > 0)
        bandstand_kafka.pause()
        try:
            assert archive.stop() < STOPS_WITHIN_S
        finally:
            bandstand_kafka.resume()
    assert "the next run reads them" in archive.log
    assert file_count(settings, log) == 0


def test_a_group_that_its_broker_does_not_know_yet_is_asked_again(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> None:
    """So a broker answers that has just started."""
    settings = given_settings(bandstand_kafka, bandstand_s3, bandstand_prefix, {"max_age": "100ms"})
    topics.create(settings)
    log = decisions_log(settings)
    log.write(0, *some_decisions(10))
    with RunningArchive(settings, tmp_path, FINDS_ITS_COORDINATOR_LATE) as archive:
        until(lambda: holds(settings, log) or archive.process.poll() is not None)
        assert archive.stop() < STOPS_WITHIN_S
    assert "looks up again" in archive.log


def test_records_gone_before_they_were_archived_stop_the_role(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> None:
    """A gap is never passed over in silence."""
    limits = {"max_rows": 10, "max_age": "100ms"}
    settings = given_settings(bandstand_kafka, bandstand_s3, bandstand_prefix, limits)
    topics.create(settings)
    log = decisions_log(settings)
    log.write(0, *some_decisions(10))
    with RunningArchive(settings, tmp_path) as archive:
        until(lambda: holds(settings, log))
        archive.stop()
    log.write(0, *some_decisions(10))
    client = admin(settings)
    for deleted in client.delete_records([TopicPartition(log.topic, 0, 15)]).values():
        deleted.result(PATIENCE_S)
    with RunningArchive(settings, tmp_path) as archive:
        assert archive.process.wait(PATIENCE_S) == 1
    assert re.search("LogGapError: archive of .*records are gone.*reset-offsets", archive.log)


def test_a_missing_topic_or_bucket_ends_the_start(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> None:
    """What waiting would not mend is said at once."""
    settings = given_settings(bandstand_kafka, bandstand_s3, bandstand_prefix)
    bucket = settings.s3.model_copy(update={"bucket": "elsewhere"})
    elsewhere = settings.model_copy(update={"s3": bucket})
    with (
        RunningArchive(settings, tmp_path) as no_topic,
        RunningArchive(elsewhere, tmp_path) as no_bucket,
    ):
        assert no_topic.process.wait(PATIENCE_S) == 1
        assert no_bucket.process.wait(PATIENCE_S) == 1
    assert "run 'bandstand topics create'" in no_topic.log
    assert "create the bucket" in no_bucket.log


def test_reading_what_was_never_archived_says_so(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str
) -> None:
    """Nothing there is an error, not an empty table without columns."""
    settings = given_settings(bandstand_kafka, bandstand_s3, bandstand_prefix)
    with pytest.raises(StorageError, match="does 'bandstand archive' run"):
        read_table(settings, "nothing")
