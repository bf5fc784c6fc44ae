"""What an audit that goes on tells Prometheus."""

from __future__ import annotations

from prometheus_client import Gauge

from bandstand.streams.audit_core import FAULTS, NOTICES
from bandstand.streams.audit_partition import AuditLogs, PartitionAudit

__all__ = ["report"]

_PARTITION = ["lane", "partition"]

_AUDITED = Gauge(
    "bandstand_audit_audited_offset",
    "Offset of the decision log up to which all outcomes were judged.",
    _PARTITION,
)
_LAG = Gauge(
    "bandstand_audit_lag_records",
    "Records of the decision log behind that, open attribution windows included.",
    _PARTITION,
)
_OUTCOMES = Gauge(
    "bandstand_audit_equal_outcomes", "Outcomes that were what they must be.", _PARTITION
)
_DIFFERENCES = Gauge(
    "bandstand_audit_differences",
    "Differences found since the audit began, by kind; a missing one that comes late moves to "
    "another kind.",
    [*_PARTITION, "kind"],
)
_UNCLOSED = Gauge(
    "bandstand_audit_unclosed", "1: the accounts of this partition don't close.", _PARTITION
)


def report(lane: str, partition: int, audit: PartitionAudit, logs: AuditLogs) -> None:
    """Set a partition's metrics."""
    labels, comparison = (lane, str(partition)), audit.comparison
    _AUDITED.labels(*labels).set(comparison.judged_to)
    _LAG.labels(*labels).set(max(logs.decisions.end - 1 - comparison.judged_to, 0))
    _OUTCOMES.labels(*labels).set(comparison.counts["equal"])
    _UNCLOSED.labels(*labels).set(not audit.closes)
    counts = {**comparison.counts, "pending": comparison.waiting}
    for kind in (*FAULTS, *NOTICES):
        _DIFFERENCES.labels(*labels, kind).set(counts.get(kind, 0))
