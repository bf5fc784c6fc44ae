"""A loop that closes: a service that learns to read digits from late yes-or-no rewards."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from sklearn.datasets import load_digits

from bandstand.serving import Client, RewardProducer
from bandstand.settings import Settings

__all__ = ["BANDITS", "Arm", "play"]

BANDITS = ("digits", "digits_uniform")
PASSES = 10
_DELAY_S = (0.05, 0.8)


@dataclass
class Arm:
    """What one bandit did.

    Parameters
    ----------
    right
        Whether each decision was right, in order.
    versions
        Snapshot version of each decision.
    """

    right: list[bool] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def error(self, last: int) -> float:
        """Give the share of wrong ones among the last decisions, in [0, 1]."""
        return 1.0 - float(np.mean(self.right[-last:]))


@dataclass(order=True)
class _Late:
    due: float
    bandit: str = field(compare=False)
    decision_id: str = field(compare=False)
    value: float = field(compare=False)


class _LateRewards:
    """Sends each reward when its time has come."""

    def __init__(self, producers: dict[str, RewardProducer]) -> None:
        self._producers = producers
        self._waiting: list[_Late] = []

    def add(self, reward: _Late) -> None:
        heapq.heappush(self._waiting, reward)

    def send_due(self, now: float) -> None:
        while self._waiting and self._waiting[0].due <= now:
            late = heapq.heappop(self._waiting)
            self._producers[late.bandit].reward(late.decision_id, "right", late.value)

    def finish(self) -> None:
        while self._waiting:
            time.sleep(max(0.0, self._waiting[0].due - time.monotonic()))
            self.send_due(time.monotonic())


def play(
    settings: Settings,
    seconds: float,
    rate: float,
    tell: Callable[[int, int, dict[str, Arm]], None],
) -> dict[str, Arm]:
    """Show every picture ten times, or until time is up, to both bandits.

    Parameters
    ----------
    settings
        The stage's settings.
    seconds
        Time limit, > 0.
    rate
        Most decisions a second of each bandit, > 0.
    tell
        Called with decisions so far, decisions in all, and the arms.
    """
    pictures, digits = load_digits(return_X_y=True)
    contexts = [
        {f"p{i:02d}": float(pixel) for i, pixel in enumerate(picture)} for picture in pictures
    ]
    chance = random.Random(1797)
    order = [i for _ in range(PASSES) for i in chance.sample(range(len(contexts)), len(contexts))]
    arms = {bandit: Arm() for bandit in BANDITS}
    with Client(settings) as client:
        producers = {bandit: RewardProducer(bandit, settings) for bandit in BANDITS}
        late = _LateRewards(producers)
        for bandit in BANDITS:
            client.wait_ready(bandit, 20.0)
        start = time.monotonic()
        for number, picture in enumerate(order):
            now = _pace(late, start + number / rate)
            if now - start > seconds:
                break
            for bandit, arm in arms.items():
                choice = client.decide(bandit, f"picture-{picture}", contexts[picture])
                right = int(choice.action) == int(digits[picture])
                arm.right.append(right)
                arm.versions.append(choice.version)
                due = now + chance.uniform(*_DELAY_S)
                late.add(_Late(due, bandit, choice.decision_id, float(right)))
            tell(number + 1, len(order), arms)
        late.finish()
        for producer in producers.values():
            producer.close()
    return arms


def _pace(late: _LateRewards, not_before: float) -> float:
    """Send what is due until the next decision may be made; gives the time."""
    while True:
        now = time.monotonic()
        late.send_due(now)
        if now >= not_before:
            return now
        time.sleep(min(0.002, not_before - now))
