"""The audit of a lane on a real broker and a real store: clean, broken in every way, followed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
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
from bandstand.settings import Settings, load_settings
from bandstand.streams import topics
from bandstand.streams.join_types import PROGRESS_KEY, Record, Tail, progress_record
from tests.streams.join_driver import Schedule, run
from tests.streams.join_generators import LARGE
from tests.streams.join_logs import START, WIRE, Logs
from tests.waiting import PATIENCE_S, until

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


def hours(count: int = 200) -> tuple[Logs, list[Record]]:
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


def write(settings: Settings, partition: int, *logs: Sequence[Record]) -> None:
    """Append decisions, rewards and outcomes to one partition."""
    producer = Producer(producer_config(settings))
    for topic, rows in zip(TopicNames(settings.topics.prefix).lane("large"), logs, strict=True):
        for row in rows:
            headers: Any = list(row.headers) or None
            producer.produce(
                topic, row.value, row.key, partition, timestamp=row.timestamp, headers=headers
            )
    assert producer.flush(PATIENCE_S) == 0


def delete_before(settings: Settings, partition: int, offsets: dict[str, int]) -> None:
    """Do what retention does to the beginning of topics."""
    client = admin(settings)
    places = [TopicPartition(topic, partition, offset) for topic, offset in offsets.items()]
    for answer in client.delete_records(places).values():
        answer.result(PATIENCE_S)


def configured(folder: Path, kafka: Kafka, prefix: str, partitions: int, more: str = "") -> Path:
    """Write settings with one lane whose rules are those of the generated logs."""
    path = folder / "bandstand.toml"
    path.write_text(
        f"""
        [kafka]
        bootstrap_servers = "{kafka.bootstrap_servers}"
        [topics]
        prefix = "{prefix}"
        retention = "9999d"
        learner_state_partitions = 1
        [lanes.large]
        lateness = "1h"
        backward = "1m"
        skew = "1m"
        max_outcome_bytes = {LARGE.max_outcome_bytes}
        partitions = {partitions}
        {more}
        """
    )
    return path


class Lane:
    """A lane whose partitions are each broken in another way."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.settings = load_settings(config, {})
        self.names = TopicNames(self.settings.topics.prefix)
        self.logs, self.outcomes = hours()
        topics.create(self.settings)
        for partition, kind in enumerate(KINDS):
            write(
                self.settings, partition, *self.logs.records.values(), broken(kind, self.outcomes)
            )
        self.document: dict[str, Any] = {}
        decisions, rewards, outcomes = self.names.lane("large")
        delete_before(self.settings, KINDS.index("deleted"), {outcomes: 5})
        delete_before(self.settings, KINDS.index("trimmed"), {decisions: 30, rewards: 30})


@pytest.fixture(scope="module")
def lane(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> Lane:
    """Write a lane for all tests that only look at it.

    Its names are new each time: xdist may bring some of them to a worker that had others before.
    """
    prefix = f"audited{uuid.uuid4().hex[:7]}"
    s3 = f"""
        [s3]
        endpoint_url = "{bandstand_s3.endpoint_url}"
        bucket = "{bandstand_s3.bucket}"
        prefix = "{prefix}/"
        access_key_id = "{bandstand_s3.access_key_id}"
        secret_access_key = "{bandstand_s3.secret_access_key}"
        """
    folder = tmp_path_factory.mktemp("audit")
    return Lane(configured(folder, bandstand_kafka, f"{prefix}.", len(KINDS), s3))


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


def document_of(lane: Lane, audit: Audit) -> dict[str, Any]:
    """Audit the whole lane, once for all tests."""
    if not lane.document:
        code, lane.document, _ = audit("--json")
        assert code == 1
    return lane.document


def test_a_topic_broken_in_every_way_is_named_in_each(lane: Lane, audit: Audit) -> None:
    """Missing, twice, altered, out of order, foreign, truncated: each with its place."""
    document = document_of(lane, audit)
    assert (document["closes"], document["faults"]) == (True, 8)
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
    document = document_of(lane, audit)
    clean, trimmed = document["partitions"][0], document["partitions"][KINDS.index("trimmed")]
    decisions, rewards = clean["decisions"], clean["rewards"]
    states = ("joined", "defaulted", "oversize", "duplicate", "invalid", "open")
    assert decisions["records"] == 400
    assert decisions["ticks"] + sum(decisions[state] for state in states) == 400
    assert (decisions["joined"], rewards["joined"]) == (63, 63)
    assert decisions["joined"] + decisions["defaulted"] == len(lane.outcomes)
    assert (clean["judged_from"], clean["judged_from_ms"]) == (0, None)
    assert trimmed["judged_from_ms"] == START + (22 + 62 + 1) * MINUTE
    assert trimmed["outcomes"]["unjudged"] == 85
    assert document["decisions"]["records"] == 4_000 - 30
    code, out, err = audit()
    assert code == 1
    assert re.search(r"│ records +│ 3970 +│ 2640 +│", out), out
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
    assert first["decisions"]["records"] == 400 - 2 * 39


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


def archived(settings: Settings, partition: int, topic: str, rows: Sequence[Record]) -> None:
    """Store records as the archive does, twenty a file."""
    store = Store(settings)
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
            lane.settings,
            partition,
            decisions,
            lane.logs.records["decisions"][: 400 if kind == "clean" else 330],
        )
        archived(lane.settings, partition, rewards, lane.logs.records["rewards"])
        archived(lane.settings, partition, outcomes, numbered(broken(kind, lane.outcomes)))
    code, document, _ = audit("--source", "archive", "--json")
    assert (code, document["faults"], document["closes"]) == (1, 1, True)
    clean, missing, twice = document["partitions"][:3]
    assert clean["outcomes"]["equal"] == len(lane.outcomes)
    assert places(clean) == []
    assert places(missing)[0] == ("missing", 7, 15)
    assert places(twice)[0] == ("repeated", 9, 15)
    assert missing["outcomes"]["unjudged"] == 25
    since, end = (iso(START + minutes * MINUTE) for minutes in (170, 180))
    code, document, _ = audit("--source", "archive", "--from", since, "--to", end, "--json")
    assert (code, document["partitions"][0]["outcomes"]["equal"]) == (0, 10)
    assert document["partitions"][0]["decisions"]["records"] < 300


