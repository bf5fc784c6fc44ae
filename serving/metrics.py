"""What a service's own ``/metrics`` says about its decisions; no server is started here."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["DECIDE_SECONDS", "DECISIONS", "DROPPED", "LOST", "SNAPSHOT_AGE", "SWAPS"]

DECISIONS: Final = Counter(
    "bandstand_serving_decisions",
    "Decisions made, by the step of the fall-back ladder that answered.",
    ["bandit", "fallback"],
)
DROPPED: Final = Counter(
    "bandstand_serving_dropped",
    "Records that were not taken into the queue to Kafka, because it was full or broken.",
    ["topic"],
)
LOST: Final = Counter(
    "bandstand_serving_lost",
    "Records that were taken into the queue to Kafka and could not be delivered.",
    ["topic"],
)
SWAPS: Final = Counter("bandstand_serving_snapshot_swaps", "Snapshots taken into use.", ["bandit"])
SNAPSHOT_AGE: Final = Gauge(
    "bandstand_serving_snapshot_age_seconds",
    "Time since the snapshot in use was published; the publisher's clock against this one's.",
    ["bandit"],
    multiprocess_mode="livemax",
)
DECIDE_SECONDS: Final = Histogram(
    "bandstand_serving_decide_seconds",
    "Time that a decision took, logging included; of one decision in sixteen, drawn by its seed.",
    ["bandit"],
    buckets=(2e-5, 3e-5, 5e-5, 7.5e-5, 1e-4, 1.5e-4, 2e-4, 5e-4, 1e-3, 1e-2, 1e-1),
)
