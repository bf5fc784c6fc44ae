"""What a client does without any broker."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from prometheus_client import REGISTRY

from bandstand.errors import DecisionError, StateError
from bandstand.serving import Client
from bandstand.serving.bootstrap import write_snapshot
from tests.serving.given import HOMEPAGE, NOWHERE, client, settings_for, snapshot
from tests.waiting import PATIENCE_S

SETTINGS = settings_for(NOWHERE)


def test_a_full_queue_drops_the_log_and_says_so() -> None:
    """Deciding goes on; the decision says it wasn't logged, and drops are counted."""
    small = settings_for(NOWHERE, "full.", serve={"queue_max_messages": 10})
    with client(small) as it:
        logged = [it.decide("new", "user", actions=["a", "b"]).logged for _ in range(25)]
    assert logged == [True] * 10 + [False] * 15
    sample = "bandstand_serving_dropped_total"
    assert REGISTRY.get_sample_value(sample, {"topic": "full.default.decisions"}) == 15


def test_what_was_queued_and_never_delivered_is_counted_as_lost() -> None:
    """A client that is closed while the broker is away says how much went with it."""
    with client(settings_for(NOWHERE, "lost.")) as it:
        for _ in range(7):
            assert it.decide("new", "user", actions=["a"]).logged
    sample = "bandstand_serving_lost_total"
    assert REGISTRY.get_sample_value(sample, {"topic": "lost.default.decisions"}) == 7


def test_deciding_is_fast_without_a_broker(tmp_path: Path) -> None:
    """No decision waits for a connection; the bound is far above the budget, for busy machines."""
    write_snapshot(tmp_path / "a.snapshot", snapshot(HOMEPAGE, 3), published=time.time())
    with client(SETTINGS, bootstrap=tmp_path) as it:
        took = []
        for _ in range(500):
            began = time.perf_counter()
            it.decide("homepage", "user")
            took.append(time.perf_counter() - began)
    assert median(took) < 0.005


def test_uniform_over_the_given_actions_is_the_last_step() -> None:
    """Without a snapshot the given actions are equally likely, and no version is claimed."""
    with client(SETTINGS) as it:
        decision = it.decide("new", "user", {"age": 3}, ["a", "b", "c", "d"])
    assert decision.probabilities == dict.fromkeys("abcd", 0.25)
    assert (decision.fallback, decision.version, decision.age) == ("default", "", None)


def test_metrics_count_decisions_by_step() -> None:
    """A service's own registry has the counts; no server is started for them."""
    with client(SETTINGS) as it:
        for _ in range(3):
            it.decide("counted", "user", actions=["a"])
    labels = {"bandit": "counted", "fallback": "default"}
    assert REGISTRY.get_sample_value("bandstand_serving_decisions_total", labels) == 3


def test_a_clock_far_ahead_is_refused_before_the_broker_refuses_a_batch() -> None:
    """An event time beyond the lane's skew is an error that names both."""
    with (
        client(SETTINGS, clock=lambda: time.time() + 100) as it,
        pytest.raises(DecisionError, match=r"lies \d+ ms ahead .*lane 'default': up to 1m"),
    ):
        it.decide("new", "user", actions=["a"])


def test_a_subject_must_be_a_string() -> None:
    """A number as the subject is a mistake in the service, and named."""
    subject: object = 17
    with client(SETTINGS) as it, pytest.raises(DecisionError, match="subject is 17; allowed"):
        it.decide("new", subject, actions=["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [
        {"bandit": "\ud83d"},
        {"subject": "\ud83d"},
        {"context": {"page": "\ud83d"}},
        {"context": {"\ud83d": 3}},
        {"actions": ["a", "\ud83d"]},
    ],
)
def test_half_of_a_surrogate_pair_is_refused(asked: dict[str, Any]) -> None:
    """No text of a decision that can't be written passes as another kind of error."""
    with client(SETTINGS) as it, pytest.raises(DecisionError, match="half of a surrogate pair"):
        it.decide(**{"bandit": "new", "subject": "user", "actions": ["a"], **asked})


def test_a_closed_client_refuses() -> None:
    """Nothing is decided that could not be logged."""
    with client(SETTINGS) as it:
        pass
    with pytest.raises(DecisionError, match="can't decide: it is closed"):
        it.decide("new", "user", actions=["a"])


def test_a_client_refuses_in_a_forked_child() -> None:
    """Kafka clients don't survive a fork, so the child is told to make its own."""
    code = """
import os, sys
from bandstand.errors import DecisionError
from tests.serving.given import *
with client(settings_for(NOWHERE)) as it:
    child = os.fork()
    if not child:
        try:
            it.decide("new", "user", actions=["a"])
        except DecisionError as error:
            print(error, flush=True)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert it.decide("new", "user", actions=["a"]).logged
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert "forked from the one that made it" in done.stdout


@pytest.mark.parametrize("content", [b"", b"not a snapshot", b"\xc3\x01" + b"\x00" * 20])
def test_a_bootstrap_file_that_is_none_stops_the_start(tmp_path: Path, content: bytes) -> None:
    """A safety net with a hole is named before it is needed."""
    file = tmp_path / "homepage.snapshot"
    file.write_bytes(content)
    with pytest.raises(StateError, match=r"homepage\.snapshot can't be used: .*delete it"):
        Client(SETTINGS, bootstrap=file)


def test_a_bootstrap_file_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    """The first start of a service has none."""
    with client(SETTINGS, bootstrap=tmp_path / "none.snapshot") as it:
        assert it.decide("homepage", "user", actions=["a"]).fallback == "default"


def test_the_age_of_a_file_is_that_of_its_snapshot(tmp_path: Path) -> None:
    """A file saved late is as old as what is in it."""
    write_snapshot(tmp_path / "a.snapshot", snapshot(HOMEPAGE), published=time.time() - 3_600)
    with client(SETTINGS, bootstrap=tmp_path) as it:
        age = it.decide("homepage", "user").age
    assert age is not None
    assert 3_600 <= age.total_seconds() < 3_660
