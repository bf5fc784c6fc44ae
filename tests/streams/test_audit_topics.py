"""The audit of a lane on a real broker and a real store: clean, broken in every way, followed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from bandstand import cli
from bandstand.archive.objects import Cut, object_name
from bandstand.archive.store import Store
from bandstand.archive.writer import build
from bandstand.kafka import admin, producer_config
from bandstand.local import Kafka, SeaweedFS
from bandstand.output import iso
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.join_types import PROGRESS_KEY, Record, Tail, progress_record
from tests.streams.join_driver import Schedule, run
from tests.streams.join_generators import LARGE
from tests.streams.join_logs import START, WIRE, Logs

MINUTE = 60_000
KINDS = (
    "clean",
    "missing",
    "twice",
    "altered",
    "out_of_order",
    "foreign",
    "truncated",
    "deleted",
    "trimmed",
    "behind",
)
"""What was done to each partition of the lane, by number."""


def hours(count: int = 300) -> tuple[Logs, list[Record]]:
    """Give logs with a decision and a reward a minute, and the outcomes that the join writes."""
    logs = Logs(LARGE)
    for number in range(count):
        now = START + number * MINUTE
        for log in logs.records:
            logs.tick(log, now, 10 * MINUTE, 5_000)
        logs.decision(f"d{number}", now + 1)
        if number % 3 == 0:
            logs.reward(f"d{number}", "r", now + 2)
    emissions = run(logs, Schedule(1, polls=(500,), live=False), lambda *_: None).outcomes
    return logs, [
        Record(at, e.timestamp, e.key, e.value, e.headers or ()) for at, e in enumerate(emissions)
    ]


def progress(at: int, source_offset: int) -> Record:
    """Give a progress record."""
    made = progress_record(Tail(source_offset, START), 0)
    assert made is not None
    return Record(at, made.timestamp, PROGRESS_KEY, None, made.headers or ())


def broken(kind: str, outcomes: list[Record]) -> list[Record]:
    """Do to an outcome topic what its partition is called after."""
    found = list(outcomes)
    match kind:
        case "missing":
            del found[7]
        case "twice":
            found.insert(9, found[7])
        case "altered":
            value = found[7].value
            assert value is not None
            found[7] = found[7]._replace(value=value[:-3] + b"abc")
        case "out_of_order":
            found[7], found[8] = found[8], found[7]
        case "foreign":
            fields = WIRE.loads("outcome", found[7].value)
            fields["source_offset"] += 1
            stranger = WIRE.dumps("outcome", fields)
            found.insert(8, found[7]._replace(value=stranger))
        case "truncated":
            last = WIRE.loads("outcome", found[-1].value)["source_offset"]
            found = [*found[:-4], progress(0, last)]
        case "behind":
            found = found[:-4]
    return found


def written(settings: Settings, logs: Logs, outcomes: list[Record]) -> None:
    """Write the same logs to every partition, and to each outcomes of its kind."""
    producer = Producer(producer_config(settings))
    decisions, rewards, found = TopicNames(settings.topics.prefix).lane("large")
    for partition, kind in enumerate(KINDS):
        for topic, rows in (
            (decisions, logs.records["decisions"]),
            (rewards, logs.records["rewards"]),
            (found, broken(kind, outcomes)),
        ):
            for row in rows:
                producer.produce(
                    topic,
                    row.value,
                    row.key,
                    partition,
                    timestamp=row.timestamp,
                    headers=list(row.headers) or None,
                )
                producer.poll(0)
    assert producer.flush(20) == 0
    before = [TopicPartition(found, KINDS.index("deleted"), 5)]
    before += [TopicPartition(topic, KINDS.index("trimmed"), 30) for topic in (decisions, rewards)]
    client = admin(settings)
    for answer in client.delete_records(before).values():
        answer.result(10)


def lane_settings(kafka: Kafka, s3: SeaweedFS, prefix: str) -> Settings:
    """Give settings with one lane whose rules are those of the generated logs."""
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "s3": {
                "endpoint_url": s3.endpoint_url,
                "bucket": s3.bucket,
                "prefix": prefix,
                "access_key_id": s3.access_key_id,
                "secret_access_key": s3.secret_access_key,
            },
            "topics": {"prefix": prefix, "retention": "9999d", "learner_state_partitions": 1},
            "lanes": {
                "large": {
                    "lateness": "1h",
                    "backward": "1m",
                    "skew": "1m",
                    "max_outcome_bytes": LARGE.max_outcome_bytes,
                    "partitions": len(KINDS),
                }
            },
        }
    )


class Lane:
    """A lane whose partitions are each broken in another way."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.logs, self.outcomes = hours()
        self.names = TopicNames(settings.topics.prefix)
        self.config = folder / "bandstand.toml"
        secret = settings.s3.secret_access_key
        assert secret is not None
        of_lane = settings.lanes["large"]
        self.config.write_text(
            f"""
            [kafka]
            bootstrap_servers = "{settings.kafka.bootstrap_servers}"
            [topics]
            prefix = "{settings.topics.prefix}"
            [s3]
            endpoint_url = "{settings.s3.endpoint_url}"
            bucket = "{settings.s3.bucket}"
            prefix = "{settings.s3.prefix}"
            access_key_id = "{settings.s3.access_key_id}"
            secret_access_key = "{secret.get_secret_value()}"
            [lanes.large]
            lateness = "1h"
            backward = "1m"
            skew = "1m"
            max_outcome_bytes = {of_lane.max_outcome_bytes}
            partitions = {of_lane.partitions}
            """
        )


