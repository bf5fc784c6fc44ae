"""What is published, decided without a broker: newer only, whole only, few kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from bandstand.errors import StateError
from bandstand.learners.policies import policy_from_snapshot
from bandstand.learners.snapshots import newer
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import artifact_key
from bandstand.schemas.wire import Wire
from bandstand.streams import publish
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import PartitionSums, Position, sums_records
from bandstand.streams.publish_core import PublishCore, Published
from bandstand.streams.specs import InForce
from tests.streams.given import given_spec
from tests.streams.outcomes import outcome_record, random_outcomes

WIRE = Wire.single_object()
SPECS = {"home": InForce(given_spec(), 4)}


def _sums(count: int, partition: int = 0, spec: InForce = SPECS["home"]) -> PartitionSums:
    core = LearnCore("fast", partition, WIRE, Position(0))
    core.follow({"home": spec})
    core.open()
    outcomes = random_outcomes(count, seed=partition)
    core.learn([outcome_record(i, fields, WIRE) for i, fields in enumerate(outcomes)])
    return replace(core.held["home"], next_offset=count)


def _take(core: PublishCore, sums: PartitionSums) -> None:
    for key, value in sums_records(sums, WIRE):
        core.take_state(0, key, value)


def _core(*, keep: int = 3) -> PublishCore:
    core = PublishCore(WIRE, keep, {"fast": 2})
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


def test_a_publisher_that_goes_on_solves_as_one_that_begins() -> None:
    """What is taken over from the snapshot before changes no bit, in a later epoch neither."""
    core = _core()
    for spec in (SPECS["home"], InForce(given_spec(), 9)):
        fresh = _core()
        for each in (core, fresh):
            each.follow({"home": spec}, ["home"])
        for count in (5, 6, 30):
            for partition in (0, 1):
                _take(core, _sums(count, partition, spec))
            published = _publish(core)
        for partition in (0, 1):
            _take(fresh, _sums(30, partition, spec))
        assert _publish(fresh).snapshot["arrays"] == published.snapshot["arrays"]


def test_an_allocation_moves_on_from_the_current_snapshot() -> None:
    """A publisher that begins anew goes on where the one before stood, once it has read that."""
    fields = given_spec().model_dump(mode="json")
    fields |= {"features": [], "policy": {"name": "beta_thompson"}}
    plain, smooth = (
        InForce(Spec.model_validate({**fields, "smoothing": bound}), epoch)
        for epoch, bound in ((8, None), (9, {"most_change": 0.05}))
    )
    core = _core()
    core.follow({"home": plain}, ["home"])
    first = _publish(core)
    core.follow({"home": smooth}, ["home"])
    assert core.misses_snapshots()
    with pytest.raises(StateError, match="can't be near it"):
        core.publish("home", 0)
    allocations = [policy_from_snapshot(first.snapshot).decide({}, "abc").probabilities]
    records = list(first.records)
    for count in (0, 40, 80):
        begun = _core()
        begun.follow({"home": smooth}, ["home"])
        for key, value in records:
            begun.take_snapshot(key, value)
        assert not begun.misses_snapshots()
        if count:
            _take(begun, _sums(count, 0, smooth))
        published = _publish(begun)
        records += published.records
        policy = policy_from_snapshot(published.snapshot)
        allocations.append(policy.decide({}, "abc").probabilities)
    moves = np.abs(np.diff(allocations, axis=0)).max(axis=1)
    assert moves[0] < 1e-12
    assert (moves <= 0.05 + 1e-12).all()
    assert moves[1] > 0.04


def test_a_mixture_goes_on_from_the_current_snapshot() -> None:
    """A publisher that begins anew gives what the one before would have given, to the bit."""
    fields = given_spec().model_dump(mode="json")
    smooth = InForce(Spec.model_validate({**fields, "smoothing": {"most_change": 0.3}}), 9)
    core = _core()
    core.follow({"home": smooth}, ["home"])
    records, weights = list[tuple[bytes, bytes | None]](), []
    for count in (0, 10, 20, 30, 40, 50, 60):
        begun = _core()
        begun.follow({"home": smooth}, ["home"])
        for key, value in records:
            begun.take_snapshot(key, value)
        for each in (core, begun):
            if count:
                _take(each, _sums(count, 0, smooth))
        published = _publish(core)
        assert _publish(begun).snapshot == published.snapshot
        records += published.records
        weights.append([part["weight"] for part in published.snapshot["earlier"]])
    rounded = [[round(weight, 9) for weight in each] for each in weights]
    assert rounded == [[], [0.7], [0.4], [0.1], [], [0.7], [0.4]]


def test_of_what_may_be_mixed_only_the_current_snapshot_is_kept() -> None:
    """The others would be many times the memory, of bandits whose snapshots are wide."""
    fields = given_spec().model_dump(mode="json")
    smooth = InForce(Spec.model_validate({**fields, "smoothing": {"most_change": 0.3}}), 9)
    core = _core(keep=20)
    core.follow({"home": smooth}, ["home"])
    made = list[Published]()
    for count in (0, 10, 20):
        if count:
            _take(core, _sums(count, 0, smooth))
        made.append(_publish(core))
    artifacts = [published.records[0][1] for published in made]
    assert [_kept(core, artifact) for artifact in artifacts] == [False, False, True]
    core.take_snapshot(artifact_key("home", "9-30-ab"), artifacts[0])
    assert not core.misses_snapshots()  # a newer one counts once the pointer names it


def _kept(core: PublishCore, value: bytes | None) -> bool:
    return any(value is one for shelf in core._shelves.values() for one in shelf.values.values())


def test_a_spec_counts_from_when_it_is_told() -> None:
    """Who reads specs may read on meanwhile, as one that applies some does."""
    specs, fields = dict(SPECS), given_spec().model_dump(mode="json")
    core = _core()
    core.follow(specs, ["home"])
    _publish(core)
    _take(core, _sums(10))
    smooth = InForce(Spec.model_validate({**fields, "smoothing": {"most_change": 0.3}}), 9)
    specs["home"] = smooth
    assert _publish(core).version.startswith("4-10-")
    core.follow(specs, ["home"])
    assert core.misses_snapshots()


def test_a_current_snapshot_that_this_version_cannot_read_is_named() -> None:
    """As of a learner that isn't installed any more: the one that was to be near it isn't made."""
    fields = given_spec().model_dump(mode="json")
    fields |= {"features": [], "policy": {"name": "beta_thompson"}}
    smooth = Spec.model_validate({**fields, "smoothing": {"most_change": 0.05}})
    core = _core()
    core.follow({"home": InForce(smooth, 4)}, ["home"])
    current = _publish(core).snapshot
    current["spec"] = current["spec"].replace('"beta_thompson"', '"gone"')
    artifact = WIRE.dumps("snapshot", current)
    core.take_snapshot(artifact_key("home", current["version"]), artifact)
    core.follow({"home": InForce(smooth, 9)}, ["home"])
    with pytest.raises(StateError, match=r"can't be near it: SpecError.*apply a spec without"):
        core.publish("home", 0)


def test_a_version_waits_for_the_least_number_of_outcomes() -> None:
    """But not the first of an epoch, nor that of a changed spec."""
    core = PublishCore(WIRE, 3, {"fast": 2}, least_outcomes=10)
    core.follow(SPECS, SPECS)
    assert _publish(core).snapshot["outcomes"] == 0
    published = []
    for count in range(1, 31):
        _take(core, _sums(count))
        made = core.publish("home", 0)
        if made is not None:
            published.append(made.snapshot["outcomes"])
            for key, value in made.records:
                core.take_snapshot(key, value)
    assert published == [10, 20, 30]
    spec = _applied(core, 0.5, 9)
    for partition in (0, 1):
        _take(core, _sums(1 + partition, partition, spec))
    assert _publish(core).version.startswith("9-3-")
    _take(core, _sums(9, 1, spec))
    assert core.publish("home", 0) is None
    _take(core, _sums(12, 1, spec))
    assert _publish(core).version.startswith("9-13-")


def test_what_nothing_is_to_be_near_any_more_is_not_kept() -> None:
    """Once a spec smooths no longer, its artifacts are dropped at once; else they'd be there."""
    fields = given_spec().model_dump(mode="json")
    fields |= {"features": [], "policy": {"name": "beta_thompson"}}
    plain = InForce(Spec.model_validate(fields), 4)
    smooth = InForce(Spec.model_validate({**fields, "smoothing": {"most_change": 0.05}}), 3)
    core = _core()
    core.follow({"home": smooth}, ["home"])
    _publish(core)
    for in_force, misses in ((smooth, False), (plain, False), (smooth, True)):
        core.follow({"home": in_force}, ["home"])
        assert core.misses_snapshots() == misses


