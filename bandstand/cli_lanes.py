"""The commands ``bandstand lanes``: where the join stands, and how late rewards come."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandstand.cli_options import Json, given
from bandstand.durations import format_duration
from bandstand.output import Output, progress_bar, stderr

if TYPE_CHECKING:
    from bandstand.streams.delay_report import DelayReport
    from bandstand.streams.lane_status import LaneLooks, PartitionStatus
    from bandstand.streams.reward_delays import DelayHistogram

__all__ = ["lanes_app"]

lanes_app = typer.Typer(help="See where the join stands, and how late rewards come.")

_EVERY_S = 1.0
_BAR = 40
_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)

Lane = Annotated[str | None, typer.Option("--lane", help="Only this lane.")]


@lanes_app.callback(invoke_without_command=True)
def lanes(
    context: typer.Context,
    lane: Lane = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look every second until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show where the join of each partition stands, from the topics alone.

    Ages are by this machine's clock. What is done is known up to the last outcome or progress
    record; the index is that of the last progress record, one of which comes each minute.
    """
    if context.invoked_subcommand is not None:
        if lane is not None or watch or as_json:
            raise typer.BadParameter("options of a subcommand stand behind its name")
        return
    if watch and as_json:
        raise typer.BadParameter("--watch draws for people; for programs call --json repeatedly")
    from bandstand.role import on_signals
    from bandstand.streams.lane_status import LaneLooks

    chosen = _chosen(lane)
    out = Output(as_json=as_json)
    with closing(LaneLooks(given.settings())) as looks:
        if not watch:
            with stderr.status("looking at the lanes"):
                rows = _status_rows(looks, chosen)
            out.rows(rows, "lanes")
            return
        told_to_stop = threading.Event()
        with on_signals(lambda _: told_to_stop.set()), out.redrawn() as draw:
            while not told_to_stop.is_set():
                draw(_status_rows(looks, chosen), f"lanes at {time.strftime('%H:%M:%S')}")
                told_to_stop.wait(_EVERY_S)


def _chosen(lane: str | None) -> list[str]:
    settings = given.settings()
    if lane is None:
        return list(settings.lanes)
    settings.lane(lane)
    return [lane]


def _status_rows(looks: LaneLooks, lanes: list[str]) -> list[dict[str, Any]]:
    found = [status for lane in lanes for status in looks.lane(lane)]
    now = int(time.time() * 1_000)
    return [_status_row(status, now) for status in found]


def _status_row(status: PartitionStatus, now: int) -> dict[str, Any]:
    def age(moment: int | None) -> float | None:
        return None if moment is None else round((now - moment) / 1_000, 1)

    return {
        "lane": status.lane,
        "partition": status.partition,
        "decisions_watermark_age_s": age(status.decisions_watermark),
        "rewards_watermark_age_s": age(status.rewards_watermark),
        "lag_records": status.lag_records,
        "lag_s": None if status.lag_ms is None else status.lag_ms / 1_000,
        "oldest_open_age_s": age(status.oldest_open),
        "index_rewards": status.index_rewards,
        "index_age_s": age(status.index_at),
    }


@lanes_app.command()
def delays(lane: Lane = None, as_json: Json = False) -> None:
    """Show how late rewards come, and the share that a window would have caught."""
    from bandstand.streams.delay_report import DelayReport

    settings = given.settings()
    with progress_bar() as report:
        reports = [DelayReport(settings, name, report) for name in _chosen(lane)]
    out = Output(as_json=as_json)
    documents = [_document(report) for report in reports]
    if as_json:
        out.document(documents)
        return
    for document in documents:
        _print(out, document)


def _document(report: DelayReport) -> dict[str, Any]:
    sources = {"ids": report.by_ids, "pairs": report.by_pairs}
    cuts = {"ids": None, "pairs": report.pairs_cut_ms}
    return {
        "lane": report.lane,
        "window": _duration(report.window_ms),
        "rewards": {name: delays.count for name, delays in sources.items()},
        "unused": dict(report.unused),
        "shares": _shares(report, sources, cuts),
        "quantiles_s": {
            name: {f"p{100 * q:g}": _seconds(delays, q) for q in _QUANTILES}
            for name, delays in sources.items()
            if delays.count
        },
        "histogram": _bars(sources),
        "notes": _notes(report),
    }


