"""Tells ticks, good events and bad records of a log apart, a batch at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bandstand.errors import EventError, StateError
from bandstand.schemas.columns import columns
from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.streams.event_checks import mismatches
from bandstand.streams.join_types import TICK_HEADER, Record, Records, Rules

__all__ = ["Bad", "Sifted", "Sifter", "Tick"]


class Tick(NamedTuple):
    """A record that is time: milliseconds, with the lane's settings in force."""

    offset: int
    time: int
    rules: Rules


class Bad(NamedTuple):
    """A record that can't be used, and why."""

    record: Record
    error: EventError


class Sifted(NamedTuple):
    """A batch of a log, told apart; each part in the order of the log.

    Parameters
    ----------
    ticks
        The readable ones.
    good
        Events that can be read and agree with their key and timestamp.
    times
        Their timestamps, milliseconds; int64.
    frames
        Their bytes, as the current schema writes them, with our header.
    sizes
        Lengths of the frames; int64.
    bad
        Whatever else was there.
    """

    ticks: list[Tick]
    good: Records
    times: npt.NDArray[np.int64]
    frames: list[bytes]
    sizes: npt.NDArray[np.int64]
    bad: list[Bad]


class Sifter:
    """Sifts the logs of one lane.

    Parameters
    ----------
    rules
        The lane's settings; a tick may differ in `window_ms` and `grace_ms` only.
    wire
        How events are framed.
    """

    def __init__(self, rules: Rules, wire: Wire) -> None:
        self._rules = rules
        self._wire = wire
        self._read: dict[bytes, Rules] = {}

    def sift(self, kind: str, records: Records) -> Sifted:
        """Tell records apart.

        Parameters
        ----------
        kind
            ``decision`` or ``reward``.
        records
            Of that log.

        Raises
        ------
        StateError
            If a tick contradicts the lane's settings for good.
        """
        ticks, bad, events = self._without_ticks(records)
        batch = columns(kind, events.values, self._wire)
        good, frames, sizes = events, batch.frames, batch.sizes
        if batch.bad:
            bad += [Bad(events.row(broken.index), broken.error) for broken in batch.bad]
            good = events.pick(batch.rows.tolist())
        times = np.array(good.timestamps, np.int64)
        problems = mismatches(good.keys, times, batch.table)
        if problems:
            bad += [Bad(good.row(row), error) for row, error in problems.items()]
            kept = [row for row in range(len(good)) if row not in problems]
            good, times, sizes = good.pick(kept), times[kept], sizes[kept]
            frames = [frames[row] for row in kept]
        bad.sort(key=lambda one: one.record.offset)
        return Sifted(ticks, good, times, frames, sizes, bad)

    def first_tick(self, records: Records) -> Tick | None:
        """Give the first readable tick."""
        ticks, _, _ = self._without_ticks(records)
        return ticks[0] if ticks else None

    def _without_ticks(self, records: Records) -> tuple[list[Tick], list[Bad], Records]:
        ticks: list[Tick] = []
        bad: list[Bad] = []
        if None not in records.values:
            return ticks, bad, records
        empty = [row for row, value in enumerate(records.values) if value is None]
        rows = [row for row in empty if records.keys[row] == TICK_KEY]
        for row in rows:
            record = records.row(row)
            try:
                ticks.append(Tick(record.offset, record.timestamp, self._rules_of(record)))
            except EventError as error:
                bad.append(Bad(record, error))
        return ticks, bad, records.without(rows) if rows else records

    def _rules_of(self, record: Record) -> Rules:
        header = next((value for name, value in record.headers if name == TICK_HEADER), b"")
        if header in self._read:
            return self._read[header]
        rules = Rules.from_header(header)
        if rules[2:] != self._rules[2:]:
            raise StateError(
                f"the tick at offset {record.offset} says {rules}, the settings say "
                f"{self._rules}; lateness, backward and skew are a lane's for good: set them back, "
                "or open a new lane"
            )
        self._read = {header: rules}  # the newest alone: all ticks of a while say the same
        return rules
