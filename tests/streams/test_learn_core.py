"""The learner's core: equal bits under any cut, restart and lateness of a spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.errors import LogGapError, StateError
from bandstand.learners.grid import HEADROOM, STEPS
from bandstand.learners.statistics import Statistics
from bandstand.schemas.wire import Wire
from bandstand.streams import learner_records
from bandstand.streams.in_force import Ancestor, InForce, Start
from bandstand.streams.join_types import Record
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import (
    PartitionSums,
    Position,
    SumsTable,
    is_position,
    position_of,
    sums_records,
)
from tests.streams.given import given_spec
from tests.streams.outcomes import START_MS, outcome, outcome_record, progress_record

WIRE = Wire.single_object()
HOME, OTHER = given_spec("home"), given_spec("position")
SPECS = {"home": InForce(HOME, 4), "position": InForce(OTHER, 7)}

outcomes = st.builds(
    outcome,
    st.integers(0, 30),
    bandit=st.sampled_from(["home", "position", "nobody's"]),
    action=st.sampled_from(["a", "b", "c", "unknown"]),
    age=st.floats(0, 100),
    clicks=st.integers(0, 2),
    oversize=st.booleans(),
)
entries = st.lists(st.one_of(outcomes, st.integers(0, 30), st.just(b"noise")), max_size=20)


def _log(contents: Sequence[object]) -> list[Record]:
    records = []
    for offset, content in enumerate(contents):
        if isinstance(content, dict):
            records.append(outcome_record(offset, content, WIRE))
        elif isinstance(content, int):
            records.append(progress_record(offset, content, START_MS + content))
        else:
            records.append(Record(offset, START_MS, b"k", b"noise", ()))
    return records


def _fresh(specs: dict[str, InForce] = SPECS) -> LearnCore:
    core = LearnCore("fast", 0, WIRE, Position(0))
    core.follow(specs)
    core.open()
    return core


class _Stored:
    """What a compacted topic keeps of a core's writes, and a core made from it."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}

    def commit(self, core: LearnCore) -> None:
        for write in core.writes():
            self.records.pop(write.key, None)
            if write.value is not None:
                self.records[write.key] = write.value
        core.written()

    def restored(self, specs: dict[str, InForce] = SPECS) -> LearnCore:
        table, position = SumsTable(WIRE), Position(0)
        for key, value in self.records.items():
            if is_position(key):
                position = position_of(value, WIRE)
            else:
                table.take(key, value)
        held = [
            table.sums(place, specs[place.bandit].spec)
            for place in table.places()
            if table.epoch(place) == specs[place.bandit].epoch
        ]
        stale = [
            (place.bandit, key)
            for place in table.places()
            if table.epoch(place) != specs[place.bandit].epoch
            for key in table.keys(place)
        ]
        core = LearnCore("fast", 0, WIRE, position, held, stale)
        core.follow(specs)
        return core


def _digests(core: LearnCore) -> dict[str, str]:
    return {bandit: sums.statistics.digest() for bandit, sums in core.held.items()}


@given(entries, st.data())
@settings(max_examples=60, deadline=None)
def test_any_cut_and_any_restart_give_the_same_bits(
    contents: list[object], data: st.DataObject
) -> None:
    """Batches of any size, with restores in between, end as one batch does."""
    log = _log(contents)
    whole = _fresh()
    whole.learn(log)
    core, stored = _fresh(), _Stored()
    stored.commit(core)
    read = 0
    while read < len(log):
        step = data.draw(st.integers(1, 6))
        core.learn(log[max(0, read - 2) : read + step])
        read = min(len(log), read + step)
        if data.draw(st.booleans()):
            stored.commit(core)
        elif data.draw(st.booleans()):
            core = stored.restored()
            read = core.position.next_offset
    assert _digests(core) == _digests(whole)
    assert core.position == whole.position


