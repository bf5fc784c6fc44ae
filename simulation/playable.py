"""What of a spec a simulation plays as it stands, and what it leaves out and says so."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from bandstand.durations import format_duration, milliseconds
from bandstand.learners.drift import SHORTEST_MS
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_drift import moment, moment_ms

__all__ = ["Playable", "playable"]

LONGER: Final = "give a longer --pace, or more decisions"


class Playable(NamedTuple):
    """A spec for a simulation.

    Parameters
    ----------
    spec
        What is played.
    notes
        What of the given spec isn't, or can't show within the run: a line each.
    """

    spec: Spec
    notes: list[str]


def playable(spec: Spec, decisions: int, pace_ms: int) -> Playable:
    """Give a spec as a simulation plays it.

    A run lasts from 1970-01-01T00:00:00Z on, `pace_ms` for each decision. Moments outside it
    (``since``, ``until``) are left out. A world gives the whole reward, ``high`` or ``low``, so
    whatever makes it of several is left out, too.

    Parameters
    ----------
    spec
        As its owner wrote it.
    decisions
        How many the run has, at least 1.
    pace_ms
        Time from one decision to the next, at least 1.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> spec = parse_spec('''
    ... bandit: home
    ... actions: [x, y]
    ... policy: {name: beta_thompson}
    ... reward: {name: click, cost: {actions: {x: 0.0}}}
    ... ''', "home.yaml")
    >>> played, notes = playable(spec, 1_000, 1)
    >>> played.reward.cost, notes
    (None, ["reward.cost isn't played: a world gives the whole reward, 1 or 0"])
    """
    end_ms = decisions * pace_ms
    fields: dict[str, Any] = spec.model_dump(mode="json")
    notes = [*_reward(spec, fields), *_times(spec, fields, end_ms), *_lengths(spec, end_ms)]
    return Playable(Spec.model_validate(fields), notes)


def _reward(spec: Spec, fields: dict[str, Any]) -> list[str]:
    """Leave out what makes one reward of several; an outcome without reward is worth `low`."""
    reward = spec.reward
    parts = {
        "aggregate": reward.aggregate == "count",
        "weight": reward.weight != 1.0,
        "plus": bool(reward.plus),
        "default": reward.default != reward.low,
        "cost": reward.cost is not None,
        "activation": reward.activation is not None,
        "keep_probability": reward.keep_probability is not None,
    }
    whole = {"name": reward.name, "low": reward.low, "high": reward.high, "default": reward.low}
    fields["reward"] = whole
    left_out = [f"reward.{name}" for name, there in parts.items() if there]
    if not left_out:
        return []
    verb = "isn't" if len(left_out) == 1 else "aren't"
    worth = f"{reward.high:g} or {reward.low:g}"
    return [f"{', '.join(left_out)} {verb} played: a world gives the whole reward, {worth}"]


def _times(spec: Spec, fields: dict[str, Any], end_ms: int) -> list[str]:
    """Leave out moments before or after the run."""
    moments: dict[str, datetime | None] = {
        "since": spec.since,
        "widened.until": spec.widened.until if spec.widened else None,
        "drift.since": spec.drift.since if spec.drift else None,
    }
    notes = []
    for name, given in moments.items():
        if given is None or 0 <= moment_ms(given) < end_ms:
            continue
        if name == "drift.since":
            fields["drift"]["since"] = None
        else:
            del fields[name.partition(".")[0]]
        notes.append(
            f"{name} ({_iso(given)}) isn't played: the run lasts from {_iso(moment(0))} to"
            f" {_iso(moment(end_ms))}"
        )
    return notes


def _lengths(spec: Spec, end_ms: int) -> list[str]:
    """Find what is as long as the run, and so can't show in it."""
    forget, drift = spec.forget, spec.drift
    lengths = {
        "forget.half_life": (forget and forget.half_life, "no outcome loses half its weight"),
        "forget.window": (forget and forget.window, "no outcome is forgotten"),
        "drift.step": (drift and drift.step, "no change can be found"),
        "drift.widen": (drift and drift.widen, "the floor stays once a change is found"),
    }
    run = format_duration(timedelta(milliseconds=end_ms))
    notes = [
        f"{name} ({format_duration(length)}) isn't shorter than the run ({run}), so {what};"
        f" {LONGER}"
        for name, (length, what) in lengths.items()
        if length and milliseconds(length) >= end_ms
    ]
    half_life = forget.half_life if forget else None
    halved = half_life and drift and drift.act == "half_life"
    if half_life and halved and milliseconds(half_life) <= SHORTEST_MS:
        least = format_duration(timedelta(milliseconds=SHORTEST_MS))
        notes.append(
            f"drift.act half_life changes nothing: forget.half_life is"
            f" {format_duration(half_life)}, and none is shortened below {least}; give a longer"
            " one, and a longer --pace"
        )
    return notes


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
