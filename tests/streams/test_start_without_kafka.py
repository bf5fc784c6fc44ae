"""Roles that are started while Kafka is away, or refuses them; as an operator starts them."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faust
import pytest
from yarl import URL

from bandstand.local import Kafka, SeaweedFS
from bandstand.local.ports import HOST, free_ports
from bandstand.streams.log_reader import Found
from bandstand.streams.transport import BatchTransport
from bandstand.supervisor import ROLES
from tests.streams.bench import Bench, Worker
from tests.waiting import PATIENCE_S, STOPS_WITHIN_S, until

FAUST = ("-m", "faust", "-A", "bandstand.streams.app", "worker", "-l", "info")
CONNECT_S = 1.0
ADDRESS = "BANDSTAND_KAFKA__BOOTSTRAP_SERVERS"


@pytest.fixture
def bench(
    bandstand_kafka: Kafka, bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> Iterator[Bench]:
    """Make the topics of a lane."""
    bench = Bench(bandstand_kafka, bandstand_prefix, tmp_path, 2, None, **bandstand_s3.environment)
    yield bench
    bench.close()


def _start(bench: Bench, role: str) -> Worker:
    return bench.start([sys.executable, "-m", "bandstand", role])


def _ready(worker: Worker) -> tuple[bool, dict[str, Any]]:
    """Ask whether it is ready, and if not, why."""
    try:
        return True, json.loads(worker.get("/readyz"))["waiting"]
    except urllib.error.HTTPError as error:
        with error:
            return False, json.loads(error.read())["waiting"]


def _says_that_it_is_refused(worker: Worker) -> bool:
    return "Connection refused" in _ready(worker)[1]["kafka"]


def test_roles_that_start_while_kafka_is_away_go_on_when_it_comes(
    bandstand_s3: SeaweedFS, bandstand_prefix: str, tmp_path: Path
) -> None:
    """They say so at once, are healthy and not ready meanwhile, and do their work afterwards."""
    with Kafka(tmp_path / "kafka") as kafka:
        bench = Bench(kafka, bandstand_prefix, tmp_path, 2, None, **bandstand_s3.environment)
        kafka.kill()
        try:
            workers = [_start(bench, role) for role in ROLES]
            workers.append(bench.start([sys.executable, *FAUST]))
            for worker in workers:
                worker.wait_until_logged("Kafka can't be reached, waits for it")
                until(partial(_says_that_it_is_refused, worker), "the cause")
                assert not _ready(worker)[0]
                assert worker.get("/healthz")
            kafka.start()
            until(lambda: all(_ready(worker)[0] for worker in workers), "roles at work")
            ids = bench.decide(10)
            bench.wait_for(ids)
            assert [worker.stop()[0] for worker in workers] == [0] * len(workers)
        finally:
            bench.close()


def test_a_role_that_waits_for_kafka_ends_at_once_when_told_to(bench: Bench) -> None:
    """SIGTERM, and it is gone with exit code 0."""
    bench.environment[ADDRESS] = f"{HOST}:{free_ports(1)[0]}"
    workers = [_start(bench, role) for role in ROLES]
    for worker in workers:
        worker.wait_until_logged("Kafka can't be reached, waits for it")
    ends = [worker.stop() for worker in workers]
    assert [code for code, _ in ends] == [0] * len(ROLES)
    assert max(seconds for _, seconds in ends) < STOPS_WITHIN_S


def test_a_role_that_kafka_refuses_ends_and_says_what_to_check(bench: Bench) -> None:
    """Who can't log in doesn't wait for ever: exit code 1 and one line."""
    bench.environment |= {
        "BANDSTAND_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "BANDSTAND_KAFKA__SASL_MECHANISM": "PLAIN",
        "BANDSTAND_KAFKA__SASL_USERNAME": "somebody",
        "BANDSTAND_KAFKA__SASL_PASSWORD": "wrong",
    }
    workers = [_start(bench, role) for role in ROLES]
    for worker in workers:
        assert worker.process.wait(PATIENCE_S) == 1, worker.log.read_text()
        [line] = [row for row in worker.log.read_text().splitlines() if row.startswith("error:")]
        assert f"Kafka at {bench.environment[ADDRESS]} refuses this client" in line


def test_missing_topics_are_not_waited_for(bench: Bench) -> None:
    """Only somebody can make them: exit code 1, and what to do."""
    bench.environment["BANDSTAND_TOPICS__PREFIX"] += "others."
    workers = [_start(bench, role) for role in ROLES]
    for worker in workers:
        assert worker.process.wait(PATIENCE_S) == 1, worker.log.read_text()
        assert "run 'bandstand topics create'" in worker.log.read_text()


def test_fausts_producer_waits_for_a_broker_that_has_gone_away_since(tmp_path: Path) -> None:
    """The role saw Kafka answer; it is killed before Faust has connected, and comes back."""
    with Kafka(tmp_path) as kafka:
        kafka.kill()
        back = threading.Timer(2 * CONNECT_S, kafka.start)
        back.start()
        began = time.monotonic()
        asyncio.run(_start_producer(kafka.bootstrap_servers))
        assert time.monotonic() - began > 2 * CONNECT_S
        back.join()


def _fail(error: BaseException) -> None:
    pytest.fail(str(error))


async def _start_producer(servers: str) -> None:
    url = URL(f"kafka://{servers}")
    app = faust.App("starts", broker=[url], producer_request_timeout=CONNECT_S)
    transport = BatchTransport([url], app, read=lambda: Found([], few=True), die=_fail)
    producer = transport.create_producer()
    async with asyncio.timeout(PATIENCE_S):
        await producer.start()
    await producer.stop()
