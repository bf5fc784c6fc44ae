"""The command ``simulate``: policies against worlds, before any of them meets a user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bandstand.cli_options import Json
from bandstand.output import Output, progress_bar

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
    png: Annotated[Path | None, typer.Option(help="Draw a picture into this file.")] = None,
    as_json: Json = False,
) -> None:
    """Play policies against made-up or recorded worlds; no broker is needed."""
    from bandstand.schemas.spec import load_spec
    from bandstand.simulation import report
    from bandstand.simulation.run import Plan, bundled, run

    loaded = [load_spec(path) for path in specs] if specs else bundled()
    plan = Plan(loaded, env, decisions, publish_every, seeds)
    with progress_bar() as progress:
        policies = run(plan, progress)
    if png is not None:
        report.draw_png(plan, policies, png)
    out = Output(as_json=as_json)
    if as_json:
        out.document(report.document(plan, policies))
        return
    title = f"{env}: {decisions:,} decisions, {seeds} seeds, a snapshot every {publish_every}"
    out.rows(report.rows(policies), title)
