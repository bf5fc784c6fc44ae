"""How sums and positions lie in ``learner-state``; hides the parts into which wide sums are cut.

Each record is the newest word on its key, so a reader needs only the last of each. Sums of more
than `PART_BYTES` come in parts, always written all together, one after the other, in one
transaction; a reader takes them once all parts of one writing are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bandstand.errors import EventError, StateError
from bandstand.learners.keepers import keeper_of
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import POSITION_KEY_PREFIX, state_key
from bandstand.schemas.wire import Wire

__all__ = [
    "PART_BYTES",
    "PartitionSums",
    "Place",
    "Position",
    "SumsTable",
    "is_position",
    "position_key",
    "position_of",
    "position_record",
    "sums_keys",
    "sums_records",
]

PART_BYTES: Final = 400_000
"""Most bytes of sums in one record."""

_NAME = "sums"


class Place(NamedTuple):
    """Where sums belong: what one outcome partition has added to a bandit under one spec."""

    bandit: str
    spec_hash: str
    lane: str
    partition: int


class Position(NamedTuple):
    """How far an outcome partition has been learned.

    Parameters
    ----------
    next_offset
        Offset of the next outcome record to read.
    source_offset
        Largest decision offset taken; -1 before the first.
    complete_to
        The join's watermark up to which the partition is complete, milliseconds; None before it is
        known.
    """

    next_offset: int
    source_offset: int = -1
    complete_to: int | None = None


@dataclass(frozen=True)
class PartitionSums:
    """What one outcome partition has taught about a bandit in one epoch.

    Parameters
    ----------
    lane, partition
        Which outcome partition.
    epoch
        Offset of the bandit's ``specs`` record.
    next_offset
        Offset after the last outcome record that was taken into account.
    statistics
        The sums.
    """

    lane: str
    partition: int
    epoch: int
    next_offset: int
    statistics: Statistics

    @property
    def place(self) -> Place:
        """Where they belong."""
        spec = self.statistics.spec
        return Place(spec.bandit, spec.hash, self.lane, self.partition)


def position_key(lane: str, partition: int) -> bytes:
    """Key of a partition record.

    Examples
    --------
    >>> position_key("default", 3)
    b'position|default|3'
    """
    return POSITION_KEY_PREFIX + f"{lane}|{partition}".encode()


def position_record(lane: str, partition: int, position: Position, wire: Wire) -> bytes:
    """Write a position."""
    record = {"lane": lane, "partition": partition, **position._asdict()}
    return wire.dumps("learner_position", record)


def position_of(value: bytes, wire: Wire) -> Position:
    """Read a position.

    Raises
    ------
    StateError
        If the bytes aren't one.
    """
    record = _loads("learner_position", value, wire)
    return Position(record["next_offset"], record["source_offset"], record["complete_to"])


def sums_records(sums: PartitionSums, wire: Wire) -> Iterator[tuple[bytes, bytes]]:
    """Write sums: key and value of each part."""
    statistics = sums.statistics
    head = {
        "bandit": statistics.spec.bandit,
        "spec_hash": statistics.spec.hash,
        "epoch": sums.epoch,
        "lane": sums.lane,
        "partition": sums.partition,
        "next_offset": sums.next_offset,
        "outcomes": statistics.outcomes,
        "newest": statistics.newest,
        "counters": dict(statistics.counters),
    }
    parts = _cut(statistics.arrays())
    for name, key, arrays in zip(
        _part_names(len(parts)), _keys(sums.place, len(parts)), parts, strict=True
    ):
        yield key, wire.dumps("learner_state", {**head, "statistic": name, "arrays": arrays})


def sums_keys(sums: PartitionSums) -> list[bytes]:
    """Keys of all parts of sums."""
    total = sum(array.nbytes for array in sums.statistics.arrays().values())
    return _keys(sums.place, max(1, math.ceil(total / PART_BYTES)))


class SumsTable:
    """The newest whole sums of every place, from records in the order of their log.

    Parameters
    ----------
    wire
        What reads the records.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._whole: dict[Place, list[dict[str, Any]]] = {}
        self._by_bandit: dict[str, set[Place]] = {}
        self._arriving: dict[Place, dict[int, dict[str, Any]]] = {}
        self._counts: dict[Place, int] = {}

    def take(self, key: bytes, value: bytes | None) -> Place | None:
        """Take a record; gives the place whose sums are other ones now, if any.

        Raises
        ------
        StateError
            If it isn't a record of sums.
        """
        place, part, count = _parse_key(key)
        if value is None:
            return self._remove(place)
        record = _loads("learner_state", value, self._wire)
        arriving = self._arriving.get(place)
        if arriving and _writing(next(iter(arriving.values()))) != _writing(record):
            arriving = None
        if not arriving or self._counts[place] != count:
            arriving = self._arriving[place] = {}
            self._counts[place] = count
        arriving[part] = record
        if len(arriving) < count:
            return None
        self._whole[place] = [record for _, record in sorted(self._arriving.pop(place).items())]
        self._by_bandit.setdefault(place.bandit, set()).add(place)
        return place

    def _remove(self, place: Place) -> Place | None:
        self._arriving.pop(place, None)
        if self._whole.pop(place, None) is None:
            return None
        self._by_bandit[place.bandit].discard(place)
        return place

    def places(self) -> list[Place]:
        """Places that have sums."""
        return list(self._whole)

    def places_of(self, bandit: str) -> list[Place]:
        """Places of a bandit that have sums."""
        return sorted(self._by_bandit.get(bandit, ()))

    def epoch(self, place: Place) -> int:
        """Epoch of the sums of a place."""
        return int(self._whole[place][0]["epoch"])

    def keys(self, place: Place) -> list[bytes]:
        """Keys of the records that hold the sums of a place."""
        return _keys(place, len(self._whole[place]))

    def sums(self, place: Place, spec: Spec) -> PartitionSums:
        """Read the sums of a place.

        Parameters
        ----------
        place
            One of `places`.
        spec
            The spec that it names.

        Raises
        ------
        StateError
            If the sums aren't those of this spec.
        """
        head = self._whole[place][0]
        arrays = _joined(self._whole[place], keeper_of(spec).shapes)
        statistics = Statistics.from_arrays(
            spec, arrays, head["counters"], head["outcomes"], head["newest"]
        )
        return PartitionSums(
            place.lane, place.partition, head["epoch"], head["next_offset"], statistics
        )


