"""What the join tells Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from bandstand.streams.lanes import Lanes, OwnPartition

__all__ = ["DECISIONS", "LANES_GIVEN_UP", "OUTCOMES", "REBALANCES", "REWARDS", "JoinCollector"]

_PARTITION = ["lane", "partition"]

DECISIONS = Counter(
    "bandstand_join_decisions", "Decisions that reached their state.", [*_PARTITION, "state"]
)
REWARDS = Counter(
    "bandstand_join_rewards", "Rewards that reached their state.", [*_PARTITION, "state"]
)
OUTCOMES = Counter("bandstand_join_outcomes", "Outcomes given.", _PARTITION)
REBALANCES = Counter("bandstand_join_rebalances", "Assignments of partitions to this worker.")
LANES_GIVEN_UP = Gauge(
    "bandstand_join_lane_given_up", "1: this worker does nothing more for the lane.", ["lane"]
)


class _Gauges(NamedTuple):
    waiting: GaugeMetricFamily
    rewards: GaugeMetricFamily
    oldest: GaugeMetricFamily
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
        return _new_gauges()

    def collect(self) -> Iterator[Metric]:
        """Read all cores."""
        gauges = _new_gauges()
        for own in self._lanes.own:
            self._read(own, gauges)
        yield from gauges

    def _read(self, own: OwnPartition, gauges: _Gauges) -> None:
        core, labels = own.core, [own.lane, str(own.partition)]
        gauges.waiting.add_metric(labels, core.waiting)
        gauges.rewards.add_metric(labels, core.index_size)
        oldest = core.oldest_waiting
        if oldest is not None:
            gauges.oldest.add_metric(labels, max(time.time() - oldest / 1_000, 0))
        marks = {"decisions": core.watermark, "rewards": core.reward_watermark}
        for log, place in own.places.items():
            mark = marks[log]
            if mark is not None:
                gauges.watermark.add_metric([*labels, log], mark / 1_000)
            without = self._lanes.ticker.without_tick(place)
            if without is not None:
                seconds, reason, braked = without
                gauges.without_tick.add_metric([*labels, log, reason], seconds)
                gauges.braked.add_metric([*labels, log], braked)


def _new_gauges() -> _Gauges:
    log = [*_PARTITION, "log"]
    prefix = "bandstand_join_"
    return _Gauges(
        GaugeMetricFamily(prefix + "waiting_decisions", "Read, no outcome yet.", labels=_PARTITION),
        GaugeMetricFamily(prefix + "index_rewards", "Rewards kept in memory.", labels=_PARTITION),
        GaugeMetricFamily(
            prefix + "oldest_waiting_seconds",
            "Age of the first decision in line.",
            labels=_PARTITION,
        ),
        GaugeMetricFamily(
            prefix + "watermark_seconds", "Largest tick read, seconds since 1970.", labels=log
        ),
        GaugeMetricFamily(
            prefix + "seconds_without_tick",
            "Time since the last tick that this worker wrote, and why there is none now.",
            labels=[*log, "reason"],
        ),
        GaugeMetricFamily(
            prefix + "brake_engaged", "1: the broker's clock is held to be wrong.", labels=log
        ),
    )
