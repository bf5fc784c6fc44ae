"""What learners wrote, read back: the position and the sums of the partitions just assigned."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from bandstand.errors import StateError
from bandstand.kafka import TopicReader
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams.dead_letters import origin_of
from bandstand.streams.learner_records import (
    PartitionSums,
    Place,
    Position,
    SumsTable,
    position_key,
    position_of,
)
from bandstand.streams.specs import SpecFollower

__all__ = ["Restored", "restore"]

_READ_S = 120.0


@dataclass
class Restored:
    """What one outcome partition had come to.

    Parameters
    ----------
    position
        Where to go on; None where nothing was ever written.
    held
        Sums of the epochs in force, or of those whose sums go on in them.
    stale
        Bandit and key of records that hold sums of other epochs.
    """

    position: Position | None = None
    held: list[PartitionSums] = field(default_factory=list)
    stale: list[tuple[str, bytes]] = field(default_factory=list)


def restore(
    settings: Settings,
    wire: Wire,
    wanted: Collection[tuple[str, int]],
    specs: SpecFollower,
    stop: threading.Event,
) -> dict[tuple[str, int], Restored] | None:
    """Read back what was committed for outcome partitions, given as lane and number.

    Their transactional producers must be open, so that nobody can commit more. Other learners'
    open transactions are waited for. The specs are read up to their end afterwards: the epochs of
    all sums are known then.

    Returns
    -------
    dict or None
        None if `stop` was set meanwhile.

    Raises
    ------
    StateError
        If a record can't be what a learner wrote, or belongs to a spec that can't be read here.
    BrokerError
        If the end isn't reached in time.
    """
    records = _newest(settings, wanted, stop)
    if records is None:
        return None
    specs.catch_up()
    restored = {key: Restored() for key in wanted}
    table = SumsTable(wire)
    positions = {position_key(*key): restored[key] for key in wanted}
    for key, value in records.items():
        if key in positions:
            positions[key].position = position_of(value, wire)
        else:
            table.take(key, value)
    for place in table.places():
        _sort(place, table, specs, restored[place.lane, place.partition])
    return restored


def _newest(
    settings: Settings, wanted: Collection[tuple[str, int]], stop: threading.Event
) -> dict[bytes, bytes] | None:
    """Read the newest value of each key of the partitions wanted, in the order of writing."""
    ends = tuple(f"|{lane}|{partition}".encode() for lane, partition in wanted)
    records: dict[bytes, bytes] = {}
    reader = TopicReader(settings, TopicNames(settings.topics.prefix).learner_state)
    try:
        for message in reader.read_to_end(_READ_S, stop):
            origin = origin_of(message)
            key = origin.key or b""
            if not key.endswith(ends):
                continue
            records.pop(key, None)
            if origin.value is not None:
                records[key] = origin.value
    finally:
        reader.close()
    return None if stop.is_set() else records


def _sort(place: Place, table: SumsTable, specs: SpecFollower, restored: Restored) -> None:
    epoch, in_force = table.epoch(place), specs.current.get(place.bandit)
    if in_force is not None and in_force.epoch == epoch:
        restored.held.append(table.sums(place, in_force.spec))
    elif in_force is not None and (before := in_force.ancestor(epoch)) is not None:
        restored.held.append(table.sums(place, before))
    elif epoch in specs.unreadable and (in_force is None or in_force.epoch < epoch):
        raise StateError(
            f"{place.bandit!r} was learned under specs record {epoch}, which this version can't "
            "read (see dead-letters); upgrade, or apply a spec that it can read"
        )
    else:
        restored.stale += [(place.bandit, key) for key in table.keys(place)]
