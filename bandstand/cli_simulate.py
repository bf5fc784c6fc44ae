"""The command ``simulate``: policies against worlds, before any of them meets a user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bandstand.cli_options import Json
from bandstand.durations import milliseconds, parse_duration
from bandstand.output import Output, progress_bar, stderr

__all__ = ["simulate"]


def simulate(
    specs: Annotated[
        list[Path] | None, typer.Argument(help="YAML files, one policy each; default: four of ours")
    ] = None,
    env: Annotated[
        str,
        typer.Option(
            help="bernoulli, drifting, linear, logistic or classification, then options: "
            "'bernoulli,low=0.01,high=0.03,delay=500'; see docs/simulate.md."
        ),
    ] = "bernoulli",
    decisions: Annotated[int, typer.Option(min=1, help="A seed and policy.")] = 10_000,
    seeds: Annotated[int, typer.Option(min=1, help="Worlds that each policy meets.")] = 20,
    publish_every: Annotated[int, typer.Option(min=1, help="Decisions between snapshots.")] = 100,
    pace: Annotated[
        str,
        typer.Option(help="Time from one decision to the next, as a spec's durations see it: 10s."),
    ] = "1ms",
    png: Annotated[Path | None, typer.Option(help="Draw a picture into this file.")] = None,
    as_json: Json = False,
) -> None:
    """Play policies against made-up or recorded worlds; no broker is needed."""
    from bandstand.simulation import report
    from bandstand.simulation.run import Plan, bundled, load, notes, run

    loaded = load(specs) if specs else bundled()
    plan = Plan(loaded, env, decisions, publish_every, seeds, _milliseconds(pace))
    for note in notes(plan):
        stderr.print(f"note: {note}", markup=False, emoji=False, soft_wrap=True)
    with progress_bar() as progress:
        policies = run(plan, progress)
    if png is not None:
        report.draw_png(plan, policies, png)
    out = Output(as_json=as_json)
    if as_json:
        out.document(report.document(plan, policies))
        return
    title = f"{env}: {decisions:,} decisions, {seeds} seeds, a snapshot every {publish_every}"
    rows = report.rows(policies)
    out.rows([{k: v for k, v in row.items() if k != "bandit"} for row in rows], title)


def _milliseconds(pace: str) -> int:
    try:
        given = milliseconds(parse_duration(pace))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--pace") from None
    if not given:
        raise typer.BadParameter("0 is not allowed; write 1ms or more", param_hint="--pace")
    return given
