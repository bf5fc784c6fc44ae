"""Many seeds of many policies, in parallel processes."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from bandstand.durations import format_duration
from bandstand.errors import SpecError
from bandstand.schemas.spec import Spec, load_spec, parse_spec
from bandstand.simulation.environments import Floats, environment
from bandstand.simulation.play import Played, play
from bandstand.simulation.playable import playable

__all__ = ["Plan", "Policy", "Step", "bundled", "load", "notes", "run"]

_LONGEST_MS: Final = 1_000 * 365 * 86_400_000
"""A thousand years: calendars end at 9999."""


class Step(NamedTuple):
    """Progress of one job."""

    task: str
    done: int
    total: int


@dataclass(frozen=True)
class Plan:
    """What is to be played.

    Parameters
    ----------
    specs
        Policies by name, at least one; all with the same actions.
    world
        As `environments.environment` takes it.
    decisions, publish_every, pace_ms
        See `play`.
    seeds
        How many worlds each policy meets, at least 1.

    Raises
    ------
    SpecError
        If the policies can't be compared, or the run would last a thousand years.
    """

    specs: Mapping[str, Spec]
    world: str
    decisions: int = 10_000
    publish_every: int = 100
    seeds: int = 20
    pace_ms: int = 1

    def __post_init__(self) -> None:
        """Refuse policies that can't be compared, and times without a date."""
        first, *others = self.specs.items()
        for name, spec in others:
            if spec.actions != first[1].actions:
                raise SpecError(
                    f"bandits {first[0]!r} and {name!r} have other actions:"
                    f" {', '.join(first[1].actions)}, but {', '.join(spec.actions)}; policies are"
                    " compared on the same ones, in the same order"
                )
        if self.decisions * self.pace_ms > _LONGEST_MS:
            pace = format_duration(timedelta(milliseconds=self.pace_ms))
            raise SpecError(
                f"{self.decisions} decisions, {pace} each, last longer than 1,000 years; give"
                " fewer, or a shorter --pace"
            )


class Policy(NamedTuple):
    """How one policy did, over all seeds.

    Parameters
    ----------
    name, spec
        Which.
    regret
        float64[seeds, n], summed up to the end of each block of decisions.
    shares
        float64[n, K], share of each action in the block, mean over seeds.
    best
        float64[n], share of decisions in the block that took a best action, mean over seeds.
    changes
        Changes of rewards that were found in a run, mean over seeds.
    """

    name: str
    spec: Spec
    regret: Floats
    shares: Floats
    best: Floats
    changes: float


def bundled() -> dict[str, Spec]:
    """Give the policies that come with Bandstand: an A/B test, and three that learn all along."""
    folder = files("bandstand.simulation") / "specs"
    names = ("ab_test", "epsilon_greedy", "ucb1", "thompson")
    return {
        name: parse_spec((folder / f"{name}.yaml").read_text(), f"{name}.yaml") for name in names
    }


def load(paths: Sequence[Path]) -> dict[str, Spec]:
    """Read policies from files, each under a name of its own.

    That is the bandit's, with the file's where several files have the same bandit.

    Raises
    ------
    SpecError
        If a file is given twice, or is no spec.
    """
    twice = [path for path, times in Counter(paths).items() if times > 1]
    if twice:
        raise SpecError(f"{twice[0]} is given twice, which would give the same twice; give it once")
    specs = [load_spec(path) for path in paths]
    bandits = Counter(spec.bandit for spec in specs)
    places = Counter((spec.bandit, path.name) for spec, path in zip(specs, paths, strict=True))
    named = {}
    for spec, path in zip(specs, paths, strict=True):
        file = path.name if places[spec.bandit, path.name] == 1 else path
        named[spec.bandit if bandits[spec.bandit] == 1 else f"{spec.bandit} ({file})"] = spec
    return named


def notes(plan: Plan) -> list[str]:
    """Say what isn't played as its owner may think, a line each.

    Raises
    ------
    SpecError
        If the world isn't one, or doesn't fit the specs.
    """
    specs = list(plan.specs.values())
    world, _ = environment(plan.world, specs, np.random.default_rng(0))
    found = [f"environment {plan.world.partition(',')[0]}: {note}" for note in world.notes]
    for name, spec in plan.specs.items():
        left_out = playable(spec, plan.decisions, plan.pace_ms).notes
        found += [f"bandit {name!r}: {note}" for note in left_out]
    return found


def run(plan: Plan, report: Callable[[Step], None]) -> list[Policy]:
    """Play all, on all cores.

    Parameters
    ----------
    plan
        What is to be played.
    report
        Called with the progress.

    Raises
    ------
    SpecError
        If the world isn't one, or doesn't fit the specs.
    StateError
        If a spec watches for drift, and river isn't installed.
    """
    specs = list(plan.specs.values())
    for spec in specs:  # a mistake is told before processes are started
        play(spec, plan.world, 1, 0, 1, specs)
    jobs = [(name, seed) for seed in range(plan.seeds) for name in plan.specs]
    found: dict[tuple[str, int], Played] = {}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {
            pool.submit(
                play,
                plan.specs[name],
                plan.world,
                plan.decisions,
                seed,
                plan.publish_every,
                specs,
                plan.pace_ms,
            ): (name, seed)
            for name, seed in jobs
        }
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            report(Step("simulating", len(found), len(jobs)))
    return [_policy(plan, name, found) for name in plan.specs]


def _policy(plan: Plan, name: str, found: dict[tuple[str, int], Played]) -> Policy:
    played = [found[name, seed] for seed in range(plan.seeds)]
    return Policy(
        name,
        plan.specs[name],
        np.stack([each.regret for each in played]),
        np.mean([each.shares for each in played], axis=0),
        np.mean([each.best for each in played], axis=0),
        float(np.mean([each.changes for each in played])),
    )
