"""What the tests of the archive start from: events, records, settings, a running role."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from bandstand.kafka import producer_config
from bandstand.local import Kafka, SeaweedFS
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams.join_types import Record
from tests.waiting import PATIENCE_S, until

WIRE = Wire.single_object()
MIDNIGHT = 1_764_028_800_000
"""2025-11-25, 00:00 UTC."""


def decision(number: int, ts: int = MIDNIGHT, **fields: object) -> bytes:
    """Give the value of a decision among three actions."""
    actions = [
        {"action": a, "probability": p, "numeric": {"price": number / 7}, "categorical": {}}
        for a, p in (("a", 0.5), ("b", 0.3), ("c", 0.2))
    ]
    record = {
        "bandit": "home",
        "decision_id": f"d-{number}",
        "subject": f"s-{number % 5}",
        "ts": ts,
        "action": "abc"[number % 3],
        "propensity": 0.5,
        "actions": actions,
        "subject_numeric": {"age": float(number), "income": 2.5},
        **fields,
    }
    return WIRE.dumps("decision", record)


def reward(number: int, ts: int = MIDNIGHT) -> bytes:
    """Give the value of a reward."""
    record = {"bandit": "home", "decision_id": f"d-{number}", "reward_id": "r", "name": "click"}
    return WIRE.dumps("reward", {**record, "value": 1.0, "ts": ts})


def outcome(number: int) -> bytes:
    """Give the value of an outcome with one reward."""
    one = {"reward_id": "r", "name": "click", "value": 1.0, "ts": MIDNIGHT, "offset": 3}
    record = {
        "state": "joined",
        "source_offset": number,
        "before": MIDNIGHT,
        "window_ms": 1_000,
        "backward_ms": 0,
        "grace_ms": 10,
        "rewards": [one],
        "decision": WIRE.loads("decision", decision(number)),
    }
    return WIRE.dumps("outcome", record)


def snapshot(version: str) -> bytes:
    """Give the value of a snapshot's artifact."""
    texts = dict.fromkeys(("digest", "spec_hash", "spec", "lane", "features_hash"), "x")
    arrays = [{"name": "mean", "shape": [1], "data": b"\0" * 8}]
    lists = {"actions": ["a"], "features": ["one"], "arrays": arrays}
    numbers = {"epoch": 1, "outcomes": 2}
    record = {"bandit": "home", "version": version, "policy": "beta_thompson"}
    return WIRE.dumps("snapshot", {**record, **texts, **lists, **numbers})


def pointer(version: str) -> bytes:
    """Give the value of a pointer to a snapshot."""
    return WIRE.dumps("snapshot_pointer", {"bandit": "home", "version": version})


def tick(offset: int, timestamp: int = MIDNIGHT) -> Record:
    """Give a tick."""
    return Record(offset, timestamp, TICK_KEY, None, [("tick", b'{"window_ms":1000}')])


def given_settings(
    kafka: Kafka, s3: SeaweedFS, prefix: str, archive: Mapping[str, object] | None = None
) -> Settings:
    """Give settings with one lane, ``fast``, of two partitions, and impatient limits."""
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "s3": {
                "endpoint_url": s3.endpoint_url,
                "bucket": s3.bucket,
                "access_key_id": s3.access_key_id,
                "secret_access_key": s3.secret_access_key,
            },
            "topics": {"prefix": prefix, "learner_state_partitions": 2},
            "lanes": {"fast": {"partitions": 2}},
            "archive": {
                "group": f"{prefix}archive",
                "session_timeout": "1500ms",
                "request_timeout": "5s",
                **(archive or {}),
            },
            "log": {"format": "json"},
        }
    )


class Log:
    """A topic with what was written to it."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        self.written: dict[int, list[Record]] = {0: [], 1: []}
        self._producer = Producer(producer_config(settings))

    def write(self, partition: int, *records: Record) -> None:
        """Append records; their offsets are given by the broker."""

        def keep(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            offset = message.offset()
            assert offset is not None
            self.written[partition].append(waiting.popleft()._replace(offset=offset))

        waiting = deque(records)
        for _, timestamp, key, value, headers in records:
            self._producer.produce(
                self.topic,
                value,
                key,
                partition=partition,
                timestamp=timestamp,
                headers=list(headers) or None,
                on_delivery=keep,
            )
        assert self._producer.flush(PATIENCE_S) == 0


def decisions_log(settings: Settings) -> Log:
    """Give the decisions of the lane ``fast``."""
    return Log(settings, TopicNames(settings.topics.prefix).decisions("fast"))


def some_decisions(count: int, start: int = 0) -> list[Record]:
    """Give records of decisions, now."""
    now = time.time_ns() // 1_000_000
    return [
        Record(0, now, f"d-{number}".encode(), decision(number, now), ())
        for number in range(start, start + count)
    ]


class RunningArchive:
    """The role in a process of its own, as an operator runs it.

    Parameters
    ----------
    settings
        Passed on in a file.
    folder
        Where the file and the log go.
    before
        Python that is run first, to make it die at a chosen place.
    """

    def __init__(self, settings: Settings, folder: Path, before: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / f"archive-{len(list(folder.iterdir()))}.log"
        config = folder / f"{self.log_path.stem}.json"
        config.write_text(json.dumps(_clear(settings)))
        code = (
            "import json, sys; from pathlib import Path\n"
            "from bandstand.settings import Settings; from bandstand.archive import role, source\n"
            f"{before}\n"
            "role.run(Settings.model_validate(json.loads(Path(sys.argv[1]).read_text())))\n"
        )
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, str(config)], stderr=log, env=dict(os.environ)
            )

    def __enter__(self) -> RunningArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_path.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Ask its web server; status 0 while there is none."""
        found = re.search(r'"web": "(http[^"]+)"', self.log)
        if found is None:
            return 0, ""
        try:
            with urllib.request.urlopen(found[1] + path, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def wait_ready(self) -> RunningArchive:
        """Wait until it does its work."""
        until(lambda: self.get("/readyz")[0] == 200 or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return self

    def stop(self) -> float:
        """Send SIGTERM; how long it took to end, in seconds."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log
        return time.monotonic() - begin


def _clear(settings: Settings) -> dict[str, object]:
    values = settings.model_dump(mode="json")
    secret = settings.s3.secret_access_key
    assert secret is not None
    values["s3"]["secret_access_key"] = secret.get_secret_value()
    return values
