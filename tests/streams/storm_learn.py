"""Learners and publishers in the storm: ``python -m tests.streams.storm_learn --rounds 200``.

Two or three of each share the bandits of a lane. Sums, positions and snapshots must be what the
pure core makes of the outcome topic alone, and no reader of snapshots may ever step back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from bandstand.kafka import TopicReader
from bandstand.streams.join_types import Record
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import Position
from bandstand.streams.records import record_of
from bandstand.streams.snapshots import list_snapshots
from bandstand.streams.specs import specs_in_force
from tests.streams.bench import WIRE, Bench, Worker
from tests.streams.storm import PARTITIONS, main, spread
from tests.streams.storm_follower import Arrival, DifferenceError
from tests.streams.storm_learn_check import Checks, version_of
from tests.streams.storm_learn_load import LANE, Load, Tally
from tests.streams.storm_learn_truth import merged
from tests.streams.storm_plan import Group
from tests.streams.storm_scene import Play, Scene

__all__ = ["LEARN"]

_READ_S = 60.0
_STILL_UNDER_WAY_S = 0.2
"""A record that comes so soon after a kill was sent by the dead."""

_SETTINGS = {
    "BANDSTAND_LOG__FORMAT": "json",
    "BANDSTAND_TOPICS__RETENTION": "3650d",  # the outcomes have times of their own, long ago
    "BANDSTAND_KAFKA__RECONNECT_BACKOFF_MS": "20",
    "BANDSTAND_KAFKA__RECONNECT_BACKOFF_MAX_MS": "200",
    "BANDSTAND_LEARN__SESSION_TIMEOUT": "1s",
    "BANDSTAND_PUBLISH__SESSION_TIMEOUT": "1s",
    "BANDSTAND_PUBLISH__INTERVAL": "100ms",
    "BANDSTAND_PUBLISH__KEEP_ARTIFACTS": "5",
}


class _Lane(Scene):
    """Outcomes of every kind, and the sums and snapshots that they must give."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self._bench = bench
        self._tally = Tally()
        self._load = Load(bench.settings, self._tally, seed)
        self._checks = Checks(bench.settings, self._tally)
        self.topics = self._checks.topics
        self._names = bench.names
        self._struck: tuple[str, float] | None = None
        self._first: dict[str, dict[bytes, float]] = {}
        """By topic and key: when its first record came after the fault."""
        self._recoveries: dict[str, dict[str, list[float]]] = {}

    def sending(self) -> AbstractContextManager[None]:
        return self._load.running()

    def struck(self, kind: str, at: float, workers: Sequence[Worker] | None) -> None:
        del workers
        self._struck = kind, at

    def take(self, arrivals: Iterable[Arrival]) -> None:
        arrivals = list(arrivals)
        self._time(arrivals)
        self._checks.take(arrivals)

    @property
    def unfinished(self) -> str:
        return self._checks.unfinished

    def close_round(self) -> None:
        self._checks.close_round()
        if self._struck is not None:
            kind, at = self._struck
            for topic, first in self._first.items():
                seconds = self._recoveries.setdefault(topic, {}).setdefault(kind, [])
                seconds.append(max(first.values()) - at)
        self._struck = None
        self._first.clear()

    def _time(self, arrivals: Sequence[Arrival]) -> None:
        if self._struck is None:
            return
        _, at = self._struck
        for arrival in arrivals:
            key = arrival.record.key or b""
            timed = {
                self._names.learner_state: key.startswith(b"position|"),
                self._names.snapshots: b"|" not in key,
            }
            if timed.get(arrival.topic) and arrival.at - at > _STILL_UNDER_WAY_S:
                self._first.setdefault(arrival.topic, {}).setdefault(key, arrival.at)

    def check_from_scratch(self) -> None:
        settings = self._bench.settings
        specs = specs_in_force(settings)
        cores = [LearnCore(LANE, p, WIRE, Position(0)) for p in range(PARTITIONS)]
        for partition, core in enumerate(cores):
            core.follow(specs)
            core.open()
            core.learn(self._whole(self._checks.outcomes, partition))
        wanted = {
            bandit: version_of(
                in_force, merged(in_force, (core.held[bandit].statistics for core in cores))
            )
            for bandit, in_force in specs.items()
        }
        found = {info.bandit: info.version for info in list_snapshots(settings) if info.current}
        if found != wanted:
            raise DifferenceError(
                f"cores that read all outcomes at once give {wanted}; published are {found}"
            )

    def summary(self) -> dict[str, Any]:
        checks = self._checks
        specs, outcomes = checks.in_force, sum(checks.truth.ends)
        return {
            "bandits": len(specs),
            "specs": dict(self._load.specs_applied),
            "outcome_records": outcomes,
            "outcome_records_sent": self._tally.sent,
            "outcomes_learned": sum(checks.truth.total(one).outcomes for one in specs.values()),
            **{name.replace(" ", "_"): count for name, count in sorted(checks.counts.items())},
            "letters": checks.letters.reasons.total(),
            "letter_repeats": checks.letters.repeats,
            **{
                f"seconds_until_all_{what}": {
                    kind: spread(seconds)
                    for kind, seconds in sorted(self._recoveries.get(topic, {}).items())
                }
                for what, topic in (
                    ("partitions_are_learned_on", self._names.learner_state),
                    ("bandits_are_published_anew", self._names.snapshots),
                )
            },
        }

    def _whole(self, topic: str, partition: int) -> list[Record]:
        reader = TopicReader(self._bench.settings, topic, starts={partition: 0})
        try:
            return [record_of(message) for message in reader.read_to_end(_READ_S)]
        finally:
            reader.close()


def _role(name: str) -> tuple[str, ...]:
    return sys.executable, "-m", "bandstand", name


LEARN = Play(
    "storm-learners",
    "Kill, freeze and replace learners, publishers and their broker; hold what they write against "
    "the outcomes.",
    (Group("learner"), Group("publisher")),
    {"learner": _role("learn"), "publisher": _role("publish")},
    _SETTINGS,
    "assigned",
    _Lane,
)


if __name__ == "__main__":
    sys.exit(main(LEARN))
