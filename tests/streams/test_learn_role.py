"""The role ``learn`` on a real broker: what it has learned, whatever is killed, frozen or late."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from bandstand.kafka import admin, end_offsets, producer_config
from bandstand.learners.grid import HEADROOM
from bandstand.learners.snapshots import rank
from bandstand.learners.statistics import Statistics
from bandstand.local import Kafka
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.learn import transactional_id
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import (
    PartitionSums,
    Position,
    SumsTable,
    is_position,
    position_of,
    sums_records,
)
from bandstand.streams.publish_core import pointer_version
from bandstand.streams.records import record_of
from bandstand.streams.snapshots import load_snapshot
from bandstand.streams.specs import apply_spec, specs_in_force
from bandstand.streams.transactions import FencedError, Transactions
from tests.streams.given import (
    everything_in,
    given_records,
    given_settings,
    given_spec,
    never_expelled,
)
from tests.streams.outcomes import START_MS, outcome, outcome_record, random_outcomes
from tests.streams.role_process import RoleProcess, metrics_of, wait_for_metrics
from tests.waiting import PATIENCE_S, STOPS_WITHIN_S, until

WIRE = Wire.single_object()
PARTITIONS = 2
_KNOWS_NOTHING_YET = """
from confluent_kafka import KafkaError, KafkaException
from bandstand.clients import Consumer
ask = Consumer.get_watermark_offsets
def fail_once(self, *place, **options):
    Consumer.get_watermark_offsets = ask
    raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
Consumer.get_watermark_offsets = fail_once
"""
_APPLIES_A_SPEC_WHILE_IT_RESTORES = """
from bandstand.streams import learn
from bandstand.streams.specs import apply_spec
from tests.streams.given import given_spec
restore, times = learn.restore, []
def late(settings, *rest):
    times.append(None)
    if len(times) == 2:
        apply_spec(settings, given_spec("late"), retained=True)
    return restore(settings, *rest)
learn.restore = late
"""


class _Lane:
    """The lane ``fast`` of one test: writes outcomes, reads what was learned."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.steady = never_expelled(settings)
        self.names = TopicNames(settings.topics.prefix)
        self._producer = Producer(producer_config(settings))
        self._written = 0

    def write(self, count: int, bandit: str = "home", repeats: int = 3) -> None:
        """Write decisions and their outcomes, as a join does whose zombie repeats some."""
        for partition in range(PARTITIONS):
            for _ in range(count):
                self._producer.produce(self.names.decisions("fast"), None, b"d", partition)
        assert self._producer.flush(PATIENCE_S) == 0
        for partition in range(PARTITIONS):
            for fields in self._next(count, bandit, partition):
                self._send(partition, fields)
            for fields in list(self._next(repeats, bandit, partition)):
                self._send(partition, fields)
        self._written += count
        assert self._producer.flush(PATIENCE_S) == 0

    def send_all(self, *several: dict[str, object]) -> None:
        """Write outcomes to each partition."""
        for partition in range(PARTITIONS):
            for fields in several:
                self._send(partition, fields)
        assert self._producer.flush(PATIENCE_S) == 0

    def _next(self, count: int, bandit: str, partition: int) -> Iterator[dict[str, object]]:
        for fields in random_outcomes(count, self._written + partition, bandit):
            offset = fields["source_offset"]
            assert isinstance(offset, int)
            yield {**fields, "source_offset": self._written + offset}

    def _send(self, partition: int, fields: dict[str, object]) -> None:
        record = outcome_record(0, fields, WIRE)
        topic = self.names.outcomes("fast")
        self._producer.produce(
            topic, record.value, record.key, partition, timestamp=record.timestamp
        )
        self._producer.poll(0)

    def expected(self) -> dict[str, str]:
        """Learn the outcome topic in one go, and give each bandit's digest."""
        specs = specs_in_force(self.settings)
        parts = []
        for partition in range(PARTITIONS):
            core = LearnCore("fast", partition, WIRE, Position(0))
            core.follow(specs)
            core.open()
            messages = everything_in(self.settings, self.names.outcomes("fast"))
            core.learn([record_of(m) for m in messages if m.partition() == partition])
            parts.append({bandit: sums.statistics for bandit, sums in core.held.items()})
        return {bandit: _digest(spec, parts, bandit) for bandit, (spec, *_) in specs.items()}

    def learned(self) -> dict[str, str]:
        """Give each bandit's digest by what is committed in ``learner-state``."""
        specs = specs_in_force(self.settings)
        table, _ = self.state()
        parts: list[dict[str, Statistics]] = [{} for _ in range(PARTITIONS)]
        for place in table.places():
            in_force = specs[place.bandit]
            if table.epoch(place) == in_force.epoch:
                sums = table.sums(place, in_force.spec)
                parts[place.partition][place.bandit] = sums.statistics
        return {bandit: _digest(spec, parts, bandit) for bandit, (spec, *_) in specs.items()}

    def state(self) -> tuple[SumsTable, dict[bytes, Position]]:
        """Read ``learner-state``."""
        table, positions = SumsTable(WIRE), {}
        for message in everything_in(self.settings, self.names.learner_state):
            record = record_of(message)
            key = record.key or b""
            if is_position(key):
                positions[key] = position_of(record.value or b"", WIRE)
            else:
                table.take(key, record.value)
        return table, positions

    def pointers(self) -> list[tuple[int, int]]:
        """Give epoch and outcomes of each version that was the current one of ``home``."""
        messages = everything_in(self.settings, self.names.snapshots)
        pointers = [m.value() for m in messages if m.key() == b"home"]
        return [rank(pointer_version(bytes(value or b""), WIRE)) for value in pointers]

    def delete_all(self) -> None:
        """Delete the outcomes, as retention does."""
        topic = self.names.outcomes("fast")
        ends = end_offsets(self.settings, topic, range(PARTITIONS))
        places = [TopicPartition(topic, p, end) for p, end in ends.items()]
        client = admin(self.settings)
        for answer in client.delete_records(places).values():
            answer.result(PATIENCE_S)

    def wait_until_learned(self) -> None:
        """Wait until every partition is learned to its end."""
        ends = end_offsets(self.settings, self.names.outcomes("fast"), range(PARTITIONS))
        wanted = {f"position|fast|{p}".encode(): end for p, end in ends.items()}
        until(lambda: {k: p.next_offset for k, p in self.state()[1].items()} == wanted)


