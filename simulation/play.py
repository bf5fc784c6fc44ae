"""One policy in one world: decide, wait for rewards, learn, publish, as the roles do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bandstand.learners.policies import draw
from bandstand.schemas.spec import Spec
from bandstand.simulation.environments import environment
from bandstand.simulation.pipeline import Pipeline
from bandstand.simulation.playable import playable

__all__ = ["Played", "play"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Played:
    """What came of it, by blocks of ``publish_every`` decisions.

    Parameters
    ----------
    regret
        float64[n], summed up to the end of each block: best chance minus that of the action taken.
    shares
        float64[n, K], share of each action in the block.
    best
        float64[n], share of decisions in the block that took an action with the best chance.
    changes
        Changes of rewards that were found, where the spec watches for them.
    """

    regret: Floats
    shares: Floats
    best: Floats
    changes: int


@dataclass(frozen=True)
class _Block:
    """Outcomes of one block, with the decision after which each can be learned."""

    due: npt.NDArray[np.int64]
    outcomes: pa.RecordBatch


def play(
    spec: Spec,
    world: str,
    decisions: int,
    seed: int,
    publish_every: int,
    subjects: Sequence[Spec] = (),
    pace_ms: int = 1,
) -> Played:
    """Play.

    Parameters
    ----------
    spec
        The policy, with its actions and features; what of it is played says `playable`.
    world
        As `environment` takes it.
    decisions
        How many, at least 1.
    seed
        Of all chance; the same seed gives all policies the same world and subjects.
    publish_every
        Decisions from one snapshot to the next.
    subjects
        All specs that are played in this world, whose features subjects have; by default this one.
    pace_ms
        Time from one decision to the next, at least 1; the first is at 1970-01-01T00:00:00Z.

    Raises
    ------
    SpecError
        If the world isn't one, or doesn't fit the specs.
    StateError
        If the spec watches for drift, and river isn't installed.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> spec = parse_spec(
    ...     "{bandit: b, actions: [x, y], policy: {name: uniform}, reward: {name: click}}", "b.yaml"
    ... )
    >>> played = play(spec, "bernoulli,low=0,high=1", 1_000, seed=1, publish_every=100)
    >>> bool(450 < played.regret[-1] < 550)
    True
    """
    spec = playable(spec, decisions, pace_ms).spec
    chance_world, chance_luck = np.random.default_rng(seed).spawn(2)
    there, delay = environment(world, subjects or [spec], chance_world)
    pipeline, waiting = Pipeline(spec), list[_Block]()
    regret, shares, best = list[float](), list[Floats](), list[float]()
    total = 0.0
    for start in range(0, decisions, publish_every):
        count = min(publish_every, decisions - start)
        policy = pipeline.publish()
        contexts = there.contexts(chance_world, count)
        chances = there.chances(contexts, start)
        seeds = chance_luck.integers(2**63, size=count)
        choices = [policy.decide(context, spec.actions) for context in contexts]
        drawn = [
            draw(choice.probabilities, int(s)) for choice, s in zip(choices, seeds, strict=True)
        ]
        actions, rows = np.array(drawn), np.arange(count)
        taken, most = chances[rows, actions], chances.max(axis=1)
        total += float((most - taken).sum())
        regret.append(total)
        shares.append(np.bincount(actions, minlength=len(spec.actions)) / count)
        best.append(float((taken == most).mean()))
        hits = chance_luck.random(count) < taken
        propensities = np.array([c.probabilities[a] for c, a in zip(choices, drawn, strict=True)])
        vectors = np.stack([choice.features for choice in choices])
        due = start + rows + np.ceil(chance_luck.exponential(delay, count)).astype(np.int64)
        times = (start + rows) * pace_ms
        outcomes = _outcomes(spec, actions, hits, propensities, vectors, times)
        waiting.append(_Block(due, outcomes))
        waiting = _learn(pipeline, waiting, start + count)
    return Played(np.array(regret), np.array(shares), np.array(best), pipeline.changes)


def _learn(pipeline: Pipeline, waiting: list[_Block], now: int) -> list[_Block]:
    """Learn what is due, and give what isn't."""
    later = []
    for block in waiting:
        ready = block.due < now
        pipeline.learn(block.outcomes.filter(pa.array(ready)))
        if not ready.all():
            left = block.outcomes.filter(pa.array(~ready))
            later.append(_Block(block.due[~ready], left))
    return later


def _outcomes(
    spec: Spec,
    actions: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_],
    propensities: Floats,
    vectors: npt.NDArray[np.float32],
    times_ms: npt.NDArray[np.int64],
) -> pa.RecordBatch:
    """Give the outcomes with the columns that a learner reads."""
    count, width = vectors.shape
    times = pa.array(times_ms).cast(pa.timestamp("ms"))
    hashes = pa.array([spec.features_hash] * count)
    decision = {
        "ts": times,
        "action": pa.array(np.array(spec.actions)[actions]),
        "propensity": pa.array(propensities),
        "features_hash": hashes,
        "features": _lists(pa.array(vectors.reshape(-1)), count, width),
    }
    reward = {
        "name": pa.array([spec.reward.name] * count),
        "value": pa.array(np.where(hits, spec.reward.high, spec.reward.low)),
        "ts": times,
    }
    rewards = pa.StructArray.from_arrays(list(reward.values()), names=list(reward))
    return pa.RecordBatch.from_arrays(
        [
            _lists(rewards, count, 1),
            pa.StructArray.from_arrays(list(decision.values()), names=list(decision)),
        ],
        names=["rewards", "decision"],
    )


def _lists(values: pa.Array, count: int, width: int) -> pa.ListArray:
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
