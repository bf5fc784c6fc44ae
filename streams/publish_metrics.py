"""What a publisher tells Prometheus; docs/operating.md describes each figure."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from bandstand.learners.condition import condition_number

__all__ = ["BANDITS", "CHANGES", "FAILURES", "FENCES", "ROUNDS", "SOLVES", "forget", "show"]

_BANDIT = ["bandit"]
_CONDITION_EVERY_S = 60.0
"""A condition number takes a quarter of the time of solving, and changes slowly."""

BANDITS = Gauge("bandstand_publish_bandits", "Bandits with a spec in force that are owned here.")
CHANGES = Counter(
    "bandstand_publish_changes", "Changes of an action's rewards that were found.", _BANDIT
)
FAILURES = Counter(
    "bandstand_publish_failures",
    "Snapshots that couldn't be made, and acts on drift that couldn't be applied; see the log.",
    _BANDIT,
)
FENCES = Counter("bandstand_publish_fenced", "Times that another publisher had taken over.")
ROUNDS = Histogram(
    "bandstand_publish_seconds",
    "Time to solve and write a round of snapshots.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
SOLVES = Histogram(
    "bandstand_publish_solve_seconds",
    "Time to add up and solve one bandit, and to make its snapshot.",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)
_SNAPSHOTS = Counter("bandstand_publish_snapshots", "Snapshots published.", _BANDIT)
_OUTCOMES = Gauge("bandstand_publish_outcomes", "Outcomes in the newest snapshot.", _BANDIT)
_NEWEST = Gauge(
    "bandstand_publish_newest_decision_timestamp_seconds",
    "Time of the newest decision that the newest snapshot has learned from.",
    _BANDIT,
)
_CONDITION = Gauge(
    "bandstand_publish_condition_number",
    "Largest condition number of the posteriors in a snapshot of the last minute.",
    _BANDIT,
)
_GAUGES = (_OUTCOMES, _NEWEST, _CONDITION)
_looked_at: dict[str, float] = {}
"""When each bandit's condition number was computed, seconds of the monotonic clock."""


def show(snapshot: dict[str, Any]) -> None:
    """Show a snapshot that was published."""
    bandit = snapshot["bandit"]
    _SNAPSHOTS.labels(bandit).inc()
    _OUTCOMES.labels(bandit).set(snapshot["outcomes"])
    if snapshot["newest"] is not None:
        _NEWEST.labels(bandit).set(snapshot["newest"] / 1_000)
    now = time.monotonic()
    if now - _looked_at.get(bandit, -_CONDITION_EVERY_S) >= _CONDITION_EVERY_S:
        _looked_at[bandit] = now
        condition = condition_number(snapshot)
        if condition is not None:
            _CONDITION.labels(bandit).set(condition)


def forget(bandits: Iterable[str]) -> None:
    """Show nothing more of bandits that are somebody else's."""
    for bandit in bandits:
        _looked_at.pop(bandit, None)
        for gauge in _GAUGES:
            with suppress(KeyError):
                gauge.remove(bandit)
