"""A small language for cases of the join: what is written when, and what one owner makes of it."""

from __future__ import annotations

from collections import Counter

from bandstand.streams.join_types import Log
from tests.streams.join_driver import Owner, Partition, agrees
from tests.streams.join_logs import LOGS, START, WIRE, Logs
from tests.streams.join_oracle import Lane

__all__ = ["AT", "GRACE", "LANE", "WINDOW", "Story", "Told", "outcomes_in", "reads_all"]

LANE = Lane(lateness=1_000, backward=200, skew=300, max_outcome_bytes=1_000)
WINDOW, GRACE = 500, 50
AT = START
"""When the first tick was written; all times below are after it."""

Told = tuple[str, str, list[str]]
"""An outcome: decision id, state, reward ids."""


class Story(Logs):
    """Logs whose times count from the first tick."""

    def __init__(self, lane: Lane = LANE) -> None:
        super().__init__(lane)
        self.ticks(0)

    def ticks(self, *times: int, window: int = WINDOW, grace: int = GRACE) -> Story:
        """Write ticks into both logs."""
        for time in times:
            for log in LOGS:
                self.tick(log, AT + time, window, grace)
        return self

    def decides(self, decision_id: str, time: int, size: int = 0) -> Story:
        """Write a decision."""
        self.decision(decision_id, AT + time, size)
        return self

    def rewards(self, decision_id: str, reward_id: str, time: int) -> Story:
        """Write a reward."""
        self.reward(decision_id, reward_id, AT + time)
        return self

    def told(self) -> list[Told]:
        """Give the outcomes of an owner that reads all, at once or record by record."""
        return self._read()[0]

    def states(self, log: Log) -> Counter[str]:
        """Count the states in which the records of a log have ended."""
        owner = self._read()[1]
        return owner.decisions if log == "decisions" else owner.rewards

    def _read(self) -> tuple[list[Told], Owner]:
        for most in (1, 1_000):
            partition = Partition(self)
            owner = partition.take_over()
            told = reads_all(partition, owner, most)
            agrees(partition, owner)
        return told, owner


def outcomes_in(partition: Partition) -> list[Told]:
    """Read the outcome topic as readers do."""
    told = []
    for outcome in partition.written():
        fields = WIRE.loads("outcome", outcome.value)
        rewards = [reward["reward_id"] for reward in fields["rewards"]]
        told.append((outcome.key.decode(), fields["state"], rewards))
    return told


def reads_all(partition: Partition, owner: Owner, most: int = 1_000) -> list[Told]:
    """Let an owner read and deliver all that is there, some at a time; read the outcome topic."""
    for log in LOGS:
        partition.appear(log)
    while sum(owner.wants(log) and partition.read(owner, log, most) for log in LOGS):
        pass
    partition.deliver(owner)
    return outcomes_in(partition)
