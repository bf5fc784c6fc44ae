"""The role ``publish`` on a real broker, and the reader of what it has published."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bandstand.errors import StateError
from bandstand.learners.policies import policy_from_snapshot
from bandstand.local import Kafka
from bandstand.partitioner import partition_for
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_drift import moment
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import Position
from bandstand.streams.snapshots import list_snapshots, load_snapshot
from bandstand.streams.specs import apply_spec, specs_in_force
from bandstand.streams.transactions import Transactions
from tests.streams.given import everything_in, given_settings, given_spec
from tests.streams.outcomes import START_MS, outcome, outcome_record, random_outcomes
from tests.streams.role_process import RoleProcess, metrics_of
from tests.waiting import STOPS_WITHIN_S, until

WIRE = Wire.single_object()
_FREEZES_AT = """
import os, signal
from bandstand.streams.publish import Publisher
make = Publisher._make
def freeze(self, bandit):
    made = make(self, bandit)
    if made is not None and made.snapshot["outcomes"] == {outcomes}:
        os.kill(os.getpid(), signal.SIGSTOP)
    return made
Publisher._make = freeze
"""


_BREAKS = """
from bandstand.learners.softmax import Softmax
from bandstand.schemas.spec import Spec
from bandstand.streams import publish

def solve(self, spec, sums):
    return 1 / 0

acted = publish.acted
def wide(spec, change):
    fields = acted(spec, change).model_dump(mode="json")
    return Spec.model_validate({**fields, "description": "x" * 3_000_000 * (spec.bandit == "wide")})

Softmax.solve, publish.acted = solve, wide
"""


class _Learner:
    """Writes what a learner of one outcome partition would."""

    def __init__(
        self,
        settings: Settings,
        outcomes: Iterator[dict[str, object]] | None = None,
        partition: int = 0,
    ) -> None:
        self._core = LearnCore("fast", partition, WIRE, Position(0))
        self.follow(settings)
        topic = TopicNames(settings.topics.prefix).learner_state
        self._transactions = Transactions(settings, f"{topic}.test.{partition}", topic)
        self._transactions.open()
        self._outcomes = outcomes or random_outcomes(1_000, seed=1)

    def follow(self, settings: Settings) -> None:
        """Take the specs in force; those that are new begin here."""
        self._core.follow(specs_in_force(settings))
        self._core.open()

    def learn(self, count: int) -> None:
        """Learn more outcomes and commit."""
        start = self._core.position.next_offset
        rows = [outcome_record(start + i, next(self._outcomes), WIRE) for i in range(count)]
        self._core.learn(rows)
        writes = [(partition_for(w.owner, 2), w.key, w.value) for w in self._core.writes()]
        self._transactions.write(writes)
        self._core.written()


def _outcomes_of_current(settings: Settings, bandit: str = "home") -> int:
    found = [s.outcomes for s in list_snapshots(settings, bandit) if s.current]
    return found[0] if found else -1


def _wait_for(settings: Settings, outcomes: int) -> None:
    until(lambda: _outcomes_of_current(settings) == outcomes)


def _is_frozen(role: RoleProcess) -> bool:
    status = Path(f"/proc/{role.process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"


def _apply(settings: Settings, specs: list[Spec]) -> list[int]:
    with ThreadPoolExecutor(len(specs)) as pool:
        return list(pool.map(lambda spec: apply_spec(settings, spec), specs))


def _pointers(settings: Settings) -> list[str]:
    messages = everything_in(settings, TopicNames(settings.topics.prefix).snapshots)
    return [
        WIRE.loads("snapshot_pointer", bytes(message.value() or b""))["version"]
        for message in messages
        if message.key() == b"home"
    ]


@pytest.fixture
def settings(bandstand_kafka: Kafka, bandstand_prefix: str) -> Settings:
    """Make topics and one bandit, ``home``."""
    publish = {
        "group": f"{bandstand_prefix}publish",
        "session_timeout": "1s",
        "interval": "20ms",
        "keep_artifacts": 3,
    }
    settings = given_settings(bandstand_kafka, bandstand_prefix, publish=publish)
    topics.create(settings)
    apply_spec(settings, given_spec())
    return settings


def test_snapshots_follow_specs_and_sums_and_never_go_back(
    settings: Settings, tmp_path: Path
) -> None:
    """A killed publisher's successor publishes nothing older and nothing twice; few are kept."""
    learner = _Learner(settings)
    with RoleProcess("publish", settings, tmp_path) as first:
        _wait_for(settings, 0)
        for total in (5, 10, 15, 20):
            learner.learn(5)
            _wait_for(settings, total)
        apply_spec(settings, given_spec("second"))
        until(lambda: _outcomes_of_current(settings, "second") == 0)
        first.kill()
    before = _pointers(settings)
    with RoleProcess("publish", settings, tmp_path) as second:
        second.wait_until_ready()
        learner.learn(5)
        _wait_for(settings, 25)
        until(lambda: metrics_of(second, "bandstand_publish_outcomes") == {'{bandit="home"}': 25})
        metrics = metrics_of(second, "bandstand_publish_")
        assert metrics["bandits"] == 2
        assert metrics["solve_seconds_count"] >= 1
        assert metrics['condition_number{bandit="home"}'] > 1
        newest = metrics['newest_decision_timestamp_seconds{bandit="home"}']
        assert newest == load_snapshot(settings, "home")["newest"] / 1_000
        assert second.stop() < STOPS_WITHIN_S
    after = _pointers(settings)
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    kept = list_snapshots(settings, "home")
    assert [info.outcomes for info in kept] == [15, 20, 25]
    assert [info.parent for info in kept[1:]] == [info.version for info in kept[:-1]]


