"""Audits of whole lanes: once, or as a role that goes on.

What is compared, and how, is the business of `audit_partition`; this module knows when a partition
is looked at, from which source, and who is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple, Protocol

from bandstand.errors import LogGapError, StateError
from bandstand.logs import get_logger
from bandstand.role import Role, persist, running
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire, wire_from
from bandstand.settings import Settings
from bandstand.streams import audit_metrics
from bandstand.streams.audit_core import FAULTS
from bandstand.streams.audit_partition import AuditLogs, PartitionAudit, Span
from bandstand.streams.audit_report import PartitionReport
from bandstand.streams.audit_topics import TopicSource
from bandstand.streams.join_types import Rules

__all__ = ["AuditProgress", "AuditSource", "audit", "follow"]

_log = get_logger(__name__)
_ROUND_S = 1.0
_REPORT_S = 0.1


class AuditSource(Protocol):
    """Where the logs of lanes are."""

    @property
    def complete(self) -> bool:
        """Whether the inputs hold every decision of which an outcome can be found."""

    def partitions(self, lane: str) -> Sequence[int]:
        """Give the partitions of a lane."""

    def logs(self, lane: str, partition: int) -> AuditLogs:
        """Give a partition's logs with the ends that they have now."""


class AuditProgress(NamedTuple):
    """How far the audit of one partition is, in records."""

    task: str
    done: int
    total: int


def audit(
    settings: Settings,
    source: AuditSource,
    lanes: Sequence[str],
    span: Span,
    on_progress: Callable[[AuditProgress], None],
) -> list[PartitionReport]:
    """Audit lanes once, a partition after the other.

    Parameters
    ----------
    settings
        The settings in force.
    source
        Where the logs are.
    lanes
        Names of lanes.
    span
        What is to be judged.
    on_progress
        Told several times a second how far a partition is.

    Raises
    ------
    StateError
        If a lane's settings for good aren't those of its ticks.
    LogGapError
        If records are deleted while they are to be read.
    BandstandError
        If the source can't be read.
    """
    wire = wire_from(settings)
    reports = []
    for lane in lanes:
        for partition in source.partitions(lane):
            logs = source.logs(lane, partition)
            with _named(lane, partition):
                one = _begin(settings, lane, logs, wire, span, complete=source.complete)
                total = sum(log.end - log.start for log in (logs.decisions, logs.rewards))
                _read(one, logs, _Told(on_progress, f"{lane}/{partition}", total))
            reports.append(_report(settings, lane, partition, one, logs))
    return reports


def follow(settings: Settings, lanes: Sequence[str], span: Span) -> list[PartitionReport]:
    """Audit lanes until SIGTERM, as the join goes on; give what was found.

    Raises
    ------
    StateError
        If a lane's settings for good aren't those of its ticks.
    LogGapError
        If records are deleted before they are audited.
    BrokerError
        If the broker refuses for good; one that is away is waited for.
    """
    with running("audit", settings) as role:
        followed = _Follow(role, settings, lanes, span)
        persist(role, followed.run)
    return followed.reports()


class _Follow:
    """The audits that go on, and the last ends that were looked at."""

    def __init__(self, role: Role, settings: Settings, lanes: Sequence[str], span: Span) -> None:
        self._role = role
        self._settings = settings
        self._lanes = lanes
        self._span = span
        self._wire: Wire | None = None
        self._audits: dict[tuple[str, int], PartitionAudit] = {}
        self._logs: dict[tuple[str, int], AuditLogs] = {}
        self._told: set[tuple[object, ...]] = set()

    def run(self) -> None:
        """Look at all partitions in turn, until told to stop or Kafka is away."""
        self._wire = self._wire or wire_from(self._settings)
        with closing(TopicSource(self._settings)) as source:
            places = [(lane, p) for lane in self._lanes for p in source.partitions(lane)]
            while not self._role.stop.is_set():
                for lane, partition in places:
                    with _named(lane, partition):
                        self._go_on(source, self._wire, lane, partition)
                self._role.health.started()
                self._role.stop.wait(_ROUND_S)

    def reports(self) -> list[PartitionReport]:
        """Give what was found so far."""
        return [
            _report(self._settings, *place, audit, self._logs[place])
            for place, audit in sorted(self._audits.items())
        ]

    def _go_on(self, source: TopicSource, wire: Wire, lane: str, partition: int) -> None:
        place, logs = (lane, partition), source.logs(lane, partition)
        one = self._audits.get(place)
        if one is None:
            one = _begin(self._settings, lane, logs, wire, self._span, complete=source.complete)
            self._audits[place] = one
        self._logs[place] = logs
        due = 0.0
        for _ in one.read_on(logs, last=False):
            if time.monotonic() >= due:
                due = time.monotonic() + _ROUND_S
                audit_metrics.report(lane, partition, one, logs)
            if self._role.stop.is_set():
                return
        audit_metrics.report(lane, partition, one, logs)
        self._tell(place, one)

    def _tell(self, place: tuple[str, int], one: PartitionAudit) -> None:
        """Log what wasn't known before."""
        for difference in one.comparison.differences:
            if difference.kind in FAULTS and (*place, *difference[:3]) not in self._told:
                self._told.add((*place, *difference[:3]))
                _log.error(
                    "outcome differs", lane=place[0], partition=place[1], **difference._asdict()
                )
        if not one.closes and (*place, "unclosed") not in self._told:
            self._told.add((*place, "unclosed"))
            _log.error("accounts don't close", lane=place[0], partition=place[1])


class _Told:
    """Passes progress on, a few times a second."""

    def __init__(self, tell: Callable[[AuditProgress], None], task: str, total: int) -> None:
        self._tell = tell
        self._task = task
        self._total = total
        self._done = 0
        self._due = 0.0

    def add(self, records: int) -> None:
        """Note that records were read."""
        self._done += records
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _REPORT_S
            self._tell(AuditProgress(self._task, min(self._done, self._total), self._total))

    def finish(self) -> None:
        """Say that the partition is done with."""
        self._tell(AuditProgress(self._task, self._total, self._total))


def _read(one: PartitionAudit, logs: AuditLogs, told: _Told) -> None:
    told.add(0)
    for records in one.read_on(logs, last=True):
        told.add(records)
    told.finish()


def _begin(
    settings: Settings, lane: str, logs: AuditLogs, wire: Wire, span: Span, *, complete: bool
) -> PartitionAudit:
    of_lane = settings.lane(lane)
    return PartitionAudit(
        logs,
        Rules.from_settings(of_lane),
        wire,
        max_outcome_bytes=of_lane.max_outcome_bytes,
        span=span,
        complete=complete,
    )


def _report(
    settings: Settings, lane: str, partition: int, one: PartitionAudit, logs: AuditLogs
) -> PartitionReport:
    topic = TopicNames(settings.topics.prefix).outcomes(lane)
    return PartitionReport.of(lane, partition, topic, one, logs)


@contextmanager
def _named(lane: str, partition: int) -> Iterator[None]:
    """Say in an error of the core which partition it is about."""
    try:
        yield
    except (StateError, LogGapError) as error:
        raise type(error)(f"lane {lane!r}, partition {partition}: {error}") from error
