"""Logs for the join to read: some milliseconds full of boundaries, or hours like the defaults."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from bandstand.streams.join_types import Log
from tests.streams.join_logs import FAULTS, LOGS, START, Logs
from tests.streams.join_oracle import Lane

__all__ = ["LARGE", "SMALL", "Pick", "Writer", "large_logs", "small_logs"]

T = TypeVar("T")

SMALL = Lane(lateness=40, backward=15, skew=20, max_outcome_bytes=1_000)
"""All boundaries lie a few milliseconds apart."""

LARGE = Lane(lateness=3_600_000, backward=60_000, skew=60_000, max_outcome_bytes=20_000)
"""Like the defaults."""

IDS = "abcdefgh"
MOSTLY, RARELY = (True,) * 7 + (False,), (True, False, False, False)
DAYS = 86_400_000
SETTINGS = ((50, 10), (50, 10), (50, 0), (20, 10), (90, 5), (1, 1))
SIZES = (*(0,) * 12, *range(918, 930), 400, 2_000)
"""Lengths of a decision's text: most are short, some give an outcome just below the limit."""

STEPS = (0, 1, 5, 5, 5, 10, 10, 10, 10, 10, 10, 25, 60, 120, -1, -15, -60, 3_600_000)


def _around(*boundaries: int) -> tuple[int, ...]:
    """Give boundaries to the millisecond, each with its neighbours."""
    return tuple(at + step for at in boundaries for step in (-1, 0, 1))


FROM_NOW = (
    *(0, 0, 0, 0, 0, -1, -1, -2, -5, -5, -5, -10, -10, -10, -20, -20, -30, 5, 10) * 2,
    *_around(-SMALL.lateness, SMALL.skew, -50, -60, -SMALL.lateness - SMALL.skew),
    *(5 * DAYS, -5 * DAYS, -60 * DAYS),
)
FROM_ITS_DECISION = (
    *(0, 0, 1, 1, 5, 5, 10, 10, 15, 30) * 2,
    *_around(-SMALL.backward, 20, 50, 90),
    *(5 * DAYS, -5 * DAYS),
)
TICK_FROM_DECISION = _around(
    *(window + grace for window, grace in set(SETTINGS)),
    *(window + grace + SMALL.lateness for window, grace in set(SETTINGS)),
    SMALL.lateness,
    -SMALL.skew,
    SMALL.lateness + SMALL.backward,
    SMALL.lateness + SMALL.backward + 50,
)


LARGE_SETTINGS = ((600_000, 5_000), (60_000, 5_000), (900_000, 0), (600_000, 60_000))
LARGE_BOUNDARIES = _around(-LARGE.backward, 0, 60_000, 600_000, 900_000)
CLOCKS = (5 * DAYS, -5 * DAYS, *_around(LARGE.skew, -LARGE.lateness))
DELAYS = (*(0,) * 40, *(20,) * 40, 1_000, 5_000, 60_000, 605_000, 3_600_000, 7_200_000)


class Pick(Protocol):
    """Chooses one of several: by hypothesis, or by a random generator."""

    def __call__(self, options: Sequence[T]) -> T:
        """Give one of the options, of which there is at least one."""
        ...


class Writer:
    """Writes small logs, an event at a time, where boundaries are met often.

    Parameters
    ----------
    pick
        Decides what isn't given.
    """

    def __init__(self, pick: Pick) -> None:
        self.logs = Logs(SMALL)
        self.now = START
        self._pick = pick
        self._decided: dict[str, int] = {}

    def decision(self) -> None:
        """Write a decision, early or late, known or new."""
        decision_id = self._pick(IDS)
        time = self._time_for(decision_id, RARELY)
        self._decided.pop(decision_id, None)  # the newest stand last
        self._decided[decision_id] = time
        self.logs.decision(decision_id, time, self._pick(SIZES))

    def reward(self) -> None:
        """Write a reward, relative to its decision or to now."""
        recent = list(self._decided)[-4:]
        decision_id = self._pick(recent if recent and self._chance(MOSTLY) else IDS)
        time = self._time_for(decision_id, MOSTLY)
        self.logs.reward(decision_id, self._pick("rs"), time, self._pick((0, 0, 0, 0, 400)))

    def other(self) -> None:
        """Write what can't be used, or leave offsets out."""
        log = self._pick(LOGS)
        if self._pick((True, False)):
            self.logs.skip(log, self._pick((1, 2)))
            return
        fault = self._pick(FAULTS if log == "rewards" else FAULTS[:-1])
        time = self.now + self._pick(FROM_NOW)
        self.logs.unusable(log, fault, self._pick(IDS), time)

    def step(self) -> None:
        """Let time go on: by a step, or to where something closes."""
        target = self.now + self._pick(STEPS)
        if self._decided and self._chance(RARELY):
            decided = self._pick(sorted(self._decided.values()))
            boundary = decided + self._pick(TICK_FROM_DECISION)
            if self.now < boundary < self.now + DAYS:
                target = boundary
        self.now = target

    def tick(self, *logs: Log) -> None:
        """Write a tick into logs."""
        settings = self._pick(SETTINGS)
        for log in logs:
            self.logs.tick(log, self.now, *settings)

    def _time_for(self, decision_id: str, by_decision: Sequence[bool]) -> int:
        """Give a time that lies some way from the last decision of this id, or from now."""
        decided = self._decided.get(decision_id)
        if decided is not None and self._chance(by_decision):
            return decided + self._pick(FROM_ITS_DECISION)
        return self.now + self._pick(FROM_NOW)

    def _chance(self, options: Sequence[bool]) -> bool:
        return self._pick(options)