def _digest(spec: object, parts: list[dict[str, Statistics]], bandit: str) -> str:
    del spec
    merged: Statistics | None = None
    for part in parts:
        if bandit in part:
            merged = part[bandit] if merged is None else merged.merge(part[bandit])
    return "" if merged is None else merged.digest()


@pytest.fixture
def lane(bandstand_kafka: Kafka, bandstand_prefix: str) -> _Lane:
    """Make the topics of a lane with one bandit, ``home``."""
    learn: Mapping[str, str] = {
        "group": f"{bandstand_prefix}learn",
        "session_timeout": "1s",
        "state_interval": "20ms",
    }
    publish = {**learn, "group": f"{bandstand_prefix}publish", "interval": "20ms"}
    del publish["state_interval"]
    settings = given_settings(bandstand_kafka, bandstand_prefix, learn=learn, publish=publish)
    topics.create(settings)
    apply_spec(settings, given_spec("home"))
    return _Lane(settings)


def test_a_killed_learner_loses_nothing_and_learns_nothing_twice(
    lane: _Lane, tmp_path: Path
) -> None:
    """Killed in mid-stream, it goes on as if nothing had been; SIGTERM ends it in time.

    A spec that is applied only now is learned from the outcomes before it, too, where asked for.
    """
    lane.write(2_000)
    lane.write(200, bandit="late")
    with RoleProcess("learn", lane.settings, tmp_path) as first:
        lane.wait_until_learned()
        lane.write(1_000)
        first.kill()
    lane.write(1_000)
    with RoleProcess("learn", lane.settings, tmp_path) as second:
        lane.write(200, bandit="late")
        second.wait_until_ready()
        apply_spec(lane.settings, given_spec("late"), retained=True)
        lane.write(500)
        lane.wait_until_learned()
        expected = lane.expected()
        until(lambda: lane.learned() == expected)
        assert (
            'bandstand_learn_outcomes_total{lane="fast",state="repeat"}'
            in second.get("/metrics")[1]
        )
        assert second.stop() < STOPS_WITHIN_S


def test_an_idle_bandit_costs_nothing_at_a_restart(lane: _Lane, tmp_path: Path) -> None:
    """Each outcome of a busy one is read once, whenever the idle ones came.

    A new reward function is learned from where its bandit began, not from the log's beginning.
    """
    apply_spec(lane.settings, given_spec("early"))
    lane.write(10_000, repeats=0)
    with RoleProcess("learn", lane.steady, tmp_path) as learner:
        lane.wait_until_learned()
        apply_spec(lane.settings, given_spec("meanwhile"))
        until(lambda: lane.learned() == lane.expected())
        assert _read_by(learner) == (20_000, 0)
        learner.stop()
    lane.write(200, repeats=0)
    apply_spec(lane.settings, given_spec("asleep"))
    lane.write(300, repeats=0)
    with RoleProcess("learn", lane.steady, tmp_path) as learner:
        lane.wait_until_learned()
        assert lane.learned() == lane.expected()
        assert _read_by(learner) == (1_000, 0)
        apply_spec(lane.settings, given_spec("asleep", default=0.5))
        until(lambda: lane.learned() == lane.expected())
        assert _read_by(learner) == (1_000, 600)
        learner.stop()
    with RoleProcess("learn", lane.steady, tmp_path) as learner:
        learner.wait_until_ready()
        lane.write(1, repeats=0)
        lane.wait_until_learned()
        assert _read_by(learner) == (2, 0)
        assert lane.learned() == lane.expected()


