"""Ten rounds of the learners' storm, and that its checks see what they are for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bandstand.schemas.topics import artifact_key, pointer_key
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams.in_force import InForce
from bandstand.streams.join_types import Record
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import Position, is_position
from bandstand.streams.publish_core import PublishCore
from tests.streams.outcomes import outcome, outcome_record
from tests.streams.storm import run
from tests.streams.storm_follower import Arrival, DifferenceError
from tests.streams.storm_learn import LEARN
from tests.streams.storm_learn_check import Checks
from tests.streams.storm_learn_load import Tally, spec_of
from tests.streams.storm_plan import kinds

SEED, ROUNDS = 20, 10
WIRE = Wire.single_object()
BANDIT = "linear"
BATCHES, BATCH = 3, 8


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def test_ten_rounds(tmp_path: Path) -> None:
    """Whatever is killed, frozen, added and removed: all is as one core would have learned it."""
    result = run(LEARN, tmp_path / "storm", rounds=ROUNDS, seed=SEED, say=_say)
    assert set(result["faults"]) == {str(kind) for kind in kinds(LEARN.groups)}
    assert result["outcomes_learned"] > 100 * ROUNDS
    assert result["letters"]
    assert set(result["specs"]) == {"new", "changed"}
    assert result["seconds_until_all_bandits_are_published_anew"]


class Topics:
    """What the topics of two partitions hold when all went well, to be spoilt."""

    def __init__(self) -> None:
        settings = Settings.model_validate(
            {"lanes": {"default": {"partitions": 2}}, "topics": {"prefix": "t."}}
        )
        self.tally = Tally()
        self.checks = Checks(settings, self.tally)
        spec = spec_of(BANDIT, 0)
        self._in_force = {BANDIT: InForce(spec, 0)}
        self.tally.epochs = {BANDIT: 0}
        self.spec = {
            "bandit": BANDIT,
            "spec_hash": spec.hash,
            "spec": spec.canonical(),
            "ts": 0,
            "author": "",
            "reason": "",
        }
        self.outcomes = [self._outcomes(), self._outcomes()]
        self.state: list[tuple[bytes, bytes | None]] = []
        self.snapshots: list[tuple[bytes, bytes | None]] = []
        self.letters: list[tuple[bytes, bytes | None]] = []
        self._learn()
        # One more whose reason must have a letter.
        for records in self.outcomes:
            records.append(Record(len(records), 0, b"d", b"{}", ()))
        for partition, core in enumerate(self.cores):
            core.learn(self.outcomes[partition][-1:])
            self._commit(core)
            self.letters.append(_letter(partition, self.outcomes[partition][-1]))

    def _outcomes(self) -> list[Record]:
        fields = [outcome(n, bandit=BANDIT, clicks=n % 2) for n in range(BATCHES * BATCH)]
        return [outcome_record(n, each, WIRE) for n, each in enumerate(fields)]

    def _learn(self) -> None:
        """Learn batch by batch, and publish after each."""
        self.cores = [LearnCore("default", p, WIRE, Position(0)) for p in range(2)]
        self._publisher = PublishCore(WIRE, keep_artifacts=2, lanes={"default": 2})
        self._publisher.follow(self._in_force, self._in_force)
        for batch in range(BATCHES):
            for partition, core in enumerate(self.cores):
                core.follow(self._in_force)
                core.open()
                core.learn(self.outcomes[partition][batch * BATCH : (batch + 1) * BATCH])
                self._commit(core)
            made = self._publisher.publish(BANDIT, 0)
            assert made is not None
            for key, value in made.records:
                self._publisher.take_snapshot(key, value)
                self.snapshots.append((key, value))

    def _commit(self, core: LearnCore) -> None:
        for _, key, value in core.writes():
            self.state.append((key, value))
            self._publisher.take_state(0, key, value)
        core.written()

    def find(self, wanted: Callable[[bytes], bool], which: int = -1) -> int:
        """Give where a record of learner-state lies."""
        return [at for at, (key, _) in enumerate(self.state) if wanted(key)][which]

    def versions(self) -> list[str]:
        """Give the versions that were pointed to."""
        pointers = [value for key, value in self.snapshots if key == pointer_key(BANDIT)]
        return [WIRE.loads("snapshot_pointer", value or b"")["version"] for value in pointers]

    def check(self) -> str:
        """Give what the checks find unfinished, sums being read before what they come from."""
        spec = [(BANDIT.encode(), WIRE.dumps("spec", self.spec))]
        for topic, rows in (
            ("t.learner-state", self.state),
            ("t.snapshots", self.snapshots),
            ("t.dead-letters", self.letters),
            ("t.specs", spec),
        ):
            records = [Record(at, 0, *row, ()) for at, row in enumerate(rows)]
            self.checks.take(Arrival(topic, 0, time.monotonic(), record) for record in records)
        for partition, records in enumerate(self.outcomes):
            arrived = [Arrival("t.default.outcomes", partition, 0.0, record) for record in records]
            self.checks.take(arrived)
        unfinished = self.checks.unfinished
        if not unfinished:
            self.checks.close_round()
        return unfinished


def _letter(partition: int, record: Record, reason: str = "magic") -> tuple[bytes, bytes]:
    topic = "t.default.outcomes"
    fields = {
        "reason": reason,
        "detail": "",
        "role": "learn",
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "ts": record.timestamp,
        "key": record.key,
        "value": record.value,
    }
    key = f"{topic}/{partition}/{record.offset}".encode()
    return key, WIRE.dumps("dead_letter", fields)


def _is_sums(key: bytes) -> bool:
    return not is_position(key)


@pytest.fixture
def topics() -> Topics:
    """Give topics in which nothing is wrong."""
    return Topics()


def test_nothing_wrong_is_found_where_nothing_is(topics: Topics) -> None:
    """All was judged: sums, positions, snapshots, letters."""
    topics.letters *= 2
    assert topics.check() == ""
    assert topics.checks.counts == {
        "sums": 2 * BATCHES,
        "positions": 2 * (BATCHES + 1),
        "snapshots": BATCHES,
        "pointers": BATCHES,
        "pointers repeated": 0,
    }
    assert topics.checks.letters.repeats == 2


def test_sums_that_lack_an_outcome_are_found(topics: Topics) -> None:
    """As if a batch had been passed over; and as if it had been learned twice."""
    for batches in ((0,), (0, 0)):
        topics = Topics()
        core = LearnCore("default", 1, WIRE, Position(0))
        core.follow(topics._in_force)
        core.open()
        for number, batch in enumerate(batches):
            start = number * BATCH
            rows = topics.outcomes[1][batch * BATCH : (batch + 1) * BATCH - (len(batches) == 1)]
            again = [
                outcome_record(start + n, outcome(start + n, bandit=BANDIT), WIRE)
                for n in range(len(rows))
            ]
            core.learn(again)
        at = topics.find(_is_sums, 1)
        record = WIRE.loads("learner_state", topics.state[at][1] or b"")
        [(_, key, value)] = [w for w in core.writes() if _is_sums(w.key)]
        other = {**WIRE.loads("learner_state", value or b""), "next_offset": record["next_offset"]}
        topics.state[at] = key, WIRE.dumps("learner_state", other)
        with pytest.raises(DifferenceError, match=r"sums of 'linear', epoch 0, partition 1 at 8"):
            topics.check()


def test_sums_without_their_position_are_found(topics: Topics) -> None:
    """What one transaction wrote must not be there in half."""
    del topics.state[topics.find(is_position, 3)]
    with pytest.raises(DifferenceError, match=r"stand at \[\(1, 16\)\].*no position was committed"):
        topics.check()


def test_a_position_without_its_sums_is_found(topics: Topics) -> None:
    """The other half: outcomes that were passed over at that position."""
    del topics.state[topics.find(_is_sums, 3)]
    topics.snapshots.clear()
    topics.check()
    with pytest.raises(DifferenceError, match="partition 1 stands at 16, but sums of epoch 0 are"):
        topics.checks.close_round()


def test_a_step_back_of_a_position_is_found(topics: Topics) -> None:
    """What a zombie wrote would look so."""
    topics.state.append(topics.state[topics.find(is_position, 0)])
    with pytest.raises(DifferenceError, match="partition 0 steps back from 25 to 8"):
        topics.check()


def test_a_wrong_position_is_found(topics: Topics) -> None:
    """The largest source offset and the watermark are the topic's, too."""
    at = topics.find(is_position, 0)
    key, value = topics.state[at]
    record = WIRE.loads("learner_position", value or b"")
    topics.state[at] = key, WIRE.dumps("learner_position", {**record, "source_offset": 3})
    with pytest.raises(DifferenceError, match=r"partition 0: .*source_offset=3.*must be .*=7"):
        topics.check()


