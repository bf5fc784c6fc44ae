"""The command ``audit``: what was asked for, and the tables of what was found."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandstand.cli_options import Json, given
from bandstand.durations import milliseconds, parse_duration
from bandstand.output import Output, iso, progress_bar

if TYPE_CHECKING:
    from bandstand.settings import Settings
    from bandstand.streams.audit import AuditSource
    from bandstand.streams.audit_report import PartitionReport

__all__ = ["audit"]

_SHOWN = 3
"""Differences of a kind and a partition that are shown; `--json` has more."""

_ORDER = (
    "records",
    "ticks",
    "joined",
    "defaulted",
    "oversize",
    "late",
    "out_of_window",
    "duplicate",
    "unmatched",
    "invalid",
    "open",
    "unread",
)
_ALWAYS = ("found", "expected", "equal")
_WHEN = "ISO 8601, UTC where it names no zone, or so long ago: 2h"


class _Source(StrEnum):
    topics = "topics"
    archive = "archive"


def audit(
    lane: Annotated[list[str] | None, typer.Option(help="Only this lane; repeatable.")] = None,
    since: Annotated[str | None, typer.Option("--from", help=f"Begin here: {_WHEN}.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="End before this.")] = None,
    source: Annotated[_Source, typer.Option(help="Where to read.")] = _Source.topics,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with the join until stopped, with /metrics.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Join once more, compare every outcome byte for byte, and account for every event."""
    from bandstand.streams.audit import audit as audit_once
    from bandstand.streams.audit import follow as audit_on
    from bandstand.streams.audit_partition import Span

    if follow and (until is not None or source is _Source.archive):
        raise typer.BadParameter("--follow goes on with the topics: no --to, no archive")
    settings = given.settings()
    lanes = lane or list(settings.lanes)
    for name in lanes:
        settings.lane(name)
    span = Span(_moment(since, "--from"), _moment(until, "--to"))
    began = time.monotonic()
    if follow:
        reports = audit_on(settings, lanes, span)
    else:
        with progress_bar() as on_progress, _opened(source, settings) as place:
            reports = audit_once(settings, place, lanes, span, on_progress)
    seconds = time.monotonic() - began
    out = Output(as_json=as_json)
    if as_json:
        out.record(_document(reports, seconds))
    else:
        _print(reports, seconds, out)
    if not all(report.closes and not report.faults for report in reports):
        raise typer.Exit(1)


def _moment(text: str | None, option: str) -> int | None:
    """Read a time, in milliseconds since 1970."""
    if text is None:
        return None
    try:
        ago = parse_duration(text)
    except ValueError:
        pass
    else:
        return int(time.time() * 1_000) - milliseconds(ago)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write {_WHEN}", param_hint=option) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000)


@contextmanager
def _opened(source: _Source, settings: Settings) -> Iterator[AuditSource]:
    if source is _Source.archive:
        from bandstand.archive.audit import ArchiveSource

        yield ArchiveSource(settings)
        return
    from bandstand.streams.audit_topics import TopicSource

    with closing(TopicSource(settings)) as topics:
        yield topics


def _document(reports: Sequence[PartitionReport], seconds: float) -> dict[str, Any]:
    records = sum(report.records for report in reports)
    return {
        "closes": all(report.closes for report in reports),
        "faults": sum(report.faults for report in reports),
        **{name: _total(reports, name) for name in ("decisions", "rewards", "outcomes")},
        "partitions": [report.document() for report in reports],
        "seconds": round(seconds, 3),
        "records": records,
        "records_per_second": round(records / seconds) if seconds else None,
    }


def _print(reports: Sequence[PartitionReport], seconds: float, out: Output) -> None:
    for lane in dict.fromkeys(report.lane for report in reports):
        _print_lane(lane, [report for report in reports if report.lane == lane], out)
    records = sum(report.records for report in reports)
    out.say(f"{records:,} records in {seconds:.1f} s: {_verdict(reports)}")


def _print_lane(lane: str, reports: Sequence[PartitionReport], out: Output) -> None:
    decisions, rewards = _total(reports, "decisions"), _total(reports, "rewards")
    states = sorted({*decisions, *rewards}, key=_ORDER.index)
    rows = [
        {"events": state, "decisions": decisions.get(state, ""), "rewards": rewards.get(state, "")}
        for state in states
    ]
    out.rows(rows, f"events of lane {lane}")
    outcomes = _total(reports, "outcomes")
    seen = [kind for kind in outcomes if outcomes[kind] or kind in _ALWAYS]
    out.rows(
        [{"outcomes": kind, "count": outcomes[kind]} for kind in seen], f"outcomes of lane {lane}"
    )
    out.rows([_judged(report) for report in reports], f"judged of lane {lane}")
    differences = [row for report in reports for row in _first(report.difference_rows())]
    if differences:
        out.rows(differences, f"differences of lane {lane}, the first of each kind and partition")


def _first(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the first differences of each kind, on few columns."""
    told: Counter[str] = Counter()
    first = []
    for row in rows:
        told[row["kind"]] += 1
        if told[row["kind"]] <= _SHOWN:
            first.append(
                {
                    "kind": row["kind"],
                    "topic": f"{row['topic']}/{row['partition']}",
                    "offset": "end" if row["offset"] is None else row["offset"],
                    "source": "none" if row["source_offset"] is None else row["source_offset"],
                    "what": f"expected {row['expected']}; found {row['found']}",
                }
            )
    return first


def _verdict(reports: Sequence[PartitionReport]) -> str:
    faults = sum(report.faults for report in reports)
    open_sums = [report for report in reports if not report.closes]
    if not faults and not open_sums:
        return "the sums close, and every outcome that was judged is what it must be"
    told = [f"{faults:,} outcomes are not what they must be"] if faults else []
    told += [f"the sums of {report.lane}/{report.partition} don't close" for report in open_sums]
    return "; ".join(told)


def _judged(report: PartitionReport) -> dict[str, Any]:
    since, until = report.judged_from, report.judged_until
    tick = report.judged_from_ms
    return {
        "partition": report.partition,
        "from decision": "nothing is judged" if since is None else since,
        "from tick": "the log's start" if tick is None and since is not None else _time(tick),
        "until decision": "the end" if until is None else until,
    }


def _time(tick: int | None) -> str:
    return "-" if tick is None else iso(tick)


def _total(reports: Sequence[PartitionReport], name: str) -> Mapping[str, int]:
    from bandstand.streams.audit_report import summed

    return summed([getattr(report, name) for report in reports])
