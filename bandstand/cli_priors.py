"""The command ``warm-start``: a bandit that knows a log before its first outcome."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from bandstand.cli_options import Json, given
from bandstand.output import Output, stderr

__all__ = ["Strength", "warm_start"]

Strength = Annotated[
    float | None,
    typer.Option(min=0.1, help="Most outcomes that an action's prior may count as."),
]


def warm_start(
    bandit: Annotated[str, typer.Argument(help="A bandit whose spec is in force.")],
    file: Annotated[Path, typer.Argument(help="Parquet, a row a decision; see docs/learners.md.")],
    strength: Strength = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    author: Annotated[str, typer.Option(help="Who; default: the user's name.")] = "",
    as_json: Json = False,
) -> None:
    """Let a bandit start from logged decisions, weighed by 1 / their propensities."""
    from bandstand.streams.priors import from_file, in_force_of
    from bandstand.streams.specs import apply_spec

    settings = given.settings()
    with stderr.status(f"summing up {file}"):
        spec = in_force_of(settings, bandit).spec
        weighed = from_file(spec, file)
        evidence = weighed.evidence.at_most(strength)
        author = author or getpass.getuser()
        epoch = apply_spec(settings, spec, author, reason or f"warm start: {file.name}", evidence)
    for name, count in sorted(weighed.counters.items()):
        stderr.print(f"{name}: {count:,}")
    worth = evidence.outcomes
    rows = [
        {"action": action, "rows": count, "outcomes": round(worth[action], 1), "epoch": epoch}
        for action, count in weighed.rows.items()
    ]
    Output(as_json=as_json).rows(rows, f"what {bandit} knows before its first outcome")
