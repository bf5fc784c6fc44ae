"""What a simulation shows: a table's rows, a document for programs, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bandstand.errors import BandstandError
from bandstand.simulation.run import Plan, Policy, notes

__all__ = ["document", "draw_png", "rows"]

_BAND = (10, 90)
_LAST = 0.1
"""Part of the decisions that counts as the end."""


def rows(policies: Sequence[Policy]) -> list[dict[str, Any]]:
    """Give a line a policy, the least regret first.

    Where a spec watches for drift, also the changes that it found in a run, mean over seeds.
    """
    found = []
    watched = any(policy.spec.drift for policy in policies)
    for policy in policies:
        final = policy.regret[:, -1]
        low, high = np.percentile(final, _BAND)
        last = max(1, round(len(policy.best) * _LAST))
        found.append(
            {
                "name": policy.name,
                "bandit": policy.spec.bandit,
                "policy": policy.spec.policy.name,
                "regret": round(float(final.mean()), 1),
                "p10": round(float(low), 1),
                "p90": round(float(high), 1),
                "best_at_end": round(float(policy.best[-last:].mean()), 3),
                **({"changes": _changes(policy)} if watched else {}),
            }
        )
    return sorted(found, key=lambda row: row["regret"])


def _changes(policy: Policy) -> float | None:
    """Give what was found; none where nobody looked."""
    return None if policy.spec.drift is None else round(policy.changes, 1)


def document(plan: Plan, policies: Sequence[Policy]) -> dict[str, Any]:
    """Give all curves, for programs, by the names that the results have."""
    return {
        "environment": plan.world,
        "decisions": plan.decisions,
        "publish_every": plan.publish_every,
        "pace_ms": plan.pace_ms,
        "seeds": plan.seeds,
        "actions": list(policies[0].spec.actions),
        "notes": notes(plan),
        "results": rows(policies),
        "curves": {
            policy.name: {
                "decisions": _ends(plan).tolist(),
                "regret_mean": policy.regret.mean(axis=0).tolist(),
                "regret_p10": np.percentile(policy.regret, _BAND[0], axis=0).tolist(),
                "regret_p90": np.percentile(policy.regret, _BAND[1], axis=0).tolist(),
                "best_action": policy.best.tolist(),
                "shares": policy.shares.tolist(),
            }
            for policy in policies
        },
    }


def draw_png(plan: Plan, policies: Sequence[Policy], path: Path) -> None:
    """Draw regret with bands, and how often each policy takes a best action.

    Raises
    ------
    BandstandError
        If matplotlib isn't installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise BandstandError(
            "a picture needs matplotlib: pip install 'bandstand[demo]', or leave out --png"
        ) from None
    at = _ends(plan)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for policy in policies:
        name = f"{policy.name}: {policy.spec.policy.name}"
        (line,) = left.plot(at, policy.regret.mean(axis=0), label=name)
        low, high = np.percentile(policy.regret, _BAND, axis=0)
        left.fill_between(at, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        right.plot(at, policy.best, label=name, color=line.get_color())
    left.set(title="cumulative regret, mean and 10 to 90 %", xlabel="decisions", ylabel="rewards")
    right.set(title="share of decisions for a best action", xlabel="decisions", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.margins(x=0)
    left.legend(frameon=False)
    figure.suptitle(f"{plan.world}: {plan.seeds} seeds, a snapshot every {plan.publish_every}")
    figure.savefig(path, dpi=110)


def _ends(plan: Plan) -> np.ndarray[Any, np.dtype[np.int64]]:
    starts = np.arange(0, plan.decisions, plan.publish_every)
    return np.minimum(starts + plan.publish_every, plan.decisions)
