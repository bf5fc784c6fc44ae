"""Our contestants, the yardsticks beside them, and what publishing costs; in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bandstand.learners.grid import STEPS
from bandstand.learners.policies import policy_from_snapshot, resume
from bandstand.learners.protocols import AdditiveLearner
from bandstand.learners.protocols import Rows as GridRows
from bandstand.learners.registry import learner_of
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.columns import columns
from bandstand.schemas.spec import Spec
from bandstand.streams.in_force import InForce
from bandstand.streams.learner_records import PartitionSums, sums_records
from bandstand.streams.publish_core import PublishCore
from benchmarks.events import WIRE, spec_of
from benchmarks.learners.world import BATCHES, Case, Rows, Step, batches, in_turns, rows, serve

Floats = npt.NDArray[np.float64]

PUBLISHED_FEATURES = 24
_LEARNED = 500


class _Ours:
    batches: Sequence[int] = BATCHES
    probabilities = True

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object] | None:
        del case, learned
        return None


class Sums(_Ours):
    name = "bandstand"
    says = (
        "`Statistics.update`: from the Arrow columns of decoded outcomes with logged vectors "
        "(features and rewards checked, put on the grid, summed up by action) to int64 totals "
        "whose headroom is checked. Decides from attributes, with the exact probability of every "
        "action."
    )

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        bandit = spec_of(*case)
        total = Statistics.empty(bandit)
        tables = _tables(case, len(parts[0].actions))
        _check(bandit, tables[0], parts[0])

        def learn(table: pa.RecordBatch) -> None:
            nonlocal total
            total = total.update(table)

        return _tables_in_turns(tables, learn)

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object]:
        bandit = spec_of(*case)
        table = _table(bandit, learned)
        statistics = Statistics.empty(bandit).update(table)
        policy = policy_from_snapshot(build(bandit, statistics, 0, "", {}))
        names = [feature.name for feature in bandit.features]
        contexts = [dict(zip(names, x, strict=True)) for x in learned.x[:, 1:].tolist()]
        return lambda number: policy.decide(contexts[number], bandit.actions)


class Solving(_Ours):
    name = "bandstand, solved"
    says = (
        "The same, and after each batch the posteriors of the actions that it touched, as the "
        "peers do."
    )

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        bandit = spec_of(*case)
        total = Statistics.empty(bandit)
        solution = resume(bandit, total, None)

        def learn(table: pa.RecordBatch) -> None:
            nonlocal total, solution
            total = total.update(table)
            solution = resume(bandit, total, solution)

        return _tables_in_turns(_tables(case, len(parts[0].actions)), learn)


class Decoding(_Ours):
    name = "bandstand, from Avro"
    says = (
        "From Kafka's bytes: `schemas.columns` with all its checks, then `Statistics.update`. An "
        "outcome lists all actions with their probabilities, as a service logs them."
    )
    batches: Sequence[int] = BATCHES[1:]

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        bandit = spec_of(*case)
        total = Statistics.empty(bandit)
        frames = _frames(case, len(parts[0].actions))
        following = iter(range(2**62))

        def step() -> int:
            nonlocal total
            values = frames[next(following) % len(frames)]
            total = total.update(columns("outcome", values, WIRE).table)
            return len(values)

        return step


class SumsAlone(_Ours):
    name = "bandstand, sums alone"
    says = "Only the exact sums of a batch, from arrays that are on the grid."

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        bandit = spec_of(*case)
        learner = learner_of(bandit)
        assert isinstance(learner, AdditiveLearner)
        ready = {id(part): _on_the_grid(part) for part in parts}
        return in_turns(parts, lambda part: learner.sums(bandit, ready[id(part)]))


class ByHand(_Ours):
    name = "numpy by hand"
    says = "From the same columns to float sums, as one writes it who trusts the data: no check."

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        bandit = spec_of(*case)
        squares = np.zeros((case.actions, case.dimension, case.dimension))
        targets = np.zeros((case.actions, case.dimension))

        def learn(table: pa.RecordBatch) -> None:
            x, y, actions = _arrays(bandit, table)
            for action in np.unique(actions):
                mine = actions == action
                block = x[mine]
                squares[action] += block.T @ block
                targets[action] += block.T @ y[mine]

        return _tables_in_turns(_tables(case, len(parts[0].actions)), learn)


class Bare(_Ours):
    name = "X.T @ X alone"
    says = (
        "One BLAS call on the batch's float64 features, actions not told apart, result thrown "
        "away: the yardstick of the core."
    )

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        del case
        return in_turns(parts, lambda part: part.x.T @ part.x)


def publish(actions: int, bandits: int, touched: int) -> dict[str, Any]:
    """Publish many bandits of which some actions have learned; gives CPU milliseconds.

    Reading their sums from ``learner-state`` is done before and isn't timed; solving, snapshots'
    bytes and pointers are.
    """
    core, specs = _publishers.get((actions, bandits)) or _publisher(actions, bandits)
    _publishers[actions, bandits] = core, specs
    learned = rows(Case(PUBLISHED_FEATURES, actions), _LEARNED)
    few = learned.actions < touched
    _grow(core, specs, Rows(learned.x[few], learned.actions[few], learned.rewards[few]))
    begun = time.process_time()
    made = [core.publish(bandit, 0) for bandit in specs]
    taken = time.process_time() - begun
    records = [record for one in made if one is not None for record in one.records]
    assert sum(value is not None for _, value in records) == 2 * bandits
    for key, value in records:
        core.take_snapshot(key, value)
    return {"milliseconds": taken * 1e3, "snapshot_bytes": len(records[0][1] or b"")}


Specs = Mapping[str, InForce]
_publishers: dict[tuple[int, int], tuple[PublishCore, Specs]] = {}
_held: dict[int, Statistics] = {}


def _publisher(actions: int, bandits: int) -> tuple[PublishCore, Specs]:
    """Give a publisher that has published all of them once."""
    core = PublishCore(WIRE, keep_artifacts=2, lanes={"default": 1})
    first = spec_of(PUBLISHED_FEATURES, actions)
    specs = {
        name: InForce(Spec.model_validate({**first.model_dump(), "bandit": name}), number)
        for number, name in enumerate(f"bandit-{number:04d}" for number in range(bandits))
    }
    core.follow(specs, specs)
    _held[id(core)] = Statistics.empty(first)
    _grow(core, specs, rows(Case(PUBLISHED_FEATURES, actions), _LEARNED))
    for name in specs:
        made = core.publish(name, 0)
        for key, value in made.records if made else ():
            core.take_snapshot(key, value)
    return core, specs


def _grow(core: PublishCore, specs: Specs, more: Rows) -> None:
    """Let all bandits have learned some more rows, all the same ones."""
    held = _held[id(core)]
    held = _held[id(core)] = held.update(_table(held.spec, more))
    for spec, epoch, *_ in specs.values():
        theirs = Statistics(spec, held.sums, held.counters, held.outcomes, held.newest)
        for key, value in sums_records(PartitionSums("default", 0, epoch, 0, theirs), WIRE):
            core.take_state(0, key, value)


@lru_cache(maxsize=1)
def _frames(case: Case, size: int) -> Sequence[list[bytes]]:
    """Give the world's batches as Kafka's values."""
    bandit = spec_of(*case)
    return [_values(bandit, part) for part in batches(case, size)]


@lru_cache(maxsize=1)
def _tables(case: Case, size: int) -> Sequence[pa.RecordBatch]:
    return [columns("outcome", values, WIRE).table for values in _frames(case, size)]


def _table(bandit: Spec, part: Rows) -> pa.RecordBatch:
    return columns("outcome", _values(bandit, part), WIRE).table


def _values(bandit: Spec, part: Rows) -> list[bytes]:
    return [WIRE.dumps("outcome", each) for each in _outcomes(bandit, part)]


def _tables_in_turns(
    tables: Sequence[pa.RecordBatch], learn: Callable[[pa.RecordBatch], None]
) -> Step:
    following = iter(range(2**62))

    def step() -> int:
        table = tables[next(following) % len(tables)]
        learn(table)
        return int(table.num_rows)

    return step


def _outcomes(bandit: Spec, part: Rows) -> Iterator[dict[str, Any]]:
    """Give outcomes as the join writes them, with the vector that the policy saw."""
    listed = [{"action": name, "probability": 1 / len(bandit.actions)} for name in bandit.actions]
    whole = zip(part.x.tolist(), part.actions.tolist(), part.rewards.tolist(), strict=True)
    for number, (x, action, reward) in enumerate(whole):
        clicked = {
            "reward_id": f"r{number}",
            "name": "click",
            "value": reward,
            "ts": 0,
            "offset": 0,
        }
        yield {
            "state": "joined" if reward else "defaulted",
            "source_offset": number,
            "before": None,
            "window_ms": 1000,
            "backward_ms": 0,
            "grace_ms": 0,
            "rewards": [clicked] if reward else [],
            "decision": {
                "bandit": bandit.bandit,
                "decision_id": f"01990000-0000-7000-8000-{number:012d}",
                "subject": f"user-{number:06d}",
                "ts": 1_790_000_000_000 + number,
                "snapshot_version": "3-120000-0f1e2d3c4b5a6978",
                "policy": bandit.policy.name,
                "action": bandit.actions[action],
                "propensity": 1 / len(bandit.actions),
                "features_hash": bandit.features_hash,
                "features": x,
                "actions": listed,
                "seed": number,
                "fallback": "live",
            },
        }


def _on_the_grid(part: Rows) -> GridRows:
    steps = np.column_stack([part.x, part.rewards]) * STEPS
    return GridRows(part.actions.astype(np.int16), steps, np.ones(len(part.actions)))


def _arrays(bandit: Spec, table: pa.RecordBatch) -> tuple[Floats, Floats, npt.NDArray[np.int32]]:
    decisions, rewards = table["decision"], table["rewards"]
    features = decisions.field("features").flatten().to_numpy()
    x = features.reshape(table.num_rows, -1).astype(np.float64)
    y = np.zeros(len(x))
    y[rewards.value_parent_indices().to_numpy()] = rewards.flatten().field("value").to_numpy()
    actions = pc.index_in(decisions.field("action"), pa.array(bandit.actions)).to_numpy()
    return x, y, actions


def _check(bandit: Spec, table: pa.RecordBatch, part: Rows) -> None:
    """Compare our sums with float sums of the same rows: nothing is rounded in either."""
    ours = Statistics.empty(bandit).update(table).arrays()["products"] / (STEPS * STEPS)
    joined = np.column_stack([part.x, part.rewards])
    above = np.triu_indices(joined.shape[1])
    for action in np.unique(part.actions):
        block = joined[part.actions == action]
        assert np.array_equal(ours[action], (block.T @ block)[above])


def main() -> None:
    serve([Sums(), Solving(), Decoding(), SumsAlone(), ByHand(), Bare()], publish=publish)


if __name__ == "__main__":
    main()