@pytest.fixture(scope="module")
def lane(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> Lane:
    """Write a lane once for all tests that only look at it."""
    settings = lane_settings(bandstand_kafka, bandstand_s3, "audited.")
    topics.create(settings)
    made = Lane(settings, tmp_path_factory.mktemp("audit"))
    written(settings, made.logs, made.outcomes)
    return made


Audit = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def audit(lane: Lane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audit:
    """Run the command in this process; gives exit code, document (or text) and messages."""

    def call(*arguments: str) -> tuple[int, Any, str]:
        command = ["bandstand", "--config", str(lane.config), "audit", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and out else out, err

    return call


def places(partition: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Give kind, offset and source offset of a partition's differences."""
    return [(d["kind"], d["offset"], d["source_offset"]) for d in partition["differences"]]


def test_a_topic_broken_in_every_way_is_named_in_each(lane: Lane, audit: Audit) -> None:
    """Missing, twice, altered, out of order, foreign, truncated: each with its place."""
    code, document, _ = audit("--json")
    assert (code, document["closes"], document["faults"]) == (1, True, 8)
    found = {kind: places(document["partitions"][at]) for at, kind in enumerate(KINDS)}
    sources = [WIRE.loads("outcome", row.value)["source_offset"] for row in lane.outcomes]
    count = len(sources)
    assert found == {
        "clean": [],
        "missing": [("missing", 7, sources[7])],
        "twice": [("repeated", 9, sources[7])],
        "altered": [("altered", 7, sources[7])],
        "out_of_order": [("out_of_order", 8, sources[7])],
        "foreign": [("foreign", 8, sources[7] + 1)],
        "truncated": [("missing", count - 4, source) for source in sources[-4:]],
        "deleted": [("truncated", 5, source) for source in sources[:5]],
        "trimmed": [],
        "behind": [("pending", None, source) for source in sources[-4:]],
    }
    [missing] = document["partitions"][1]["differences"]
    assert missing["topic"] == lane.names.outcomes("large")
    assert missing["expected"].startswith("defaulted, 0 rewards, ")
    assert f"key d7, time {START + 7 * MINUTE + 1}" in missing["expected"]


def test_every_event_is_accounted_for(lane: Lane, audit: Audit) -> None:
    """The table closes, for people and for programs, and a trimmed log says from where on."""
    _, document, _ = audit("--json")
    clean, trimmed = document["partitions"][0], document["partitions"][KINDS.index("trimmed")]
    decisions, rewards = clean["decisions"], clean["rewards"]
    states = ("joined", "defaulted", "oversize", "duplicate", "invalid", "open")
    assert decisions["records"] == 600
    assert decisions["ticks"] + sum(decisions[state] for state in states) == 600
    assert (decisions["joined"], rewards["joined"]) == (97, 97)
    assert decisions["joined"] + decisions["defaulted"] == len(lane.outcomes)
    assert (clean["judged_from"], clean["judged_from_ms"]) == (0, None)
    assert trimmed["judged_from_ms"] == START + (22 + 62 + 1) * MINUTE
    assert trimmed["outcomes"]["unjudged"] == 85
    assert document["decisions"]["records"] == 6_000 - 30
    code, out, err = audit()
    assert code == 1
    assert re.search(r"│ records +│ 5970 +│ 3970 +│", out), out
    assert re.search(r"│ missing +│ 5 +│", out), out
    assert re.search(r"│ 8 +│ 171 +│ 2023-11-14T23:38:20.000\+00:00 +│ the end", out), out
    assert "8 outcomes are not what they must be" in err


def test_a_span_is_judged_alone(lane: Lane, audit: Audit) -> None:
    """With `--from` and `--to` only the decisions between two ticks are judged, and read."""
    since, end = (iso(START + minutes * MINUTE) for minutes in (100, 130))
    code, document, _ = audit("--from", since, "--to", end, "--json")
    assert (code, document["faults"], document["closes"]) == (0, 0, True)
    first = document["partitions"][0]
    assert first["outcomes"]["equal"] == first["outcomes"]["expected"] == 30
    assert first["judged_from_ms"] == START + 100 * MINUTE
    assert first["decisions"]["records"] == 600 - 2 * 39


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--from", "yesterday"), 2, "is no time"),
        (("--follow", "--to", "1h"), 2, "no --to"),
        (("--lane", "other"), 1, "lane 'other' is not set up"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], code: int, message: str, lane: Lane, audit: Audit
) -> None:
    """A mistake is said in one line, before anything is read."""
    got, out, err = audit(*arguments)
    assert (got, out) == (code, "")
    assert message in err


def test_other_settings_than_the_ticks_are_an_error(
    lane: Lane, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that was set up otherwise can't be audited; the error says which partition."""
    monkeypatch.setenv("BANDSTAND_LANES__LARGE__SKEW", "2m")
    code, out, err = audit()
    assert (code, out) == (1, "")
    assert "error: lane 'large', partition 0: the tick at offset 0 says" in err


def archived(lane: Lane, partition: int, topic: str, rows: Sequence[Record]) -> None:
    """Store records as the archive does, twenty a file."""
    store = Store(lane.settings)
    schema = topic.rsplit(".", 1)[1].removesuffix("s")
    for at in range(0, len(rows), 20):
        cut = Cut(rows[at].offset, rows[at : at + 20])
        name = object_name(topic, partition, cut)
        file = build((schema,), topic, partition, cut, name, WIRE)
        assert store.put_if_absent(name, file.body)


def numbered(rows: Sequence[Record]) -> list[Record]:
    """Give records the offsets that a log would."""
    return [row._replace(offset=at) for at, row in enumerate(rows)]


def test_the_archive_is_audited_like_the_topics(lane: Lane, audit: Audit) -> None:
    """The same files tell the same; what was archived ahead of its decisions isn't judged."""
    decisions, rewards, outcomes = lane.names.lane("large")
    for partition, kind in enumerate(KINDS[:3]):
        archived(
            lane,
            partition,
            decisions,
            lane.logs.records["decisions"][: 500 + 100 * (not partition)],
        )
        archived(lane, partition, rewards, lane.logs.records["rewards"])
        archived(lane, partition, outcomes, numbered(broken(kind, lane.outcomes)))
    code, document, _ = audit("--source", "archive", "--json")
    assert (code, document["faults"], document["closes"]) == (1, 1, True)
    clean, missing, twice = document["partitions"][:3]
    assert clean["outcomes"]["equal"] == len(lane.outcomes)
    assert places(clean) == []
    assert places(missing)[0] == ("missing", 7, 15)
    assert places(twice)[0] == ("repeated", 9, 15)
    assert missing["outcomes"]["unjudged"] > 30
    since, end = (iso(START + minutes * MINUTE) for minutes in (200, 230))
    code, document, _ = audit("--source", "archive", "--from", since, "--to", end, "--json")
    assert (code, document["partitions"][0]["outcomes"]["equal"]) == (0, 30)
    assert document["partitions"][0]["decisions"]["records"] < 400


def test_a_hole_in_the_archive_is_an_error(lane: Lane, audit: Audit) -> None:
    """A file that is gone is named, and nothing is passed over."""
    decisions, rewards, _ = lane.names.lane("large")
    rows = lane.logs.records["decisions"]
    archived(lane, 3, decisions, [*rows[:20], *rows[40:60]])
    archived(lane, 3, rewards, lane.logs.records["rewards"])
    code, out, err = audit("--source", "archive")
    assert (code, out) == (1, "")
    assert "partition 3: the archive has a hole" in err