def test_a_publisher_frozen_before_it_writes_cannot_step_back(
    settings: Settings, tmp_path: Path
) -> None:
    """What a zombie had ready when another took over is never seen, and it goes on as a member."""
    learner = _Learner(settings)
    with RoleProcess("publish", settings, tmp_path, _FREEZES_AT.format(outcomes=10)) as zombie:
        _wait_for(settings, 0)
        learner.learn(5)
        _wait_for(settings, 5)
        learner.learn(5)
        until(lambda: _is_frozen(zombie))
        with RoleProcess("publish", settings, tmp_path) as other:
            _wait_for(settings, 10)
            learner.learn(5)
            _wait_for(settings, 15)
            zombie.process.send_signal(signal.SIGCONT)
            until(lambda: metrics_of(zombie, "bandstand_publish_")["fenced_total"] >= 1)
            zombie.wait_until_ready()
            assert other.stop() < STOPS_WITHIN_S
        learner.learn(5)
        _wait_for(settings, 20)
    assert [int(version.split("-")[1]) for version in _pointers(settings)] == [0, 5, 10, 15, 20]


def test_a_published_snapshot_can_decide_and_is_found_by_version(
    settings: Settings, tmp_path: Path
) -> None:
    """The record on the topic is all that serving needs; an unknown version names the known."""
    with RoleProcess("publish", settings, tmp_path):
        _wait_for(settings, 0)
    snapshot = load_snapshot(settings, "home")
    policy = policy_from_snapshot(snapshot)
    choice = policy.decide({"age": 30.0, "plan": "paid"}, ["a", "b"])
    assert choice.probabilities.sum() == pytest.approx(1.0)
    assert load_snapshot(settings, "home", snapshot["version"]) == snapshot
    with pytest.raises(StateError, match=f"no snapshot 1-1-aa; kept: {snapshot['version']}"):
        load_snapshot(settings, "home", "1-1-aa")


def test_fewer_outcomes_than_asked_for_make_no_version(settings: Settings, tmp_path: Path) -> None:
    """The publisher heeds the setting."""
    publish = settings.publish.model_copy(update={"least_outcomes": 10})
    patient = settings.model_copy(update={"publish": publish})
    learner = _Learner(settings)
    with RoleProcess("publish", patient, tmp_path) as role:
        _wait_for(settings, 0)
        for _ in range(3):
            learner.learn(4)
        _wait_for(settings, 12)
        assert role.stop() < STOPS_WITHIN_S
    assert [int(version.split("-")[1]) for version in _pointers(settings)] == [0, 12]


def test_two_publishers_share_the_bandits(settings: Settings, tmp_path: Path) -> None:
    """When a second one comes and the first one goes, every bandit goes on being published."""
    bandits = [f"b{i}" for i in range(6)]
    with RoleProcess("publish", settings, tmp_path) as first:
        first.wait_until_ready()
        with RoleProcess("publish", settings, tmp_path) as second:
            second.wait_until_ready()
            _apply(settings, [given_spec(bandit) for bandit in bandits])
            until(lambda: all(_outcomes_of_current(settings, b) == 0 for b in bandits))
            assert first.stop() < STOPS_WITHIN_S
            changed = _apply(settings, [given_spec(b, default=0.5) for b in bandits])
            until(lambda: [load_snapshot(settings, b)["epoch"] for b in bandits] == changed)