def _read_by(learner: RoleProcess) -> tuple[float, float]:
    """Give how many outcomes it read as they came, and how many once more."""
    metrics = metrics_of(learner, "bandstand_learn_")
    came = sum(count for name, count in metrics.items() if name.startswith("outcomes_total{"))
    return came, metrics["reread_records_total"]


def test_a_full_bandit_is_told_and_stops_no_other(lane: _Lane, tmp_path: Path) -> None:
    """In the log and the metrics, again after a restart; the other one learns all."""
    apply_spec(lane.settings, given_spec("other"))
    home = specs_in_force(lane.settings)["home"]
    arrays = Statistics.empty(home.spec).arrays()
    arrays["products"][:, 0] = HEADROOM - 1
    near = Statistics.from_arrays(home.spec, arrays, {}, 1, None)
    sums = PartitionSums("fast", 0, home.epoch, 0, near)
    given_records(lane.settings, lane.names.learner_state, *sums_records(sums, WIRE))
    for runs in (1, 2):
        with RoleProcess("learn", lane.steady, tmp_path) as role:
            lane.write(20, repeats=0)
            lane.write(20, bandit="other", repeats=0)
            lane.wait_until_learned()
            full = {'{lane="fast",partition="0"}': 1, '{lane="fast",partition="1"}': 0}
            wait_for_metrics(role, "bandstand_learn_full_bandits", full)
            metrics = metrics_of(role, "bandstand_learn_")
            assert metrics['rejected_total{lane="fast",reason="full"}'] == 20
            assert metrics['outcomes_total{lane="fast",state="learned"}'] == 60
            assert role.stop() < STOPS_WITHIN_S
        told = [line for line in role.log.read_text().splitlines() if "bandit is full" in line]
        assert len(told) == 1
        assert '"bandit": "home"' in told[0]
        assert "`since` at a later moment" in told[0]
        table, other = lane.state()[0], specs_in_force(lane.settings)["other"].spec
        known = [table.sums(place, other).statistics for place in table.places_of("other")]
        assert [each.outcomes for each in known] == [20 * runs, 20 * runs]


def test_metrics_say_what_was_learned_and_why_not(lane: _Lane, tmp_path: Path) -> None:
    """By lane and reason; a partition that is given up is shown no more."""
    lane.write(20)
    lane.send_all(outcome(1_000, action="unknown"), outcome(1_001, age=1e9))
    with RoleProcess("learn", lane.steady, tmp_path) as learner:
        lane.wait_until_learned()
        newest = 'newest_decision_timestamp_seconds{lane="fast",partition="0"}'
        last = (START_MS + 1_001) / 1_000
        until(lambda: metrics_of(learner, "bandstand_learn_").get(newest) == last)
        metrics = metrics_of(learner, "bandstand_learn_")
        assert metrics['bandits{lane="fast"}'] == 1
        assert metrics['outcomes_total{lane="fast",state="learned"}'] == 2 * (20 + 1)
        assert metrics['outcomes_total{lane="fast",state="rejected"}'] == 2
        assert metrics['rejected_total{lane="fast",reason="action"}'] == 2
        assert metrics['odd_values_total{kind="clipped_features",lane="fast"}'] == 2
        with RoleProcess("learn", lane.steady, tmp_path) as other:
            other.wait_until_ready()
            until(lambda: metrics_of(other, "bandstand_learn_").get('partitions{lane="fast"}') == 1)
            until(lambda: metrics_of(learner, "bandstand_learn_")['partitions{lane="fast"}'] == 1)
            assert len(metrics_of(learner, "bandstand_learn_newest")) == 1


def test_a_frozen_learner_cannot_write_after_another_took_over(lane: _Lane, tmp_path: Path) -> None:
    """A zombie that wakes up is fenced; what was learned is as if there had been one learner."""
    with RoleProcess("learn", lane.settings, tmp_path) as zombie:
        zombie.wait_until_ready()
        lane.write(500)
        lane.wait_until_learned()
        zombie.process.send_signal(signal.SIGSTOP)
        lane.write(500)
        with RoleProcess("learn", lane.settings, tmp_path) as other:
            lane.wait_until_learned()
            zombie.process.send_signal(signal.SIGCONT)
            lane.write(500)
            lane.wait_until_learned()
            zombie.wait_until_ready()
            assert lane.learned() == lane.expected()
            assert other.stop() < STOPS_WITHIN_S
        lane.write(100)
        lane.wait_until_learned()
        assert lane.learned() == lane.expected()