def test_sums_that_are_missing_or_stale_are_found(topics: Topics) -> None:
    """At rest each bandit has its sums, and what nobody needs is deleted."""
    topics.state = [
        row for row in topics.state if not row[0].endswith(b"|1") or is_position(row[0])
    ]
    topics.snapshots.clear()
    assert "1 sums are missing, e.g. ('linear', 0, 1)" in topics.check()
    stale = Topics()
    stale.check()
    stale.checks.in_force[BANDIT] = InForce(spec_of(BANDIT, 1), 9)
    stale.checks._epochs[9] = stale.checks.in_force[BANDIT]
    stale.checks.truth.follow(stale.checks.in_force)
    stale.tally.epochs[BANDIT] = 9
    assert "2 sums are stale, e.g. ('linear', 0, 0)" in stale.checks.unfinished


def test_what_was_not_learned_or_published_to_the_end_is_waited_for(topics: Topics) -> None:
    """It is named."""
    topics.snapshots = topics.snapshots[:2]
    assert f"names {topics.versions()[0]}, not yet 0-48-" in topics.check()
    behind = Topics()
    behind.state = behind.state[:-1]
    assert behind.check() == "partitions aren't learned to their end: {1: '24 of 25'}"


def test_a_pointer_that_steps_back_is_found(topics: Topics) -> None:
    """A reader would serve what is older than what it had."""
    pointer = {"bandit": BANDIT, "version": topics.versions()[1], "reason": "published"}
    topics.snapshots.append((pointer_key(BANDIT), WIRE.dumps("snapshot_pointer", pointer)))
    with pytest.raises(DifferenceError, match=r"pointer of 'linear' steps back: 0-48-.*0-32-"):
        topics.check()


