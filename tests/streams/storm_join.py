"""The join in the storm: ``python -m tests.streams.storm_join --rounds 200 --seed 7``.

Two or three workers share a lane. Its outcomes must be what the pure core makes of the two logs
alone, byte for byte.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from bandstand.kafka import TopicReader
from bandstand.streams.join_types import Record, Rules
from bandstand.streams.records import record_of
from tests.streams.bench import RUN, Bench, Worker
from tests.streams.storm import PARTITIONS, main, spread
from tests.streams.storm_follower import Arrival, DifferenceError
from tests.streams.storm_join_check import Checks, PartitionCheck
from tests.streams.storm_join_load import Ledger, Load
from tests.streams.storm_plan import Group
from tests.streams.storm_scene import Play, Scene

__all__ = ["JOIN"]

_READ_S = 60.0

# As the defaults are to each other, but quick: `settle` is longer than the producers' back-off plus
# linger, `grace` than a pause that needs no settling, `lateness` than any outage.
_SETTINGS = {
    "BANDSTAND_LOG__FORMAT": "json",
    "BANDSTAND_KAFKA__RECONNECT_BACKOFF_MS": "20",
    "BANDSTAND_KAFKA__RECONNECT_BACKOFF_MAX_MS": "200",
    "BANDSTAND_JOIN__SESSION_TIMEOUT": "1s",
    "BANDSTAND_JOIN__TICK": "200ms",
    "BANDSTAND_JOIN__IDLE_TICK": "1s",
    "BANDSTAND_JOIN__PAUSE": "1s",
    "BANDSTAND_JOIN__SETTLE": "2s",
    "BANDSTAND_JOIN__PROGRESS": "500ms",
    "BANDSTAND_LANES__DEFAULT__WINDOW": "1s",
    "BANDSTAND_LANES__DEFAULT__GRACE": "1s",
    "BANDSTAND_LANES__DEFAULT__BACKWARD": "300ms",
    "BANDSTAND_LANES__DEFAULT__LATENESS": "30s",
    "BANDSTAND_LANES__DEFAULT__SKEW": "10s",
    "BANDSTAND_LANES__DEFAULT__MAX_OUTCOME_BYTES": "1500",
}


class _Lane(Scene):
    """Decisions and rewards of every kind, and the outcomes that they must have."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self._bench = bench
        self._ledger = Ledger(patience=bench.settings.lanes["default"].grace.total_seconds())
        self._load = Load(bench.settings, self._ledger, seed)
        self._checks = Checks(bench.settings, self._ledger)
        self.topics = self._checks.topics

    def sending(self) -> AbstractContextManager[None]:
        return self._load.running()

    def outage(self) -> AbstractContextManager[None]:
        return self._ledger.outage()

    def struck(self, kind: str, at: float, workers: Sequence[Worker] | None) -> None:
        everything = set(range(PARTITIONS))
        moved = everything if workers is None else set[int]().union(*map(_owned, workers))
        self._checks.struck(kind, at, moved)

    def take(self, arrivals: Iterable[Arrival]) -> None:
        self._checks.take(arrivals)

    @property
    def unfinished(self) -> str:
        return self._checks.unfinished

    def close_round(self) -> None:
        self._checks.close_round()

    def check_from_scratch(self) -> None:
        for partition, check in enumerate(self._checks.partitions):
            fresh = self._from_scratch(partition)
            if (fresh.expected, fresh.digest.digest()) != (check.expected, check.digest.digest()):
                raise DifferenceError(
                    f"partition {partition}: one core that read the whole logs gives "
                    f"{fresh.expected} outcomes, those found are {check.expected} others"
                )

    def summary(self) -> dict[str, Any]:
        checks = self._checks
        states: dict[str, Counter[str]] = {"decisions": Counter(), "rewards": Counter()}
        counts: Counter[str] = Counter()
        for check in checks.partitions:
            for log, found in check.states.items():
                states[log] += found
            states["rewards"]["open"] += check.core.open_rewards
            counts.update(check.comparison.counts)
        return {
            "decisions": dict(states["decisions"]),
            "rewards": dict(states["rewards"]),
            "outcomes": counts["equal"],
            "repeats_dropped": counts["repeated"],
            "letters": checks.letters.reasons.total(),
            "letter_repeats": checks.letters.repeats,
            "records_repeated_by_producers": self._ledger.client_repeats,
            "rewards_too_long_under_way": self._ledger.excused,
            "differences": sum(check.comparison.faults for check in checks.partitions),
            "seconds_to_next_outcome": {
                kind: spread([seconds for of, seconds in checks.recoveries if of == kind])
                for kind in sorted({kind for kind, _ in checks.recoveries})
            },
        }

    def _from_scratch(self, partition: int) -> PartitionCheck:
        settings, names = self._bench.settings, self._bench.names
        lane = settings.lanes["default"]
        fresh = PartitionCheck(partition, Rules.from_settings(lane), lane.max_outcome_bytes)
        # The other way round than a worker reads them.
        fresh.read("rewards", self._whole(names.rewards("default"), partition))
        fresh.read("decisions", self._whole(names.decisions("default"), partition))
        return fresh

    def _whole(self, topic: str, partition: int) -> list[Record]:
        reader = TopicReader(self._bench.settings, topic, starts={partition: 0})
        try:
            return [record_of(message) for message in reader.read_to_end(_READ_S)]
        finally:
            reader.close()


JOIN = Play(
    "storm",
    "Kill, freeze and replace join workers and their broker; hold the outcomes against the logs.",
    (Group("worker"),),
    {"worker": (sys.executable, "-c", RUN)},
    _SETTINGS,
    "took over",
    _Lane,
)


def _owned(worker: Worker) -> set[int]:
    """Read from a worker's log which partitions it has, or had when it was told to stop."""
    owned: set[int] = set()
    for line in worker.log.read_text().splitlines():
        if "role stops" in line:
            break
        if "partitions assigned" not in line:
            continue
        event = json.loads(line)
        owned -= {partition for _, partition in event["gone"]}
        owned |= {partition for _, partition in event["new"]}
    return owned


if __name__ == "__main__":
    sys.exit(main(JOIN))