def small_logs(pick: Pick) -> Logs:
    """Write some dozens of records."""
    writer = Writer(pick)
    write = (
        *(writer.decision,) * 4,
        *(writer.reward,) * 5,
        writer.other,
    )
    for _ in range(pick(range(2, 16))):
        for _ in range(pick((0, 1, 2, 3, 4, 5, 6, 25))):
            pick(write)()
        writer.step()
        writer.tick(*pick((LOGS,) * 8 + (LOGS[:1], LOGS[1:], ())))
    return writer.logs


class _Hours:
    """Writes large logs: events come when they arrive, not when they happened."""

    def __init__(self, draw: random.Random) -> None:
        self.logs = Logs(LARGE)
        self._draw = draw
        self._coming: list[tuple[int, int, Callable[[], None]]] = []
        self._hot = ("hot", START)

    def second(self, now: int) -> None:
        """Let things happen that arrive now or later."""
        draw = self._draw
        for _ in range(self._pick((0, 0, 1, 1, 4))):
            decision_id = f"{draw.getrandbits(40):010x}"
            time = now - draw.randrange(1_000) + self._pick((0,) * 40 + CLOCKS)
            for _ in range(self._pick((1,) * 20 + (2, 3))):
                arrives = max(time, now) + self._pick(DELAYS)
                self._expect(arrives, partial(self.logs.decision, decision_id, time))
            for number in range(self._pick((0, 0, 0, 1, 2))):
                self._rewarded(decision_id, time, f"r{number}", now)
            if draw.random() < 0.001:
                self._hot = (decision_id, time)
        for number in range(self._pick((0, 0, 0, 3))):
            self._rewarded(*self._hot, f"h{draw.randrange(50 * (number + 1))}", now)
        if draw.random() < 0.03:
            log = self._pick(LOGS)
            fault = self._pick(FAULTS[:-1])
            self._expect(now, partial(self.logs.unusable, log, fault, "x", now))
            self._expect(now, partial(self.logs.skip, log, draw.randrange(1, 4)))

    def arrive(self, now: int) -> None:
        """Write what has arrived."""
        while self._coming and self._coming[0][0] <= now:
            heapq.heappop(self._coming)[2]()

    def _rewarded(self, decision_id: str, decided: int, reward_id: str, now: int) -> None:
        after = self._pick((int(self._draw.expovariate(1 / 400_000)), self._pick(LARGE_BOUNDARIES)))
        arrives = max(decided + after, now) + self._pick(DELAYS)
        for _ in range(self._pick((1, 1, 1, 1, 1, 2))):
            write = partial(self.logs.reward, decision_id, reward_id, decided + after)
            self._expect(arrives + self._pick(DELAYS), write)

    def _expect(self, at: int, write: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (at, len(self._coming) + self._draw.getrandbits(40), write))

    def _pick(self, options: Sequence[T]) -> T:
        return self._draw.choice(options)


def large_logs(draw: random.Random, minutes: int) -> Logs:
    """Write some hours of a lane with settings like the defaults: a tick a second, and trouble.

    Parameters
    ----------
    draw
        Decides all.
    minutes
        How long it goes on, at least 1.
    """
    hours = _Hours(draw)
    now, silent_until = START, 0
    settings = LARGE_SETTINGS[0]
    for _ in range(minutes * 60):
        now += draw.choice((1_000, 1_000, 1_000, 1_003, 997))
        if draw.random() < 0.0005:
            now += draw.choice((60_000, 1_800_000, 5 * 3_600_000))  # nobody ticks
        if draw.random() < 0.0005:
            silent_until = now + draw.choice((60_000, 6_000_000))  # nothing but ticks arrives
        if draw.random() < 0.002:
            settings = draw.choice(LARGE_SETTINGS)
        hours.second(now)
        if now >= silent_until:
            hours.arrive(now)
        for log in LOGS:
            if draw.random() < 0.97:
                hours.logs.tick(log, now - draw.choice((0,) * 99 + (5_000,)), *settings)
    end = now + draw.choice((0, 2_000_000, 10 * 3_600_000))
    for log in LOGS:
        hours.logs.tick(log, end, *settings)
    return hours.logs