def _applied(core: PublishCore, default: float, epoch: int) -> InForce:
    spec = InForce(given_spec(default=default), epoch)
    core.follow({"home": spec}, ["home"])
    return spec


def test_a_new_epoch_is_newer_than_all_that_was_learned_before() -> None:
    """After a spec change the snapshot has the sums of the new epoch only."""
    core = _core()
    _take(core, _sums(5))
    before = _publish(core)
    spec = _applied(core, 0.5, 9)
    for partition in (0, 1):
        _take(core, _sums(2 + partition, partition, spec))
    after = _publish(core)
    assert after.version.startswith("9-5-")
    assert newer(after.version, than=before.version)


def test_the_old_epoch_serves_until_all_partitions_are_learned_anew() -> None:
    """One partition of two isn't enough, unless the old epoch's snapshot has learned nothing."""
    core = _core()
    first = _publish(core)
    assert first.version.startswith("4-0-")
    _applied(core, 0.5, 7)
    assert _publish(core).version.startswith("7-0-")
    spec = _applied(core, 0.25, 9)
    _take(core, _sums(3, 0, spec))
    assert _publish(core).version.startswith("9-3-")
    spec = _applied(core, 0.125, 12)
    assert core.publish("home", 0) is None
    _take(core, _sums(8, 1, spec))
    assert core.changed == ["home"]
    assert core.publish("home", 0) is None
    _take(core, _sums(0, 0, spec))
    assert _publish(core).version.startswith("12-8-")


def test_a_lane_that_is_not_set_up_is_named() -> None:
    """How many partitions to wait for isn't known then."""
    core = PublishCore(WIRE, 3, {"slow": 2})
    core.follow(SPECS, SPECS)
    with pytest.raises(StateError, match="lane 'fast', which isn't set up here; known: slow"):
        core.publish("home", 0)


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


def test_what_is_large_together_is_written_in_lots() -> None:
    """Each is made when its lot is filled, so that never more than a lot is kept."""
    kept: list[int] = []

    def made() -> Iterator[Published]:
        for number, size in enumerate([40, 70, 10, 0, 95, 200, 5]):
            kept.append(number)
            yield Published(str(number), "", {}, [(b"a", b"." * size), (b"b", None)], [])

    sizes = []
    for lot in publish.lots(made(), 100):
        sizes.append([one.size for one in lot])
        assert len(kept) == sum(map(len, sizes))
    assert sizes == [[40, 70], [10, 0, 95], [200], [5]]
    assert list(publish.lots([], 100)) == []