def _shares(
    report: DelayReport, sources: dict[str, DelayHistogram], cuts: dict[str, int | None]
) -> list[dict[str, Any]]:
    from bandstand.streams.delay_report import WINDOWS_MS

    rows = []
    for window in sorted({*WINDOWS_MS, report.window_ms}):
        row: dict[str, Any] = {"window": _duration(window)}
        for name, delays in sources.items():
            cut = cuts[name]
            unknown = not delays.count or (cut is not None and window > cut)
            caught = delays.between(-report.backward_ms, window)
            row[f"caught_by_{name}"] = None if unknown else round(caught / delays.count, 6)
        rows.append(row)
    return rows


def _bars(sources: dict[str, DelayHistogram]) -> list[dict[str, Any]]:
    from bandstand.streams.delay_report import BARS_MS

    starts: list[int | None] = [None, *BARS_MS]
    ends: list[int | None] = [*BARS_MS, None]
    return [
        {
            "from_s": None if start is None else start / 1_000,
            "to_s": None if end is None else end / 1_000,
            **{name: delays.between(start, end) for name, delays in sources.items()},
        }
        for start, end in zip(starts, ends, strict=True)
    ]


def _notes(report: DelayReport) -> list[str]:
    notes = []
    if report.by_ids.count:
        notes.append(
            "ids: decisions' times are from their ids (UUIDv7), so no window cuts these delays; "
            "what retention deleted isn't there, the longest delays of young decisions are still "
            "to come, and a reward that was sent twice counts twice"
        )
    if report.pairs_cut_ms is not None:
        notes.append(
            "pairs: other rewards are known from outcomes only, so no delay beyond "
            f"{_duration(report.pairs_cut_ms)} can show: shares are those of the rewards within "
            "that window, and nothing can be said of longer ones; widen the window to see more"
        )
    return notes


def _print(out: Output, document: dict[str, Any]) -> None:
    counts, lane = document["rewards"], document["lane"]
    kinds = [name for name, count in counts.items() if count]
    if kinds:
        shares = [
            {"window": row["window"], **{k: _percent(row[f"caught_by_{k}"]) for k in kinds}}
            for row in document["shares"]
        ]
        of = ", ".join(f"{counts[kind]:,} by {kind}" for kind in kinds)
        out.rows(shares, f"lane {lane}: share that a window would have caught ({of})")
        quantiles = document["quantiles_s"]
        out.rows(
            [
                {"share of rewards": name, **{k: _span(quantiles[k][name]) for k in kinds}}
                for name in quantiles[kinds[0]]
            ],
            "have come within",
        )
    for kind in kinds:
        bars = _between_the_empty(document["histogram"], kind)
        most = max(bar[kind] for bar in bars)
        drawn = [
            {
                "from": _span(bar["from_s"]),
                "to": _span(bar["to_s"]),
                "rewards": bar[kind],
                "": "█" * -(-_BAR * bar[kind] // most),
            }
            for bar in bars
        ]
        out.rows(drawn, f"delays by {kind}")
    unused = [{"why": why, "rewards": count} for why, count in document["unused"].items()]
    if unused or not kinds:
        out.rows(unused, f"rewards of lane {lane} that tell no delay")
    for note in document["notes"]:
        out.say(note)


def _between_the_empty(bars: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    full = [at for at, bar in enumerate(bars) if bar[kind]]
    return bars[full[0] : full[-1] + 1]


def _duration(ms: int) -> str:
    return format_duration(timedelta(milliseconds=ms))


def _seconds(delays: DelayHistogram, share: float) -> float:
    return round(delays.quantile(share) / 1_000, 3)


def _span(seconds: float | None) -> str:
    """Write seconds in the unit that people would use."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2f} %"
