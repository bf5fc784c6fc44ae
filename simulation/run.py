"""Many seeds of many policies, in parallel processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from bandstand.errors import SpecError
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.simulation.environments import Floats
from bandstand.simulation.play import Played, play

__all__ = ["Plan", "Policy", "Step", "bundled", "run"]


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
        Policies; all with the same actions.
    world
        As `environments.environment` takes it.
    decisions, publish_every
        See `play`.
    seeds
        How many worlds each policy meets, at least 1.
    """

    specs: Sequence[Spec]
    world: str
    decisions: int = 10_000
    publish_every: int = 100
    seeds: int = 20

    def __post_init__(self) -> None:
        """Refuse policies that can't be compared."""
        first = self.specs[0]
        for spec in self.specs:
            if spec.actions != first.actions:
                raise SpecError(
                    f"bandits {first.bandit!r} and {spec.bandit!r} have other actions:"
                    f" {', '.join(first.actions)}, but {', '.join(spec.actions)}; policies are"
                    " compared on the same ones, in the same order"
                )


class Policy(NamedTuple):
    """How one policy did, over all seeds.

    Parameters
    ----------
    spec
        Which.
    regret
        float64[seeds, n], summed up to the end of each block of decisions.
    shares
        float64[n, K], share of each action in the block, mean over seeds.
    best
        float64[n], share of decisions in the block that took a best action, mean over seeds.
    """

    spec: Spec
    regret: Floats
    shares: Floats
    best: Floats


def bundled() -> list[Spec]:
    """Give the policies that come with Bandstand: an A/B test, and three that learn all along."""
    folder = files("bandstand.simulation") / "specs"
    names = ("ab_test", "epsilon_greedy", "ucb1", "thompson")
    return [parse_spec((folder / f"{name}.yaml").read_text(), f"{name}.yaml") for name in names]


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
    """
    for spec in plan.specs:
        play(
            spec, plan.world, 1, 0, 1, plan.specs
        )  # a mistake is told before processes are started
    jobs = [(number, seed) for seed in range(plan.seeds) for number in range(len(plan.specs))]
    found: dict[tuple[int, int], Played] = {}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {
            pool.submit(
                play,
                plan.specs[number],
                plan.world,
                plan.decisions,
                seed,
                plan.publish_every,
                plan.specs,
            ): (number, seed)
            for number, seed in jobs
        }
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            report(Step("simulating", len(found), len(jobs)))
    return [_policy(plan, number, found) for number in range(len(plan.specs))]


def _policy(plan: Plan, number: int, found: dict[tuple[int, int], Played]) -> Policy:
    played = [found[number, seed] for seed in range(plan.seeds)]
    return Policy(
        plan.specs[number],
        np.stack([each.regret for each in played]),
        np.mean([each.shares for each in played], axis=0),
        np.mean([each.best for each in played], axis=0),
    )
