"""What the join tells Prometheus; docs/operating.md describes each figure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from prometheus_client import Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from bandstand.streams.join_types import Log
    from bandstand.streams.lanes import Lanes, OwnPartition

__all__ = [
    "DECISIONS",
    "DELAYS",
    "LANES_GIVEN_UP",
    "OUTCOMES",
    "REBALANCES",
    "REFUSED",
    "REWARDS",
    "JoinCollector",
]

_PREFIX: Final = "bandstand_join_"
_PARTITION = ["lane", "partition"]
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400

DECISIONS = Counter(
    _PREFIX + "decisions", "Decisions by their final state.", [*_PARTITION, "state"]
)
REWARDS = Counter(_PREFIX + "rewards", "Rewards by their final state.", [*_PARTITION, "state"])
OUTCOMES = Counter(_PREFIX + "outcomes", "Outcomes given.", _PARTITION)
REFUSED = Counter(
    _PREFIX + "refused", "Invalid decisions and rewards.", [*_PARTITION, "log", "reason"]
)
REBALANCES = Counter(_PREFIX + "rebalances", "Assignments of partitions to this worker.")
LANES_GIVEN_UP = Gauge(
    _PREFIX + "lane_given_up", "1: this worker does nothing more for the lane.", ["lane"]
)


class RewardDelays:
    """A histogram that takes a batch at a time: a client's own takes a microsecond a value.

    A reward before its decision counts as one at the same time.
    """

    BUCKETS_S: Final = (
        *(1, 10, 30, _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
        *(_HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY),
    )

    def __init__(self) -> None:
        self._edges = np.asarray(self.BUCKETS_S, np.int64) * 1_000
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def add(self, lane: str, partition: int, delays_ms: Sequence[int]) -> None:
        """Count the delays of rewards that were joined, milliseconds."""
        key, delays = (lane, str(partition)), np.asarray(delays_ms, np.int64)
        buckets = np.searchsorted(self._edges, delays, side="left")
        counts = np.bincount(buckets, minlength=len(self._edges) + 1).tolist()
        before = self._counts.get(key, [0] * len(counts))
        self._counts[key] = [old + new for old, new in zip(before, counts, strict=True)]
        self._sums[key] = self._sums.get(key, 0.0) + float(np.maximum(delays, 0).sum()) / 1_000

    def collect(self) -> HistogramMetricFamily:
        """Give what was counted so far."""
        family = HistogramMetricFamily(
            _PREFIX + "reward_delay_seconds",
            "A joined reward's time less its decision's.",
            labels=_PARTITION,
        )
        bounds = [*(f"{edge:.1f}" for edge in self.BUCKETS_S), "+Inf"]
        for key, counts in list(self._counts.items()):
            upto = np.cumsum(counts).tolist()
            buckets = list(zip(bounds, upto, strict=True))
            family.add_metric(key, buckets=buckets, sum_value=self._sums.get(key, 0.0))
        return family


DELAYS = RewardDelays()


class _Gauges(NamedTuple):
    waiting: GaugeMetricFamily
    rewards: GaugeMetricFamily
    oldest: GaugeMetricFamily
    lag_records: GaugeMetricFamily
    lag_seconds: GaugeMetricFamily
    watermark: GaugeMetricFamily
    without_tick: GaugeMetricFamily
    braked: GaugeMetricFamily


class JoinCollector(Collector):
    """Reads the cores when Prometheus asks, so that nothing is kept up to date in between.

    Parameters
    ----------
    lanes
        The partitions at work.
    registry
        Where to report.
    """

    def __init__(self, lanes: Lanes, registry: CollectorRegistry = REGISTRY) -> None:
        self._lanes = lanes
        self._registry = registry
        registry.register(self)

    def close(self) -> None:
        """Report no more."""
        self._registry.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Name the metrics without reading any core."""
        return [*_new_gauges(), DELAYS.collect()]

    def collect(self) -> Iterator[Metric]:
        """Read all cores."""
        gauges = _new_gauges()
        for own in self._lanes.own:
            self._read(own, gauges)
        yield from gauges
        yield DELAYS.collect()

    def _read(self, own: OwnPartition, gauges: _Gauges) -> None:
        core, labels, now = own.core, [own.lane, str(own.partition)], time.time()
        gauges.waiting.add_metric(labels, core.waiting)
        gauges.rewards.add_metric(labels, core.index_size)
        oldest = core.oldest_waiting
        if oldest is not None:
            gauges.oldest.add_metric(labels, max(now - oldest / 1_000, 0))
        marks: dict[Log, int | None] = {
            "decisions": core.watermark,
            "rewards": core.reward_watermark,
        }
        for log, mark in marks.items():
            if mark is not None:
                gauges.watermark.add_metric([*labels, log], max(now - mark / 1_000, 0))
            state = self._lanes.ticker.state(own.places[log])
            if state is not None:
                gauges.without_tick.add_metric([*labels, log, state.reason], state.without)
                gauges.braked.add_metric([*labels, log], state.braked)
                if log == "decisions":
                    self._lag(own, labels, gauges, state.time, state.end)

    @staticmethod
    def _lag(
        own: OwnPartition, labels: list[str], gauges: _Gauges, time: int | None, end: int | None
    ) -> None:
        """Compare where the cursor stands with the log's end, as this worker's last tick saw it."""
        done, core = own.done, own.core
        end = max(end or 0, core.next_decision)
        gauges.lag_records.add_metric(labels, max(end - done.source_offset - 1, 0))
        newest = max(time or 0, core.watermark or 0)
        if newest and done.before is not None:
            gauges.lag_seconds.add_metric(labels, max(newest - done.before, 0) / 1_000)


def _new_gauges() -> _Gauges:
    log = [*_PARTITION, "log"]
    return _Gauges(
        GaugeMetricFamily(
            _PREFIX + "waiting_decisions", "Read, no outcome yet.", labels=_PARTITION
        ),
        GaugeMetricFamily(_PREFIX + "index_rewards", "Rewards kept in memory.", labels=_PARTITION),
        GaugeMetricFamily(
            _PREFIX + "oldest_waiting_seconds",
            "Age of the first decision in line.",
            labels=_PARTITION,
        ),
        GaugeMetricFamily(
            _PREFIX + "decision_lag_records",
            "Records of the decision log that aren't done with.",
            labels=_PARTITION,
        ),
        GaugeMetricFamily(
            _PREFIX + "decision_lag_seconds",
            "The decision log's newest tick less that of the decision cursor.",
            labels=_PARTITION,
        ),
        GaugeMetricFamily(
            _PREFIX + "watermark_age_seconds", "Age of the largest tick read.", labels=log
        ),
        GaugeMetricFamily(
            _PREFIX + "without_tick_seconds",
            "Time since the last tick that this worker wrote, and why there is none now.",
            labels=[*log, "reason"],
        ),
        GaugeMetricFamily(
            _PREFIX + "brake_engaged", "1: the broker's clock is held to be wrong.", labels=log
        ),
    )