def _swapped(
    count: int, swap: int, bandits: Sequence[str] = ("home",)
) -> Iterator[dict[str, object]]:
    """Give outcomes, a millisecond each: only a's bring a reward, and from `swap` on only b's."""
    for number in range(count):
        action = "abc"[number // len(bandits) % 3]
        clicks = int(action == ("a" if number < swap else "b"))
        bandit = bandits[number % len(bandits)]
        yield outcome(number, bandit=bandit, action=action, clicks=clicks)


def test_a_change_of_rewards_becomes_a_spec_with_its_reason(
    settings: Settings, tmp_path: Path
) -> None:
    """Rewards swap: the publisher opens an epoch that begins there, once, and says why."""
    drift = {"step": "100ms", "act": "epoch"}
    spec = Spec.model_validate({**given_spec().model_dump(mode="json"), "drift": drift})
    epoch = apply_spec(settings, spec, "me")
    learner = _Learner(settings, _swapped(9_000, swap=4_500))
    with RoleProcess("publish", settings, tmp_path) as role:
        learner.learn(4_500)
        _wait_for(settings, 4_500)
        assert specs_in_force(settings)["home"].epoch == epoch
        learner.learn(2_250)
        until(lambda: specs_in_force(settings)["home"].epoch > epoch)
        learner.follow(settings)
        _Learner(settings, partition=1).learn(0)
        learner.learn(2_250)
        _wait_for(settings, 2_250)
        assert role.stop() < STOPS_WITHIN_S
    in_force = specs_in_force(settings)["home"].spec
    assert in_force.since == moment(START_MS + 4_500)
    records = everything_in(settings, TopicNames(settings.topics.prefix).specs)
    told = [WIRE.loads("spec", bytes(message.value() or b"")) for message in records]
    assert [each["author"] for each in told] == ["", "me", "bandstand publish"]
    assert told[-1]["reason"].startswith("drift: epoch, for 'a' brings 0 of its range since 2023-")
    assert apply_spec(settings, spec, instead_of=epoch) > epoch  # somebody else's stays
    assert specs_in_force(settings)["home"].spec == in_force


def test_one_bandit_that_breaks_stops_no_other(settings: Settings, tmp_path: Path) -> None:
    """A learner that raises, and an act on drift too large for its record, are said and counted."""
    fields = {**given_spec().model_dump(mode="json"), "drift": {"step": "100ms", "act": "epoch"}}
    broken: dict[str, Any] = {
        "bandit": "broken",
        "features": [],
        "policy": {"name": "softmax"},
        "drift": None,
    }
    for more in ({}, {"bandit": "wide"}, broken):
        apply_spec(settings, Spec.model_validate({**fields, **more}))
    before = specs_in_force(settings)
    learner = _Learner(settings, _swapped(9_000, 4_500, ["home", "wide"]))
    with RoleProcess("publish", settings, tmp_path, _BREAKS) as role:
        learner.learn(9_000)
        until(lambda: specs_in_force(settings)["home"].epoch > before["home"].epoch)
        failures = "bandstand_publish_failures_total"
        both = {'{bandit="wide"}', '{bandit="broken"}'}
        until(lambda: metrics_of(role, failures).keys() >= both)
        assert metrics_of(role, failures).keys() == both
        assert _outcomes_of_current(settings, "wide") == 4_500
        assert role.stop() < STOPS_WITHIN_S
    log = role.log.read_text()
    assert '"exc_type": "ZeroDivisionError"' in log
    assert '"name": "solve"' in log  # the place in the learner
    assert specs_in_force(settings)["wide"] == before["wide"]


def _is_of(settings: Settings, bandit: str, epoch: int) -> bool:
    """Whether a bandit's current snapshot is one of an epoch."""
    return bool(load_snapshot(settings, bandit)["epoch"] == epoch)


def test_smoothing_that_comes_later_begins_at_the_current_snapshot(
    settings: Settings, tmp_path: Path
) -> None:
    """A publisher that passed over what the next one is to be near reads it again."""
    mixed = given_spec("mixed").model_dump(mode="json")
    smooth = {**mixed, "bandit": "smooth", "features": [], "policy": {"name": "beta_thompson"}}
    with RoleProcess("publish", settings, tmp_path) as role:
        for fields in (smooth, mixed):
            apply_spec(settings, Spec.model_validate(fields))
        until(lambda: _outcomes_of_current(settings, "smooth") == 0)
        until(lambda: _outcomes_of_current(settings, "mixed") == 0)
        first = load_snapshot(settings, "mixed")
        for fields in (smooth, mixed):
            bound = {**fields, "smoothing": {"most_change": 0.1}}
            epoch = apply_spec(settings, Spec.model_validate(bound))
            until(partial(_is_of, settings, str(fields["bandit"]), epoch))
        assert role.stop() < STOPS_WITHIN_S
    arrays = {array["name"] for array in load_snapshot(settings, "smooth")["arrays"]}
    assert "allocation" in arrays
    (part,) = load_snapshot(settings, "mixed")["earlier"]
    assert (part["version"], part["weight"]) == (first["version"], 0.9)
