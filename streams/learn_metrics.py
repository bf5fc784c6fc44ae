"""What a learner tells Prometheus; docs/operating.md describes each figure."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import Counter, Gauge, Histogram

from bandstand.streams.learn_core import LearnCore, Learned

__all__ = [
    "BANDITS",
    "FENCES",
    "PARTITIONS",
    "REBUILDS",
    "REREAD",
    "TRANSACTIONS",
    "count",
    "forget",
    "show",
]

_PARTITION = ["lane", "partition"]
_REJECTED = "rejected_"
_APART = ("before_since", "not_activated")
"""Counters of outcomes that taught nothing, beside those that begin with `_REJECTED`."""

TRANSACTIONS = Histogram(
    "bandstand_learn_transaction_seconds",
    "Time to commit the state of one outcome partition.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
PARTITIONS = Gauge("bandstand_learn_partitions", "Outcome partitions assigned.", ["lane"])
BANDITS = Gauge("bandstand_learn_bandits", "Bandits with a spec in force.", ["lane"])
FENCES = Counter("bandstand_learn_fenced", "Times that another learner had taken over.")
REBUILDS = Counter("bandstand_learn_rebuilds", "Bandits learned from the retained outcomes.")
REREAD = Counter(
    "bandstand_learn_reread_records", "Records of outcomes read once more, for rebuilds."
)
_OUTCOMES = Counter(
    "bandstand_learn_outcomes", "Outcomes read, by what became of them.", ["lane", "state"]
)
_REJECTIONS = Counter(
    "bandstand_learn_rejected", "Outcomes that taught nothing, by why.", ["lane", "reason"]
)
_ODD_VALUES = Counter(
    "bandstand_learn_odd_values", "Values that were cut, absent or unknown.", ["lane", "kind"]
)
_FULL = Gauge(
    "bandstand_learn_full_bandits",
    "Bandits that learn no more, as another outcome would take a total too far.",
    _PARTITION,
)
_COMPLETE_TO = Gauge(
    "bandstand_learn_complete_to_timestamp_seconds",
    "Watermark of the join up to which all outcomes are learned and committed.",
    _PARTITION,
)
_NEWEST = Gauge(
    "bandstand_learn_newest_decision_timestamp_seconds",
    "Time of the newest decision whose outcome is learned and committed.",
    _PARTITION,
)


def count(lane: str, learned: Learned) -> None:
    """Count what a batch was made of."""
    for state, number in learned.outcomes.items():
        _OUTCOMES.labels(lane, state).inc(number)
    for name, number in learned.counters.items():
        if name.startswith(_REJECTED) or name in _APART:
            _REJECTIONS.labels(lane, name.removeprefix(_REJECTED)).inc(number)
        else:
            _ODD_VALUES.labels(lane, name).inc(number)


def show(core: LearnCore, full: int) -> None:
    """Show how far a partition is, and how many bandits are full, once that is committed."""
    times = {_COMPLETE_TO: core.position.complete_to, _NEWEST: core.newest}
    for gauge, time_ms in times.items():
        if time_ms is not None:
            gauge.labels(core.lane, core.partition).set(time_ms / 1_000)
    _FULL.labels(core.lane, core.partition).set(full)


def forget(core: LearnCore) -> None:
    """Show nothing more of a partition: it is somebody else's."""
    for gauge in (_COMPLETE_TO, _NEWEST, _FULL):
        with suppress(KeyError):
            gauge.remove(core.lane, core.partition)