def test_a_pointer_to_nothing_is_found(topics: Topics) -> None:
    """An artifact must be there before its pointer, and as long as it is current."""
    topics.snapshots[0], topics.snapshots[1] = topics.snapshots[1], topics.snapshots[0]
    with pytest.raises(DifferenceError, match=r"names 0-16-.* which isn't there"):
        topics.check()
    gone = Topics()
    gone.snapshots.append((artifact_key(BANDIT, gone.versions()[-1]), None))
    with pytest.raises(DifferenceError, match=r"current snapshot linear\|0-48-.* was deleted"):
        gone.check()


def test_a_version_with_two_contents_is_found(topics: Topics) -> None:
    """Whatever differs: here it is the parent."""
    key, value = topics.snapshots[0]
    other = {**WIRE.loads("snapshot", value or b""), "parent": "0-1-00"}
    topics.snapshots.append((key, WIRE.dumps("snapshot", other)))
    with pytest.raises(DifferenceError, match=r"snapshot linear\|0-16-.* has two contents"):
        topics.check()


def test_a_snapshot_of_other_sums_is_found(topics: Topics) -> None:
    """Its digest must be that of the sums at its offsets, and these must have been committed."""
    key, value = topics.snapshots[0]
    snapshot = WIRE.loads("snapshot", value or b"")
    other = {**snapshot, "digest": "00" * 32}
    topics.snapshots[0] = key, WIRE.dumps("snapshot", other)
    with pytest.raises(DifferenceError, match=r"snapshot of 'linear' at \{0: 8, 1: 8\}"):
        topics.check()
    unknown = Topics()
    unknown.snapshots[0] = key, WIRE.dumps("snapshot", {**snapshot, "source_offsets": {"0": 5}})
    assert "3 snapshots speak of what isn't there" in unknown.check()


def test_letters_are_found_to_be_missing_and_wrong(topics: Topics) -> None:
    """Each refused record has its letter, with its reason and bytes."""
    topics.letters.pop()
    assert "1 letters are missing" in topics.check()
    wrong = Topics()
    wrong.letters[0] = _letter(0, wrong.outcomes[0][-1], "schema")
    with pytest.raises(DifferenceError, match=r"the letter about t\.default\.outcomes/0/24"):
        wrong.check()
    foreign = Topics()
    foreign.letters.append(_letter(0, foreign.outcomes[0][0]))
    assert "1 letters are about nothing refused" in foreign.check()


def test_what_is_there_to_learn_is_held_against_the_core(topics: Topics) -> None:
    """The core itself might pass an outcome over: they are counted one by one."""
    topics.tally.read(7, topics.outcomes[0][0])
    with pytest.raises(DifferenceError, match="'linear' learned 48 outcomes of 49"):
        topics.check()


def test_an_outcome_that_was_delivered_and_isnt_there_is_found(topics: Topics) -> None:
    """A round isn't over before the reader has seen all that the broker took."""
    topics.tally.ends = {0: 25, 1: 26}
    assert topics.check().startswith("outcomes were delivered up to {1: 26}, those that are there")


def test_a_hole_in_the_outcomes_is_found(topics: Topics) -> None:
    """What is judged against must be the whole topic."""
    del topics.outcomes[0][5]
    with pytest.raises(DifferenceError, match=r"t\.default\.outcomes/0: offset 6 comes instead of"):
        topics.check()
