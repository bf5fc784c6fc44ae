"""What is published, decided without a broker: newer only, whole only, few kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bandstand.errors import StateError
from bandstand.learners.snapshots import newer
from bandstand.schemas.wire import Wire
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import PartitionSums, Position, sums_records
from bandstand.streams.publish_core import PublishCore, Published
from bandstand.streams.specs import InForce
from tests.streams.given import given_spec
from tests.streams.outcomes import outcome_record, random_outcomes

WIRE = Wire.single_object()
SPECS = {"home": InForce(given_spec(), 4)}


def _sums(count: int, partition: int = 0, epoch: int = 4) -> PartitionSums:
    core = LearnCore("fast", partition, WIRE, Position(0))
    core.follow({"home": InForce(given_spec(), epoch)})
    core.open()
    outcomes = random_outcomes(count, seed=partition)
    core.learn([outcome_record(i, fields, WIRE) for i, fields in enumerate(outcomes)])
    return replace(core.held["home"], next_offset=count)


def _take(core: PublishCore, sums: PartitionSums) -> None:
    for key, value in sums_records(sums, WIRE):
        core.take_state(0, key, value)


def _core(*, keep: int = 3) -> PublishCore:
    core = PublishCore(WIRE, keep)
    core.follow(SPECS, SPECS)
    return core


def _publish(core: PublishCore) -> Published:
    published = core.publish("home", 0)
    assert published is not None
    for key, value in published.records:
        core.take_snapshot(key, value)
    return published


def test_a_bandit_without_outcomes_has_a_snapshot_of_its_prior() -> None:
    """A spec alone is enough for services to decide."""
    published = _publish(_core())
    assert published.version.startswith("4-0-")
    assert published.snapshot["parent"] == ""
    assert [key for key, _ in published.records] == [
        f"home|{published.version}".encode(),
        b"home",
    ]


def test_outcome_partitions_are_added_up() -> None:
    """The snapshot holds all partitions, whichever came first, and says up to where."""
    one, two = _core(), _core()
    for core, order in ((one, (0, 1)), (two, (1, 0))):
        for partition in order:
            _take(core, _sums(10 + partition, partition))
    published = _publish(one)
    assert published.snapshot["outcomes"] == 21
    assert published.snapshot["source_offsets"] == {"0": 10, "1": 11}
    assert _publish(two).snapshot == published.snapshot


def test_nothing_is_published_twice_or_backwards() -> None:
    """A publisher that starts with older sums than the current snapshot's stays silent."""
    core = _core()
    _take(core, _sums(5))
    first = _publish(core)
    assert core.publish("home", 0) is None
    late = _core()
    for key, value in first.records:
        late.take_snapshot(key, value)
    assert late.changed == ["home"]
    assert late.publish("home", 0) is None
    _take(late, _sums(3))
    assert late.publish("home", 0) is None
    _take(late, _sums(8))
    assert _publish(late).snapshot["parent"] == first.version


def test_a_new_epoch_is_newer_than_all_that_was_learned_before() -> None:
    """After a spec change the snapshot begins anew, without the sums of the old epoch."""
    core = _core()
    _take(core, _sums(5))
    before = _publish(core)
    core.follow({"home": InForce(given_spec(default=0.5), 9)}, ["home"])
    after = _publish(core)
    assert after.version.startswith("9-0-")
    assert newer(after.version, than=before.version)


def test_only_the_newest_artifacts_are_kept() -> None:
    """Older ones are deleted, never the current one; also those that an earlier publisher left."""
    core = _core(keep=2)
    versions, deleted = [], []
    for count in (1, 2, 3, 4):
        _take(core, _sums(count))
        published = _publish(core)
        versions.append(published.version)
        deleted += [key.decode() for key, value in published.records if value is None]
    assert deleted == [f"home|{version}" for version in versions[:2]]


def test_a_bandit_that_was_removed_is_published_no_more() -> None:
    """Without a spec there is nothing to solve."""
    core = _core()
    core.follow({}, ["home"])
    assert core.publish("home", 0) is None


def test_partitions_that_were_given_away_count_no_more() -> None:
    """Sums that somebody else follows now aren't added."""
    core = _core()
    _take(core, _sums(5))
    core.forget_state(0)
    assert _publish(core).snapshot["outcomes"] == 0


def test_an_unreadable_pointer_stops_the_publisher() -> None:
    """Without knowing the current version nothing can be published safely."""
    with pytest.raises(StateError, match="pointer that can't be read: magic"):
        _core().take_snapshot(b"home", b"noise")
