"""The broker's side of a run: logs filled before it, topics deleted after it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from bandstand.kafka import admin
from bandstand.schemas.topics import TopicNames
from bandstand.settings import Settings
from bandstand.streams import topics
from benchmarks.join.contestants import Contestant
from benchmarks.join.place import Place
from benchmarks.join.tally import Tally, tally
from benchmarks.join.turn import Figures, TurnError, committed, figures, last_number, watch
from benchmarks.join.workload import BASE, Topics, Traffic, Workload, load, send

__all__ = ["Run", "Stage", "take_turns"]

_LANE = "default"

Run = tuple[Figures, Tally | None]
"""No tally for one that writes no outcomes."""


class Stage:
    """A broker on which contestants take turns.

    Parameters
    ----------
    servers
        The broker's address.
    prefix
        Of all topics.
    folder
        Where contestants run; each run's output stays there until the contestant's next.
    traffic
        What they join.
    """

    def __init__(self, servers: str, prefix: str, folder: Path, traffic: Traffic = BASE) -> None:
        self._servers = servers
        self._prefix = prefix
        self._folder = folder
        self._traffic = traffic
        self._runs = 0
        self._shared: dict[int, tuple[Workload, Topics]] = {}
        self._admin: AdminClient = admin(self._settings(prefix))

    def run(self, contestant: Contestant, decisions: int) -> Run:
        """Let a contestant join so many decisions.

        Raises
        ------
        TurnError
            If it ends by itself or gives no outcome.
        """
        self._runs += 1
        prefix = f"{self._prefix}{self._runs}."
        settings = self._settings(prefix)
        workload, inputs = self._logs(contestant, settings, decisions)
        place = Place(
            self._servers,
            prefix,
            inputs._replace(outcomes=TopicNames(prefix).outcomes(_LANE)),
            self._empty_folder(contestant.name),
            self._traffic,
        )
        if not contestant.in_lane:
            self._create(place.topics.outcomes)
        try:
            return self._measured(contestant, place, settings, workload)
        finally:
            self._delete(prefix)

    def _measured(
        self, contestant: Contestant, place: Place, settings: Settings, workload: Workload
    ) -> Run:
        commands, topic = contestant.commands(place), place.topics.outcomes
        if contestant.outcomes is None:
            printed = last_number(place.folder / "0.log")
            samples = watch(commands, place.folder, printed, workload.count, lambda: None)
            return figures(samples, workload.count), None

        def nudge() -> None:
            if not contestant.in_lane:
                self._close(settings, workload, place.topics)

        expected = workload.count + (len(workload.rewarded) if contestant.repeats else 0)
        count = committed(settings, topic, self._traffic.partitions)
        samples = watch(commands, place.folder, count, expected, nudge)
        counted = tally(settings, topic, contestant.outcomes, workload)
        return figures(samples, workload.count), counted

    def _logs(
        self, contestant: Contestant, settings: Settings, decisions: int
    ) -> tuple[Workload, Topics]:
        if contestant.in_lane:
            return self._fill(settings, decisions, ticks=True)
        if decisions not in self._shared:
            shared = self._settings(f"{self._prefix}{decisions}-shared.")
            self._shared[decisions] = self._fill(shared, decisions, ticks=False)
        return self._shared[decisions]

    def _fill(self, settings: Settings, decisions: int, *, ticks: bool) -> tuple[Workload, Topics]:
        topics.create(settings)
        workload = Workload(decisions, round(time.time() * 1000), self._traffic)
        logs = Topics(*TopicNames(settings.topics.prefix).lane(_LANE))
        load(settings, logs, workload, ticks=ticks)
        if not ticks:
            self._close(settings, workload, logs)
        return workload, logs

    @staticmethod
    def _close(settings: Settings, workload: Workload, logs: Topics) -> None:
        decisions, rewards = workload.closing()
        send(settings, logs.decisions, decisions)
        send(settings, logs.rewards, rewards)

    def _create(self, topic: str) -> None:
        new = NewTopic(topic, self._traffic.partitions, 1)
        for future in self._admin.create_topics([new]).values():
            future.result()

    def _delete(self, prefix: str) -> None:
        # Wherever in the name: Quix Streams puts a word before it.
        names = [name for name in self._admin.list_topics(timeout=10).topics if prefix in name]
        for future in self._admin.delete_topics(names).values():
            future.result()

    def _empty_folder(self, name: str) -> Path:
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _settings(self, prefix: str) -> Settings:
        return Settings.model_validate(
            {
                "kafka": {"bootstrap_servers": self._servers},
                "topics": {"prefix": prefix},
                "lanes": {_LANE: self._traffic.lane()},
            }
        )


def take_turns(
    stage: Stage,
    contestants: Sequence[Contestant],
    decisions: int,
    rounds: int,
    before: Callable[[str], None],
    failed: Callable[[str, TurnError], None],
) -> Iterator[dict[str, list[Run]]]:
    """Let all contestants run, one after the other; after each turn give all runs so far.

    Parameters
    ----------
    stage
        Where.
    contestants
        Who.
    decisions
        How many to join, for those that don't join a part only.
    rounds
        How often.
    before
        Called with the name of who is next.
    failed
        Called with who failed and why; it takes no further turns.
    """
    runs: dict[str, list[Run]] = {contestant.name: [] for contestant in contestants}
    for _ in range(rounds):
        for contestant in [each for each in contestants if each.name in runs]:
            before(contestant.name)
            try:
                runs[contestant.name].append(stage.run(contestant, contestant.part_of(decisions)))
            except TurnError as error:
                failed(contestant.name, error)
                del runs[contestant.name]
            yield runs
