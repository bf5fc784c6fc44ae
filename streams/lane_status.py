"""Where the join of each partition stands, from the topics alone: no worker is asked."""

from __future__ import annotations

import json
from typing import NamedTuple

from bandstand.errors import StateError
from bandstand.schemas.topics import TICK_KEY, TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams.join_types import (
    PROGRESS_HEADER,
    PROGRESS_KEY,
    Record,
    Tail,
    parse_tail,
)
from bandstand.streams.tail import LogEnds

__all__ = ["LaneLooks", "PartitionStatus"]


class PartitionStatus(NamedTuple):
    """One partition of a lane; times in milliseconds since 1970.

    Parameters
    ----------
    lane, partition
        Which one.
    decisions_watermark, rewards_watermark
        The newest tick of each log; None where it has none.
    lag_records
        Records of the decision log, ticks among them, behind the last one that is known to be done.
    lag_ms
        The decision log's watermark less that of the decision cursor; None before the first tick.
        A decision waits window and grace, so that much of it is no fault.
    oldest_open
        Event time of the first decision that isn't known to be done; None where there is none.
    index_rewards
        Rewards that the worker kept when it last said so.
    index_at
        The decision log's watermark by then.
    """

    lane: str
    partition: int
    decisions_watermark: int | None
    rewards_watermark: int | None
    lag_records: int
    lag_ms: int | None
    oldest_open: int | None
    index_rewards: int | None
    index_at: int | None


class LaneLooks:
    """Looks at the ends of lanes' topics; for one thread.

    Parameters
    ----------
    settings
        Where the broker is, and the lanes.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = TopicNames(settings.topics.prefix)
        self._wire = wire_from(settings)
        self._looks = LogEnds(settings)

    def lane(self, lane: str) -> list[PartitionStatus]:
        """Look at all partitions of a lane.

        Raises
        ------
        TopicError
            If a topic isn't there.
        BrokerError
            If it can't be read.
        StateError
            If an outcome partition ends in something else than the join writes.
        """
        partitions = self._looks.partition_count(self._names.decisions(lane))
        return [self._partition(lane, partition) for partition in range(partitions)]

    def close(self) -> None:
        """Disconnect."""
        self._looks.close()

    def _partition(self, lane: str, partition: int) -> PartitionStatus:
        looks, (decisions, rewards, outcomes) = self._looks, self._names.lane(lane)
        last = looks.tail(outcomes, partition)
        low, end = looks.bounds(decisions, partition)
        done = Tail(low - 1, None) if last is None else parse_tail(last, self._wire)
        first = max(done.source_offset + 1, low)
        watermark = looks.newest_tick(decisions, partition)
        oldest = looks.next(decisions, partition, first, lambda record: not _is_tick(record))
        lag = None if watermark is None or done.before is None else watermark - done.before
        index_rewards, index_at = self._index(outcomes, partition)
        return PartitionStatus(
            lane,
            partition,
            watermark,
            looks.newest_tick(rewards, partition),
            max(end - first, 0),
            lag,
            None if oldest is None else oldest.timestamp,
            index_rewards,
            index_at,
        )

    def _index(self, outcomes: str, partition: int) -> tuple[int | None, int | None]:
        progress = self._looks.newest(outcomes, partition, lambda r: r.key == PROGRESS_KEY)
        if progress is None:
            return None, None
        try:
            said = json.loads(dict(progress.headers)[PROGRESS_HEADER])
            return int(said["rewards"]), progress.timestamp
        except (KeyError, ValueError, TypeError) as error:
            raise StateError(
                f"offset {progress.offset} of {outcomes}/{partition} is no progress record: "
                f"{error!r}; only the join may write there"
            ) from None


def _is_tick(record: Record) -> bool:
    return record.key == TICK_KEY and record.value is None
