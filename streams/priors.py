"""What a bandit may know before its first outcome: from another bandit, or from a log."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bandstand.errors import SpecError
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
from bandstand.streams.learner_records import SumsTable, is_position
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
    specs = specs_in_force(settings)
    if bandit not in specs:
        known = ", ".join(sorted(specs)) or "none"
        raise SpecError(
            f"bandit {bandit!r} has no spec in force; known: {known}; run 'bandstand apply' first"
        )
    return specs[bandit]


def from_bandit(settings: Settings, spec: Spec, bandit: str) -> Evidence:
    """Take what another bandit has learned and committed so far, all of its partitions together.

    Its origin is the version that a snapshot of just that has.

    Raises
    ------
    SpecError
        If there is no such bandit, its sums don't mean the same, or it has no outcome.
    StateError
        If its sums can't be what a learner wrote.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    source = in_force_of(settings, bandit)
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
    if not known.outcomes:
        raise SpecError(
            f"bandit {bandit!r} has learned nothing yet; there is nothing to start from"
        )
    version = version_of(source.epoch, known.outcomes, known.digest())
    return from_statistics(spec, known, f"bandit {bandit}, version {version}")


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
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise SpecError(f"{path}: can't be read: {error}; give a Parquet file") from None
    return from_outcomes(spec, outcomes(spec, table), path.name)
