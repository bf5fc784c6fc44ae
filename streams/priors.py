"""What a bandit may know before its first outcome: from another bandit, or from a log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bandstand.errors import SpecError, StateError
from bandstand.kafka import TopicReader
from bandstand.learners.evidence import Evidence, Weighed, from_outcomes, from_statistics
from bandstand.learners.logged import outcomes
from bandstand.learners.snapshots import version_of
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams.dead_letters import origin_of
from bandstand.streams.in_force import InForce
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import Position, SumsTable, is_position
from bandstand.streams.records import record_of
from bandstand.streams.scan import scan
from bandstand.streams.snapshots import load_snapshot
from bandstand.streams.specs import specs_in_force

__all__ = ["from_bandit", "from_file", "in_force_of"]

_READ_S = 120.0


def in_force_of(settings: Settings, bandit: str) -> InForce:
    """Give what is in force for a bandit.

    Raises
    ------
    SpecError
        If nothing is.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    return _of(specs_in_force(settings), bandit)


def _of(in_force: Mapping[str, InForce], bandit: str) -> InForce:
    if bandit not in in_force:
        known = ", ".join(sorted(in_force)) or "none"
        raise SpecError(
            f"bandit {bandit!r} has no spec in force; known: {known}; run 'bandstand apply' first"
        )
    return in_force[bandit]


def from_bandit(
    settings: Settings, in_force: Mapping[str, InForce], specs: Iterable[Spec], source: str
) -> list[Evidence]:
    """Take what another bandit has learned, all of its partitions together.

    Its origin is the version of a snapshot of just that.

    Parameters
    ----------
    settings
        The settings in force.
    in_force
        The specs in force.
    specs
        Of the bandits that are to start from it.
    source
        ``bandit``: what that one has committed so far. ``bandit@version``: what it knew when that
        snapshot was published.

    Raises
    ------
    SpecError
        If there is no such bandit, it is one of those that are to start from it, its sums don't
        mean the same, or it has no outcome.
    StateError
        If its sums can't be what a learner wrote, there is no such snapshot, or what it was made
        from isn't retained any more.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    bandit, _, version = source.partition("@")
    specs = list(specs)
    if any(spec.bandit == bandit for spec in specs):
        raise SpecError(
            f"bandit {bandit!r} can't start from {source!r}: each of its outcomes would count"
            " twice; name another bandit, or apply its spec without --prior-from: its sums go on"
            " where they can"
        )
    if version:
        known = _at(settings, in_force, bandit, version)
    else:
        version, known = _so_far(settings, _of(in_force, bandit))
    if not known.outcomes:
        raise SpecError(
            f"bandit {source!r} has learned nothing yet; there is nothing to start from"
        )
    origin = f"bandit {bandit}, version {version}"
    return [from_statistics(spec, known, origin) for spec in specs]


def _so_far(settings: Settings, source: InForce) -> tuple[str, Statistics]:
    """Add up what is committed, and give the version that it has."""
    bandit = source.spec.bandit
    table = SumsTable(wire_from(settings))
    reader = TopicReader(settings, TopicNames(settings.topics.prefix).learner_state)
    try:
        for message in reader.read_to_end(_READ_S):
            origin = origin_of(message)
            key = origin.key or b""
            if key.startswith(f"{bandit}|".encode()) and not is_position(key):
                table.take(key, origin.value)
    finally:
        reader.close()
    known = Statistics.empty(source.spec)
    for place in table.places_of(bandit):
        if table.epoch(place) == source.epoch:
            known = known.merge(table.sums(place, source.spec).statistics)
    return version_of(source.epoch, known.outcomes, known.digest()), known


def _at(
    settings: Settings, in_force: Mapping[str, InForce], bandit: str, version: str
) -> Statistics:
    """Learn anew what a snapshot was made from: the outcomes before its offsets, by its spec.

    A snapshot has the solution, not the sums; by its digest it is known that these are they.
    """
    snapshot = load_snapshot(settings, bandit, version)
    spec = Spec.from_canonical(snapshot["spec"])
    ends = {int(partition): offset for partition, offset in snapshot["source_offsets"].items()}
    now, known = in_force.get(bandit), Statistics.empty(spec)
    starts = now.starts if now is not None and now.spec.lane == spec.lane else ()
    for core in _learned(settings, InForce(spec, snapshot["epoch"], starts=starts), ends):
        known = known.merge(core.held[bandit].statistics)
    if known.digest() != snapshot["digest"]:
        raise StateError(
            f"snapshot {version} of {bandit!r} was made from {snapshot['outcomes']} outcomes; those"
            f" that are retained of them, {known.outcomes}, come to something else: take a newer"
            f" version, or what it has learned so far: --prior-from {bandit}"
        )
    return known


def _learned(settings: Settings, in_force: InForce, ends: Mapping[int, int]) -> list[LearnCore]:
    """Learn one spec from the retained outcomes before some offsets, by partition, in order."""
    cores: dict[int, LearnCore] = {}
    spec, wire = in_force.spec, wire_from(settings)
    topic = TopicNames(settings.topics.prefix).outcomes(spec.lane)
    left = {partition for partition, end in ends.items() if end > 0}
    starts = {partition: in_force.start(partition).outcome for partition in left}
    for messages in scan(settings, topic, starts=starts):
        for partition in sorted(left):
            records = [record_of(each) for each in messages if each.partition() == partition]
            if not records:
                continue
            if partition not in cores:
                start = Position(records[0].offset)
                core = cores[partition] = LearnCore(spec.lane, partition, wire, start)
                core.follow({spec.bandit: in_force})
                core.open()
            cores[partition].learn([r for r in records if r.offset < ends[partition]])
            if records[-1].offset >= ends[partition] - 1:
                left.discard(partition)
        if not left:
            break
    return [cores[partition] for partition in sorted(cores)]


def from_file(spec: Spec, path: Path) -> Weighed:
    """Sum up a Parquet file of decisions and their rewards.

    Raises
    ------
    SpecError
        If it can't be read, or its columns aren't those that the spec reads.
    StateError
        If no row can be used.
    """
    try:
        # Only a single file is read with columns that repeat, which the reader of logs then names.
        table = pq.ParquetFile(path).read() if path.is_file() else pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise SpecError(f"{path}: can't be read: {error}; give a Parquet file") from None
    return from_outcomes(spec, outcomes(spec, table), path.name)
