"""The watchdog in a process of its own, on a real broker that goes away and comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bandstand.local import Kafka
from bandstand.local.ports import HOST, free_ports
from bandstand.settings import KafkaSettings, Settings
from bandstand.watchdog import patience
from tests.waiting import PATIENCE_S, until

ROLE = """
import sys
from bandstand import clients, watchdog
from bandstand.kafka import admin, consumer_config, producer_config
from bandstand.role import running
from bandstand.settings import load_settings

def made(settings):
    return {
        "Producer": clients.Producer(producer_config(settings)),
        "Consumer": clients.Consumer(consumer_config(settings, "watched")),
        "AdminClient": admin(settings),
    }

watchdog._LEAST_S = 0.0
settings = load_settings()
kafka = settings.kafka.model_copy(update={"bootstrap_servers": sys.argv[2]})
with running("thing", settings) as role:
    polled = made(settings)
    for client in polled.values():
        client.list_topics(timeout=30)
    if sys.argv[1] in polled:
        polled["lost"] = made(settings.model_copy(update={"kafka": kafka}))[sys.argv[1]]
    role.health.started()
    print("at work", flush=True)
    while not role.stop.wait(0.05):
        for client in polled.values():
            client.poll(0)
"""
UNANSWERED_S = 3


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Run a broker that may be killed."""
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


class _Role:
    """The role, one of whose clients is stuck where `lost` names its kind."""

    def __init__(self, kafka: Kafka, folder: Path, lost: str = "") -> None:
        self.log = folder / "role.log"
        nowhere = f"{HOST}:{free_ports(1)[0]}"
        environment = {
            **os.environ,
            "BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "BANDSTAND_KAFKA__RECONNECT_BACKOFF_MAX_MS": "500",
            "BANDSTAND_JOIN__PAUSE": "200ms",
            "BANDSTAND_JOIN__SETTLE": f"{UNANSWERED_S * 1_000 // 3 - 200}ms",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", ROLE, lost, nowhere],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
            )

    def wait_until_logged(self, text: str) -> None:
        """Wait for a line."""

        def is_there() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return text in self.log.read_text()

        until(is_there, lambda: f"{text!r} in {self.log.read_text()}")

    def lives_on_for(self, seconds: float) -> None:
        """See that it goes on for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def __enter__(self) -> _Role:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("kind", ["Producer", "Consumer"])
def test_a_client_that_finds_no_broker_beside_one_that_does_ends_its_role(
    kafka: Kafka, tmp_path: Path, kind: str
) -> None:
    """Exit code 70 and the reason, for whoever starts it again."""
    with _Role(kafka, tmp_path, lost=kind) as role:
        assert role.process.wait(PATIENCE_S) == 70
        text = role.log.read_text()
        assert f"a client ({kind}) has had no answer" in text
        assert "start this role again" in text


def test_after_an_outage_each_client_is_asked_also_one_that_says_nothing(
    kafka: Kafka, tmp_path: Path
) -> None:
    """An admin client has nobody who listens to it; the others say that the broker was away."""
    with _Role(kafka, tmp_path, lost="AdminClient") as role:
        role.wait_until_logged("at work")
        kafka.kill()
        kafka.start()
        assert role.process.wait(PATIENCE_S) == 70
        assert "a client (AdminClient) has had no answer" in role.log.read_text()


def test_a_broker_that_is_frozen_or_away_for_long_ends_no_role(
    kafka: Kafka, tmp_path: Path
) -> None:
    """Whatever time it takes, a healthy client is answered when the broker is back."""
    with _Role(kafka, tmp_path) as role:
        role.wait_until_logged("at work")
        kafka.pause()
        try:
            role.lives_on_for(3 * UNANSWERED_S)
        finally:
            kafka.resume()
        role.lives_on_for(2 * UNANSWERED_S)
        kafka.kill()
        role.lives_on_for(3 * UNANSWERED_S)
        kafka.start()
        role.lives_on_for(3 * UNANSWERED_S)
        role.process.terminate()
        assert role.process.wait(PATIENCE_S) == 0


def test_patience_is_longer_than_a_healthy_client_needs() -> None:
    """It grows with the longest time between two tries to connect."""
    assert patience(Settings()) == 60
    slow = KafkaSettings.model_validate({"reconnect_backoff_max_ms": "60000"})
    assert patience(Settings(kafka=slow)) == 180