def is_position(key: bytes) -> bool:
    """Tell the key of a position from that of sums, also where a bandit is named ``position``.

    Examples
    --------
    >>> is_position(b"position|default|3"), is_position(b"position|sums|ab|default|3")
    (True, False)
    """
    return key.count(b"|") == position_key("", 0).count(b"|")


def _writing(record: Mapping[str, Any]) -> tuple[int, int]:
    """Name what all parts of one writing share, and no two writings of a place."""
    return record["epoch"], record["next_offset"]


def _part_names(count: int) -> list[str]:
    return [_NAME] if count == 1 else [f"{_NAME}:{part}/{count}" for part in range(count)]


def _keys(place: Place, count: int) -> list[bytes]:
    return [
        state_key(place.bandit, name, place.spec_hash, place.lane, place.partition)
        for name in _part_names(count)
    ]


def _parse_key(key: bytes) -> tuple[Place, int, int]:
    try:
        bandit, name, spec_hash, lane, partition = key.decode().split("|")
        part, _, count = name.removeprefix(_NAME).removeprefix(":").partition("/")
        return Place(bandit, spec_hash, lane, int(partition)), int(part or 0), int(count or 1)
    except ValueError:
        raise StateError(
            f"learner-state has a record under the key {key!r}; allowed: "
            "bandit|statistic|spec hash|lane|partition and position|lane|partition; only learners "
            "may write there: delete it with a record of that key without a value"
        ) from None


def _loads(name: str, value: bytes, wire: Wire) -> dict[str, Any]:
    try:
        return wire.loads(name, value)
    except EventError as error:
        raise StateError(f"learner-state has a {name} that can't be read: {error}") from None


def _cut(arrays: Mapping[str, npt.NDArray[np.int64]]) -> list[list[dict[str, Any]]]:
    """Cut arrays, one after the other, into lists of at most `PART_BYTES`."""
    total = sum(array.nbytes for array in arrays.values())
    if total <= PART_BYTES:
        return [[_entry(name, list(a.shape), a) for name, a in sorted(arrays.items())]]
    parts: list[list[dict[str, Any]]] = [[]]
    room = PART_BYTES // 8
    for name, array in sorted(arrays.items()):
        flat = array.reshape(-1)
        while len(flat):
            if room == 0:
                parts.append([])
                room = PART_BYTES // 8
            piece, flat = flat[:room], flat[room:]
            parts[-1].append(_entry(name, [len(piece)], piece))
            room -= len(piece)
    return parts


def _entry(name: str, shape: list[int], array: npt.NDArray[np.int64]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "data": array.astype("<i8").tobytes()}


def _joined(
    parts: list[dict[str, Any]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, npt.NDArray[np.int64]]:
    data: dict[str, list[bytes]] = {}
    for entry in (entry for part in parts for entry in part["arrays"]):
        data.setdefault(entry["name"], []).append(entry["data"])
    whole = {name: b"".join(pieces) for name, pieces in data.items()}
    sizes = {name: len(piece) for name, piece in whole.items()}
    wanted = {name: 8 * math.prod(shape) for name, shape in shapes.items()}
    if sizes != wanted:
        raise StateError(
            f"sums of {parts[0]['bandit']!r} have {sizes} bytes; its spec asks for {wanted}"
        )
    return {
        name: np.frombuffer(piece, "<i8").astype(np.int64, copy=False).reshape(shapes[name])
        for name, piece in whole.items()
    }
