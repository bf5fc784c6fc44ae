"""Joining: the pure core of one partition, from two logs of records to outcome records."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import NamedTuple

from bandstand.schemas.columns import columns
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_types import Output, Record, Records, Rules
from benchmarks.events import START_MS, WIRE, decision, sized, tick
from benchmarks.measure import Benchmark, Contestant, Figures, Ratio, Size

DECISIONS = 200_000
BYTES = 235
REWARD_EVERY = 20
A_SECOND = 5_000
"""Decisions between two ticks."""
BATCH = 5_000
"""Records a push, as a poll gives them."""
RULES = Rules(window_ms=5_000, grace_ms=1_000, lateness_ms=3_600_000, backward_ms=0, skew_ms=60_000)

RATE, CPU = "k decisions/s", "CPU us"


class Logs(NamedTuple):
    """The two logs of a partition."""

    decisions: Sequence[Record]
    rewards: Sequence[Record]


@contextmanager
def prepare(size: Size) -> Iterator[Benchmark]:
    """Make the logs, and check that every decision gets its outcome."""
    count = size.of(DECISIONS)
    logs = make_logs(count)
    values = [record.value for record in logs.decisions if record.value is not None]
    states = join(logs)
    assert states == {"joined": -(-count // REWARD_EVERY), "defaulted": states["defaulted"]}
    assert states.total() == count

    def decode() -> None:
        for start in range(0, count, BATCH):
            columns("decision", values[start : start + BATCH], WIRE)

    core, decoded = "JoinCore", "decode of the decisions"
    yield Benchmark(
        "joining",
        "The join's pure core on one partition's logs in memory, rewards and ticks included, from "
        "records to outcome records, Python's collector set as the worker sets it. No Kafka and no "
        "Faust: joins on a broker are another measurement. The decode of the decisions' Avro, "
        "which the core does to check them, is the yardstick, so that machines can be compared. "
        "CPU us a decision are CPU seconds a million.",
        "decision",
        {
            "decisions": count,
            "bytes a decision": sum(map(len, values)) / count,
            "decisions between ticks": A_SECOND,
            "decisions a reward": REWARD_EVERY,
            "records a push": BATCH,
        },
        [
            Contestant(core, lambda: _as_in_the_worker(lambda: join(logs), count)),
            Contestant(decoded, lambda: _measured(decode, count)),
        ],
        [Ratio(CPU, core, decoded)],
    )


def _measured(work: Callable[[], object], count: int) -> Figures:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {RATE: count / wall / 1e3, CPU: cpu / count * 1e6}


def _as_in_the_worker(work: Callable[[], object], count: int) -> Figures:
    """Measure under the collector's thresholds that `streams.app` sets."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        return _measured(work, count)
    finally:
        gc.set_threshold(*before)


def make_logs(count: int) -> Logs:
    """Make a decision log with a tick a second, and rewards within the window for one in 20."""
    random = Random(3)
    decisions: list[Record] = []
    due: list[tuple[int, str]] = []
    for number in range(count):
        if number % A_SECOND == 0:
            decisions.append(tick(len(decisions), START_MS + number * 1000 // A_SECOND, RULES))
        ts = START_MS + number * 1000 // A_SECOND
        event = decision(random, ts, eligible=0, features=False)
        key = event["decision_id"]
        decisions.append(Record(len(decisions), ts, key.encode(), sized(event, BYTES), ()))
        if number % REWARD_EVERY == 0:
            due.append((ts + random.randrange(RULES.window_ms), key))
    end = START_MS + count * 1000 // A_SECOND
    for ms in range(end + 1000 - end % 1000, end + 10_000, 1000):
        decisions.append(tick(len(decisions), ms, RULES))
    return Logs(decisions, _rewards(sorted(due), decisions[-1].timestamp))


def _rewards(due: Sequence[tuple[int, str]], end: int) -> list[Record]:
    records: list[Record] = []
    next_tick = START_MS
    for ts, key in [*due, (end, "")]:
        while next_tick <= ts:
            records.append(tick(len(records), next_tick, RULES))
            next_tick += 1000
        if key:
            event = {
                "bandit": "bench",
                "decision_id": key,
                "reward_id": f"r-{key}",
                "name": "click",
                "value": 1.0,
                "ts": ts,
            }
            value = WIRE.dumps("reward", event)
            records.append(Record(len(records), ts, key.encode(), value, ()))
    return records


def join(logs: Logs) -> Counter[str]:
    """Read both logs as the worker does, each while the core wants it; count decisions by state."""
    core = JoinCore(
        RULES, WIRE, max_outcome_bytes=900_000, tail=None, decision_start=0, reward_start=0
    )
    states: Counter[str] = Counter()
    moved = True
    while moved:
        moved = False
        if core.wants_decisions and core.next_decision < len(logs.decisions):
            moved = _count(states, core.push_decisions(_next(logs.decisions, core.next_decision)))
        if core.wants_rewards and core.next_reward < len(logs.rewards):
            moved = _count(states, core.push_rewards(_next(logs.rewards, core.next_reward)))
    return states


def _next(log: Sequence[Record], start: int) -> Records:
    return Records.of(log[start : start + BATCH], start)


def _count(states: Counter[str], output: Output) -> bool:
    states.update(output.decisions)
    assert not output.refusals
    return True