def test_a_new_reward_function_is_learned_from_the_start_while_the_old_one_serves(
    lane: _Lane, tmp_path: Path
) -> None:
    """The pointer moves to the new epoch once, to a snapshot that knows all that is retained."""
    spec = given_spec("home")
    reward = spec.reward.model_copy(update={"aggregate": "count", "high": 3.0, "weight": 2.0})
    lane.write(3_000)
    with (
        RoleProcess("learn", lane.settings, tmp_path),
        RoleProcess("publish", lane.settings, tmp_path),
    ):
        until(lambda: lane.pointers()[-1:] == [(0, 6_000)])
        epoch = apply_spec(lane.settings, spec.model_copy(update={"reward": reward}))
        lane.write(500)
        until(lambda: lane.pointers()[-1:] == [(epoch, 7_000)])
        assert load_snapshot(lane.settings, "home")["digest"] == lane.expected()["home"]
    outcomes = [count for found, count in lane.pointers() if found == epoch]
    assert outcomes[0] >= 6_000
    assert {found for found, _ in lane.pointers()} == {0, epoch}


def test_an_added_action_costs_no_other_its_outcomes(lane: _Lane, tmp_path: Path) -> None:
    """What retention took goes on counting under a spec that was applied while no learner ran."""
    roles = ("learn", "publish")
    lane.write(500)
    with ExitStack() as running:
        for role in roles:
            running.enter_context(RoleProcess(role, lane.settings, tmp_path))
        until(lambda: lane.pointers()[-1:] == [(0, 1_000)])
    lane.delete_all()
    fields = given_spec("home").model_dump(mode="json") | {"actions": ["d", "c", "b", "a"]}
    epoch = apply_spec(lane.settings, Spec.model_validate(fields))
    with ExitStack() as running:
        for role in roles:
            running.enter_context(RoleProcess(role, lane.settings, tmp_path))
        lane.write(50)
        until(lambda: lane.pointers()[-1:] == [(epoch, 1_100)])


def test_a_spec_that_comes_with_a_partition_is_followed_by_all(lane: _Lane, tmp_path: Path) -> None:
    """What is read while one partition is taken over is news to those that were there before."""
    lane.write(50, bandit="late")
    with RoleProcess(
        "learn", lane.settings, tmp_path, _APPLIES_A_SPEC_WHILE_IT_RESTORES
    ) as learner:
        learner.wait_until_ready()
        with RoleProcess("learn", lane.settings, tmp_path) as other:
            until(lambda: metrics_of(other, "bandstand_learn_").get('partitions{lane="fast"}') == 1)
            other.stop()
        until(lambda: "late" in specs_in_force(lane.settings))
        until(lambda: lane.learned() == lane.expected())
        assert learner.stop() < STOPS_WITHIN_S


def test_a_client_that_knows_no_partition_for_a_moment_ends_no_learner(
    lane: _Lane, tmp_path: Path
) -> None:
    """What fails inside an assignment while the broker starts is tried again."""
    lane.write(50)
    with RoleProcess("learn", lane.settings, tmp_path, _KNOWS_NOTHING_YET) as learner:
        lane.wait_until_learned()
        learner.wait_until_ready()
        assert "begins anew when Kafka answers" in learner.log.read_text()


def test_a_position_before_the_start_of_the_log_stops_the_learner(
    lane: _Lane, tmp_path: Path
) -> None:
    """Outcomes that were deleted before they were learned are never passed over silently."""
    lane.write(50)
    with RoleProcess("learn", lane.settings, tmp_path) as learner:
        lane.wait_until_learned()
        learner.stop()
    lane.write(50)
    lane.delete_all()
    with RoleProcess("learn", lane.settings, tmp_path) as learner:
        assert learner.process.wait(PATIENCE_S) != 0
        assert "were learned up to offset 53, but the topic holds 106 to 106" in (
            learner.log.read_text()
        )


def test_only_the_last_to_open_a_name_can_write(lane: _Lane) -> None:
    """The one before is fenced, and nobody sees what it tried to write."""
    name = transactional_id(lane.settings.topics.prefix, "fast", 0)
    old, new = (Transactions(lane.settings, name, lane.names.learner_state) for _ in range(2))
    old.open()
    old.write([(0, b"key", b"first")])
    new.open()
    with pytest.raises(FencedError, match="taken this partition over"):
        old.write([(0, b"key", b"zombie")])
    old.close()
    new.write([(0, b"key", b"second")])
    values = [m.value() for m in everything_in(lane.settings, lane.names.learner_state)]
    assert values == [b"first", b"second"]