def test_a_hole_in_the_archive_is_an_error(
    lane: Lane, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is gone is named, and nothing is passed over."""
    # An archive of its own: another test, which looks at all that is in the lane's, may come later.
    monkeypatch.setenv("BANDSTAND_S3__PREFIX", f"{lane.settings.s3.prefix}holed/")
    settings = load_settings(lane.config)
    decisions, rewards, _ = lane.names.lane("large")
    rows = lane.logs.records["decisions"]
    archived(settings, 3, decisions, [*rows[:20], *rows[40:60]])
    archived(settings, 3, rewards, lane.logs.records["rewards"])
    code, out, err = audit("--source", "archive")
    assert (code, out) == (1, "")
    assert "partition 3: the archive has a hole" in err


class Followed:
    """An audit that goes on, in a process of its own."""

    def __init__(self, config: Path) -> None:
        self.log = config.with_name("audit.log")
        self.out = config.with_name("audit.json")
        command = [sys.executable, "-m", "bandstand", "--config", str(config), "audit"]
        with self.log.open("wb") as log, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--follow", "--json"], stdout=out, stderr=log, cwd=config.parent
            )

    def ask(self, path: str) -> tuple[int, str]:
        """Ask its web server; status 0 while there is none."""
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"http://[0-9.]+:[0-9]+", self.log.read_text())
        if found is None:
            return 0, ""
        try:
            with urllib.request.urlopen(found[0] + path, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            raise AssertionError(self.log.read_text()) from error

    def metric(self, name: str, kind: str = "") -> float | None:
        """Give a metric of partition 0; None while there is none."""
        labels = f'{{kind="{kind}",' if kind else "{"
        start = f'bandstand_audit_{name}{labels}lane="large",partition="0"}} '
        for line in self.ask("/metrics")[1].splitlines():
            if line.startswith(start):
                return float(line.removeprefix(start))
        return None


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """Run a broker that the test may kill."""
    kafka = Kafka(tmp_path / "kafka")
    kafka.start()
    yield kafka
    kafka.stop()


def test_an_audit_that_goes_on_survives_its_broker(own_kafka: Kafka, tmp_path: Path) -> None:
    """Killed and started again, the broker is read on where it was left; a fault is told."""
    config = configured(tmp_path, own_kafka, "t.", 1)
    settings = load_settings(config, {})
    topics.create(settings)
    logs, outcomes = hours(40)
    decisions, rewards = logs.records.values()
    write(settings, 0, decisions[:50], rewards[:40], outcomes[:10])
    followed = Followed(config)
    try:
        until(lambda: followed.metric("equal_outcomes") == 10, "ten outcomes are judged")
        assert followed.ask("/readyz")[0] == 200
        own_kafka.kill()
        until(lambda: followed.ask("/readyz")[0] == 503, "it says that it waits")
        own_kafka.start()
        until(lambda: followed.ask("/readyz")[0] == 200, "it goes on")
        write(settings, 0, decisions[50:], rewards[40:], [*outcomes[10:20], *outcomes[21:]])
        until(lambda: followed.metric("differences", "missing") == 1, "what is missing is told")
        last = WIRE.loads("outcome", outcomes[-1].value)["source_offset"]
        # The tick behind the last outcome is done with, too.
        until(lambda: followed.metric("audited_offset") == last + 1, "all is read")
        until(lambda: followed.metric("lag_records") == len(decisions) - last - 2, "no lag")
        assert followed.metric("equal_outcomes") == len(outcomes) - 1
        assert followed.metric("unclosed") == 0
        assert '"kind": "missing"' in followed.log.read_text()
        followed.process.send_signal(signal.SIGTERM)
        assert followed.process.wait(PATIENCE_S) == 1
        document = json.loads(followed.out.read_text())
        assert (document["faults"], document["outcomes"]["found"]) == (1, len(outcomes) - 1)
    finally:
        followed.process.kill()
        followed.process.wait()