@given(entries, st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_a_spec_that_comes_late_is_learned_from_the_start(
    contents: list[object], arrival: int
) -> None:
    """A bandit whose spec comes after its outcomes ends where one that was there first does."""
    log = _log(contents)
    early = _fresh()
    early.learn(log)
    late = _fresh({"home": SPECS["home"]})
    late.learn(log[:arrival])
    late.follow(SPECS)
    rebuilt = _fresh(late.missing)
    late.learn(log[arrival:])
    rebuilt.learn(log)
    late.adopt(rebuilt)
    assert _digests(late) == _digests(early)


@given(entries, st.data())
@settings(max_examples=100, deadline=None)
def test_a_bandit_learns_from_the_decisions_that_came_after_it(
    contents: list[object], data: st.DataObject
) -> None:
    """So it does if a learner sees it late, and reads again from where it came, or farther back."""
    log = _log(contents)
    start = data.draw(st.integers(0, len(log)))
    passed = [c["source_offset"] for c in contents[:start] if isinstance(c, dict)]
    first = max(passed, default=-1) + 1 + data.draw(st.integers(0, 3))
    specs = {**SPECS, "position": InForce(OTHER, 7, starts=(Start(start, first),))}
    others = [_of_nobody(c, first) if isinstance(c, dict) else c for c in contents]
    expected, whole = _fresh(), _fresh(specs)
    counts = expected.learn(_log(others)).outcomes
    assert whole.learn(log).outcomes == counts
    arrival = data.draw(st.integers(0, len(log)))
    late = _fresh({"home": SPECS["home"]})
    late.learn(log[:arrival])
    late.follow(specs)
    rebuilt = LearnCore("fast", 0, WIRE, Position(data.draw(st.integers(0, start))))
    rebuilt.follow(late.missing)
    rebuilt.open()
    late.learn(log[arrival:])
    rebuilt.learn(log[rebuilt.position.next_offset :])
    late.adopt(rebuilt)
    assert _digests(late) == _digests(whole) == _digests(expected)


def test_a_bandit_misses_nothing_until_its_first_decision_is_passed() -> None:
    """Before that it begins with empty sums at once; from then on it reads again."""
    log = _log([outcome(0), outcome(1, bandit="position", clicks=1)])
    came = {"position": InForce(OTHER, 7, starts=(Start(1, 1),))}
    early, late = _fresh({}), _fresh({})
    early.learn(log[:1])
    late.learn(log)
    for core in (early, late):
        core.follow(came)
    assert (early.missing, late.missing) == ({}, came)
    assert early.held["position"].statistics.outcomes == 0
    assert early.learn(log).outcomes == {"learned": 1}


def test_a_partition_that_came_after_a_bandit_has_nothing_from_before_it() -> None:
    """All of its outcomes count, whichever learner sees them, however late."""
    came = {"position": InForce(OTHER, 7, starts=(Start(5, 5),))}
    core = LearnCore("fast", 1, WIRE, Position(0))
    core.follow(came)
    core.open()
    assert core.learn(_log([outcome(0, bandit="position", clicks=1)])).outcomes == {"learned": 1}
    assert core.missing == {}


def _of_nobody(fields: dict[str, Any], first: int) -> dict[str, Any]:
    """Give an outcome to a bandit without a spec, if its decision came before ``position``."""
    decision = fields["decision"]
    if decision is None or decision["bandit"] != "position" or fields["source_offset"] >= first:
        return fields
    return {**fields, "decision": {**decision, "bandit": "nobody's"}}


@given(entries)
@settings(max_examples=20, deadline=None)
def test_outcomes_are_learned_once_each(contents: list[object]) -> None:
    """What is counted adds up, and only outcomes that increase the source offset are learned."""
    core = _fresh()
    counts = core.learn(_log(contents)).outcomes
    read = [content for content in contents if not isinstance(content, int)]
    assert sum(counts.values()) == len(read)
    expected, largest = [], -1
    for fields in contents:
        if isinstance(fields, dict) and fields["source_offset"] > largest:
            largest = fields["source_offset"]
            expected.append(fields)
    taken = counts["learned"] + counts["rejected"] + counts["unclaimed"] + counts["oversize"]
    assert (taken, core.position.source_offset) == (len(expected), largest)


def test_a_new_epoch_starts_empty_and_clears_the_old_one() -> None:
    """Sums of an epoch that is gone are deleted in the transaction that writes the new ones."""
    stored, core = _Stored(), _fresh()
    core.learn(_log([outcome(0, clicks=1)]))
    stored.commit(core)
    newer = {**SPECS, "home": InForce(given_spec("home", default=0.5), 9)}
    for again in (core, stored.restored(newer)):
        again.follow(newer)
        assert list(again.missing) == ["home"]
        deleted = [write.key for write in again.writes() if write.value is None]
        assert deleted == [f"home|sums|{HOME.hash}|fast|0".encode()]


def test_a_spec_applied_again_after_another_is_a_new_epoch() -> None:
    """The same spec under a later epoch takes the same keys and doesn't delete what it wrote."""
    stored, core = _Stored(), _fresh()
    stored.commit(core)
    core.follow({**SPECS, "home": InForce(HOME, 9)})
    core.open()
    assert all(write.value is not None for write in core.writes())
    stored.commit(core)
    assert stored.restored({**SPECS, "home": InForce(HOME, 9)}).missing == {}


def test_a_gap_is_refused() -> None:
    """Missing offsets stop the learner before anything is learned."""
    core = _fresh()
    log = _log([outcome(i) for i in range(5)])
    with pytest.raises(LogGapError, match="expected offset 2, got 3"):
        core.learn([*log[:2], *log[3:]])
    assert core.position == Position(0)


def test_what_no_reader_may_use_is_refused_and_passed() -> None:
    """Noise and headless progress records come back with their reason; the rest is learned."""
    log = _log([outcome(0), b"noise", outcome(1)])
    log.append(Record(3, START_MS, b"bandstand.progress", None, ()))
    learned = _fresh().learn(log)
    assert [(r.record.offset, r.error.reason) for r in learned.refused] == [
        (3, "progress"),
        (1, "magic"),
    ]
    assert learned.outcomes["learned"] == 2


@given(st.lists(outcomes, max_size=20), st.data())
@settings(max_examples=40, deadline=None)
def test_a_full_bandit_stops_no_other_and_is_full_for_good(
    contents: list[dict[str, Any]], data: st.DataObject
) -> None:
    """It keeps what it has, counts what it can't take, and the position goes on, however cut."""
    arrays = Statistics.empty(HOME).arrays()
    arrays["products"][:, 0] = HEADROOM - data.draw(st.integers(1, 3)) * STEPS**2
    near = Statistics.from_arrays(HOME, arrays, {}, 1, None)
    log = _log(contents)

    stored = _Stored()
    stored.records.update(sums_records(PartitionSums("fast", 0, 4, 0, near), WIRE))
    whole, core = stored.restored(), stored.restored()
    whole.open()
    core.open()
    learned = whole.learn(log)
    cut = data.draw(st.integers(0, len(log)))
    core.learn(log[:cut])
    stored.commit(core)
    core = stored.restored()
    core.learn(log[cut:])
    assert _digests(core) == _digests(whole)
    assert (core.position, core.full) == (whole.position, whole.full)
    for bandit in SPECS:
        counters = [each.held[bandit].statistics.counters for each in (core, whole)]
        assert counters[0] == counters[1]
    plain = _fresh()
    plain.learn(log)
    assert _digests(whole)["position"] == _digests(plain)["position"]
    assert plain.position == whole.position
    assert whole.full == ({"home"} if learned.counters["rejected_full"] else set())
    taken = whole.held["home"].statistics.outcomes - 1
    if whole.full:
        assert taken < plain.held["home"].statistics.outcomes
        core.follow({**SPECS, "home": InForce(HOME, 9, (Ancestor(4, HOME),))})
        assert core.full == {"home"}
    else:
        assert taken == plain.held["home"].statistics.outcomes


def test_what_was_rejected_is_told_from_what_was_learned() -> None:
    """By reason, for this batch alone; the newest decision is one that was learned from."""
    core = _fresh()
    log = _log([outcome(0, action="unknown"), outcome(1), outcome(2, action="unknown")])
    for record in log[:1]:
        core.learn([record])
    learned = core.learn(log)
    assert learned.outcomes == {"learned": 1, "rejected": 1}
    assert learned.counters == {"rejected_action": 1}
    assert core.newest == START_MS + 1
    again = LearnCore("fast", 0, WIRE, core.position, core.held.values())
    assert again.newest == START_MS + 1


def test_a_rebuild_that_stands_elsewhere_is_not_adopted() -> None:
    """Sums from another position would count outcomes twice or not at all."""
    core = _fresh({})
    core.learn(_log([outcome(0)]))
    core.follow(SPECS)
    with pytest.raises(StateError, match="can't be added"):
        core.adopt(_fresh())


def test_wide_sums_come_in_parts_and_only_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader sees the old sums until the last part of the new ones is there."""
    monkeypatch.setattr(learner_records, "PART_BYTES", 80)
    empty = Statistics.empty(HOME)
    batch = _fresh()
    batch.learn(_log([outcome(0, clicks=1)]))
    old = list(sums_records(PartitionSums("fast", 0, 4, 1, empty), WIRE))
    new = list(sums_records(PartitionSums("fast", 0, 4, 2, batch.held["home"].statistics), WIRE))
    assert len(old) > 2
    table = SumsTable(WIRE)
    assert [table.take(*record) is not None for record in old] == [*[False] * (len(old) - 1), True]
    (place,) = table.places()
    for record in new[:-1]:
        assert table.take(*record) is None
        assert table.sums(place, HOME).statistics.digest() == empty.digest()
    assert table.take(*new[-1]) == place
    assert table.sums(place, HOME).statistics.digest() == batch.held["home"].statistics.digest()
    assert table.keys(place) == [key for key, _ in new]
