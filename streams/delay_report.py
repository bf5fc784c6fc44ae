"""The delays of a lane's rewards, read from its topics.

An identity of the default kind, a UUID of version 7, carries the decision's time: then the reward
alone tells its delay, whatever the window is. Of other rewards only those tell it that the join let
in, in the outcomes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Message

from bandstand.durations import milliseconds
from bandstand.schemas.columns import columns
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams.event_checks import mismatches
from bandstand.streams.reward_delays import NO_TIME, DelayHistogram, decision_times
from bandstand.streams.scan import OnProgress, scan, silent
from bandstand.streams.splice import may_be_joined

__all__ = ["BARS_MS", "WINDOWS_MS", "DelayReport"]

_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000
WINDOWS_MS: Final = (_MINUTE, 10 * _MINUTE, _HOUR, _DAY, 7 * _DAY)
"""Windows whose shares are told."""
BARS_MS: Final = (
    *(0, _SECOND, 10 * _SECOND, _MINUTE, 10 * _MINUTE),
    *(_HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY),
)
"""Where the bars of a drawing begin; the last one has no end, and one before the first no start."""


class DelayReport:
    """What a lane's topics tell about its rewards' delays.

    Parameters
    ----------
    settings
        The settings in force.
    lane
        Name of the lane.
    on_progress
        Told how far each reading has come.

    Raises
    ------
    SettingsError
        If there is no such lane.
    BrokerError
        If a topic can't be read.
    """

    def __init__(self, settings: Settings, lane: str, on_progress: OnProgress = silent) -> None:
        rules = settings.lane(lane)
        names = TopicNames(settings.topics.prefix)
        self.lane = lane
        self.window_ms = milliseconds(rules.window)
        self.backward_ms = milliseconds(rules.backward)
        marks = [-self.backward_ms, self.window_ms, *WINDOWS_MS, *BARS_MS]
        self.by_ids = DelayHistogram(marks)
        """Delays of rewards whose decision's identity carries its time."""
        self.by_pairs = DelayHistogram(marks)
        """Delays of other rewards, in the outcomes."""
        self.pairs_cut_ms: int | None = None
        """The shortest window under which those pairs were joined; longer delays can't be there."""
        self.unused: Counter[str] = Counter()
        """Rewards that told nothing, by why."""
        self._wire = wire_from(settings)
        self._last_source: dict[int, int] = {}
        self._without_time = 0
        for messages in scan(settings, names.rewards(lane), on_progress=on_progress):
            self._read_rewards(messages)
        if self._without_time:
            for messages in scan(settings, names.outcomes(lane), on_progress=on_progress):
                self._read_outcomes(messages)
            unmet = self._without_time - self.by_pairs.count
            if unmet > 0:
                self.unused["in no outcome, and the decision's id has no time"] = unmet

    def _read_rewards(self, messages: Sequence[Message]) -> None:
        rewards = [m for m in messages if m.key() != TICK_KEY or m.value() is not None]
        batch = columns("reward", [m.value() for m in rewards], self._wire)
        self.unused.update(bad.error.reason for bad in batch.bad)
        rows = [rewards[row] for row in batch.rows]
        keys, stamps = [m.key() for m in rows], [m.timestamp()[1] for m in rows]
        problems = mismatches(keys, stamps, batch.table)
        self.unused.update(error.reason for error in problems.values())
        good = np.ones(len(rows), bool)
        good[list(problems)] = False
        decided = decision_times(batch.table["decision_id"])
        timed = good & (decided != NO_TIME)
        self._without_time += int((good & ~timed).sum())
        self.by_ids.add(np.asarray(stamps, np.int64)[timed] - decided[timed])

    def _read_outcomes(self, messages: Sequence[Message]) -> None:
        header = self._wire.header("outcome")
        joined = [m for m in messages if may_be_joined(m.value(), header)]
        keys = pa.array([(m.key() or b"").decode(errors="replace") for m in joined], pa.string())
        other = [joined[row] for row in np.flatnonzero(decision_times(keys) == NO_TIME)]
        batch = columns("outcome", [m.value() for m in other], self._wire)
        table = batch.table
        sources = table["source_offset"].to_pylist()
        partitions = [other[row].partition() or 0 for row in batch.rows]
        fresh = [self._is_fresh(p, s) for p, s in zip(partitions, sources, strict=True)]
        table = table.filter(pa.array(fresh, pa.bool_()))
        if not table.num_rows:
            return
        rewards = table["rewards"]
        times = pc.struct_field(pc.list_flatten(rewards), "ts").cast(pa.int64()).to_numpy()
        parents = pc.list_parent_indices(rewards)
        decided = pc.struct_field(table["decision"], "ts").take(parents).cast(pa.int64())
        known = decided.is_valid().to_numpy(zero_copy_only=False)
        delays = times - decided.fill_null(0).to_numpy(zero_copy_only=False)
        self.by_pairs.add(delays[known])
        cut = int(pc.min(table["window_ms"]).as_py())
        self.pairs_cut_ms = cut if self.pairs_cut_ms is None else min(cut, self.pairs_cut_ms)

    def _is_fresh(self, partition: int, source: int) -> bool:
        """Pass what the reader's filter passes: a worker that lost its partition may repeat."""
        if source <= self._last_source.get(partition, -1):
            return False
        self._last_source[partition] = source
        return True
