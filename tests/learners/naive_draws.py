"""Compare computed probabilities with draws: each posterior sampled and its winners counted.

In CI few and short, by `test_probabilities`; as a long run::

    make draws POSTERIORS=1000 DRAWS=10000000

A frequency is outside if it leaves exact binomial bounds whose risk, over all cells of a run, is
1 in 1,000; the integral's own error, at most 1e-6, is added to both sides.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from multiprocessing import Pool
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress
from scipy.stats import binom, chisquare

from bandstand.learners.draw import draw
from bandstand.learners.policies import policy_from_snapshot
from bandstand.learners.probabilities import beta_best, gaussian_best, student_best
from bandstand.learners.snapshots import build
from bandstand.testing_data import CONTEXTS, Case, learned, outcomes

Floats = np.ndarray[Any, np.dtype[np.float64]]

KINDS = ("gaussian", "beta", "student")
SERVED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("beta_thompson", {}),
    ("student_thompson", {}),
    ("linear_thompson", {}),
    ("logistic_thompson", {}),
    ("shared_linear_thompson", {}),
    ("shared_linear_thompson", {"draws": 500}),
    ("square_cb", {}),
)
BLOCK = 100_000
RISK = 1e-3
ERROR = 1e-6


class Compared(NamedTuple):
    """A posterior's probabilities, and how often each action won."""

    probabilities: Floats
    wins: np.ndarray[Any, np.dtype[np.int64]]


def posterior(kind: str, rng: np.random.Generator) -> tuple[Floats, Callable[[int], Floats]]:
    """Make a random posterior of 2 to 8 actions: its probabilities, and a way to draw from it.

    In a third of them old actions, up to a million times as narrow, meet new ones.
    """
    count, old = int(rng.integers(2, 9)), rng.random() < 1 / 3
    if kind == "beta":
        a, b = 10 ** rng.uniform(-0.9, 2, size=(2, count))
        outcomes = 10 ** rng.uniform(0, 8 if old else 0, size=count)
        a, b = outcomes * a, outcomes * b
        return beta_best(a, b), lambda size: rng.beta(a, b, size=(size, count))
    mean, deviation = rng.normal(size=count), 10 ** rng.uniform(-6 if old else -1, 0.5, size=count)
    if kind == "gaussian":
        return (
            gaussian_best(mean, deviation),
            lambda size: mean + deviation * rng.standard_normal((size, count)),
        )
    freedom = 10 ** rng.uniform(0.0, 9.0 if old else 2.0, size=count)
    return (
        student_best(mean, deviation, freedom),
        lambda size: mean + deviation * rng.standard_t(freedom, size=(size, count)),
    )


def compare(task: tuple[str, int, int]) -> Compared:
    """Draw from the posterior of a kind and a seed, so many times."""
    kind, seed, draws = task
    probabilities, sample = posterior(kind, np.random.default_rng([KINDS.index(kind), seed]))
    wins = np.zeros(len(probabilities), np.int64)
    for start in range(0, draws, BLOCK):
        best = sample(min(BLOCK, draws - start)).argmax(axis=1)
        wins += np.bincount(best, minlength=len(wins))
    return Compared(probabilities, wins)


def summary(compared: list[Compared], draws: int) -> dict[str, float]:
    """Count cells outside their bounds; give the largest difference, and in deviations."""
    probabilities = np.concatenate([each.probabilities for each in compared])
    wins = np.concatenate([each.wins for each in compared])
    risk = RISK / len(wins)
    low = binom.ppf(risk / 2, draws, np.maximum(probabilities - ERROR, 0))
    high = binom.isf(risk / 2, draws, np.minimum(probabilities + ERROR, 1))
    difference = np.abs(wins / draws - probabilities)
    likely = probabilities * (1 - probabilities) * draws > 100
    variance = (probabilities * (1 - probabilities) / draws)[likely]
    deviations = difference[likely] / np.sqrt(variance)
    return {
        "posteriors": len(compared),
        "cells": len(wins),
        "outside": int(((wins < low) | (wins > high)).sum()),
        "largest_difference": float(difference.max()),
        "largest_in_deviations": float(deviations.max()),
        "mean_square_in_deviations": float((deviations**2).mean()),
    }


def served(name: str, parameters: dict[str, Any], decisions: int, seed: int) -> float:
    """Draw so many served decisions on changing contexts: p-value against their propensities."""
    spec = Case(name, parameters).spec()
    policy = policy_from_snapshot(build(spec, learned(spec, outcomes(spec, 200, seed)), 0, "", {}))
    seeds = np.random.default_rng(seed).integers(0, 2**63, size=decisions).tolist()
    expected, seen = np.zeros(len(spec.actions)), np.zeros(len(spec.actions))
    for number, each in enumerate(seeds):
        context = CONTEXTS[number % len(CONTEXTS)]
        probabilities = policy.decide(context, spec.actions).probabilities
        expected += probabilities
        seen[draw(probabilities, each)] += 1
    return float(chisquare(seen, expected).pvalue)


def _all(kind: str, posteriors: int, draws: int) -> Iterator[Compared]:
    with Pool() as pool:
        yield from pool.imap_unordered(
            compare, ((kind, seed, draws) for seed in range(posteriors)), chunksize=1
        )


def main() -> None:
    """Run, and print what was found as JSON; exit 1 if a cell is outside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--posteriors", type=int, default=50)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    given = parser.parse_args()
    report: dict[str, Any] = {"draws": given.draws, "decisions": given.decisions}
    with Progress(console=Console(stderr=True)) as progress:
        for kind in given.kinds:
            task = progress.add_task(kind, total=given.posteriors)
            found = []
            for each in _all(kind, given.posteriors, given.draws):
                found.append(each)
                progress.advance(task)
            report[kind] = summary(found, given.draws)
        task = progress.add_task("served", total=len(SERVED))
        for number, (name, parameters) in enumerate(SERVED):
            label = f"{name} {parameters or ''}".strip()
            report[label] = served(name, dict(parameters), given.decisions, number)
            progress.advance(task)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    raise SystemExit(any(report[kind]["outside"] for kind in given.kinds))


if __name__ == "__main__":
    main()
