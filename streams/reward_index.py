"""Rewards on their way to their decisions: the only state of the join.

A reward waits here until no decision can meet it any more. What "meets" means depends on positions
in the two logs alone, never on which of them was read first:

* A decision is met by every reward of its id whose position came before the decision's due time
  plus ``lateness`` (in ticks of the reward log), and that was still awaited where it stands.
* A reward is awaited until a tick in the decision log exceeds both ``ts + backward + lateness``
  and the watermark at the reward's own position: after that no valid decision can count it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from bandstand.streams.ageing import AgeingDict

__all__ = ["Passed", "Reward", "RewardIndex"]

# Best first: a reward that meets several decisions keeps the best of its verdicts. "accounted" is
# the verdict by a decision from before a restart: its outcome and its counts are out already.
_RANK = ("joined", "accounted", "duplicate", "late", "out_of_window", "unmatched")


class Passed(NamedTuple):
    """What is kept of a decision once its outcome is out."""

    ts: int
    due: int
    window_ms: int
    silent: bool


class Reward:
    """One valid reward and the best verdict on it so far."""

    __slots__ = (
        "awaited_until",
        "decision_id",
        "metadata",
        "name",
        "offset",
        "reward_id",
        "ts",
        "value",
        "verdict",
        "watermark",
    )

    def __init__(
        self,
        decision_id: bytes,
        reward_id: str,
        name: str,
        value: float,
        ts: int,
        offset: int,
        metadata: Mapping[str, str],
    ) -> None:
        self.decision_id = decision_id
        self.reward_id = reward_id
        self.name = name
        self.value = value
        self.ts = ts
        self.offset = offset
        self.metadata = metadata
        self.watermark: int | None = None
        self.awaited_until = ts
        self.verdict = "unmatched"

    def judge(self, verdict: str) -> bool:
        """Keep a verdict if it is better than those before; say whether it was."""
        if _RANK.index(verdict) >= _RANK.index(self.verdict):
            return False
        self.verdict = verdict
        return True


class RewardIndex:
    """Rewards by decision id, and the decisions that have passed.

    Parameters
    ----------
    lateness_ms, backward_ms
        The lane's, >= 0.
    """

    def __init__(self, lateness_ms: int, backward_ms: int) -> None:
        self._lateness_ms = lateness_ms
        self._backward_ms = backward_ms
        self._rewards: dict[bytes, list[Reward]] = {}
        self._passed = AgeingDict[bytes, tuple[Passed, ...]](span=lateness_ms)
        self._awaited: list[tuple[int, int, Reward]] = []

    def __len__(self) -> int:
        return len(self._awaited)

    def advance(self, watermark: int) -> None:
        """Follow the reward log's watermark."""
        self._passed.advance(watermark)

    def admit(self, reward: Reward, watermark: int | None) -> None:
        """Take a reward in, at the watermark of its position; None before the first tick."""
        reward.watermark = watermark
        for decision in self._passed.get(reward.decision_id) or ():
            self._judge_after_the_fact(reward, decision)
        self._rewards.setdefault(reward.decision_id, []).append(reward)
        reward.awaited_until = reward.ts + self._backward_ms + self._lateness_ms
        if watermark is not None:
            reward.awaited_until = max(reward.awaited_until, watermark)
        heapq.heappush(self._awaited, (reward.awaited_until, reward.offset, reward))

    def take(
        self, decision_id: bytes, decision: Passed, before: int | None, counts: Counter[str]
    ) -> list[Reward]:
        """Judge all rewards of a decision that is due, and give those that count for it."""
        counting: dict[str, Reward] = {}
        for reward in self._rewards.get(decision_id, ()):
            if before is not None and reward.awaited_until < before:
                continue
            verdict = self._verdict(reward, decision)
            if verdict == "joined" and counting.setdefault(reward.reward_id, reward) is not reward:
                verdict = "duplicate"
            if verdict is not None and reward.judge(verdict) and verdict == "joined":
                counts["joined"] += 1
        return list(counting.values())

    def remember(self, decision_id: bytes, decision: Passed) -> None:
        """Keep a passed decision for the rewards that come too late for it."""
        earlier = self._passed.get(decision_id)
        if earlier is None:
            self._passed[decision_id] = (decision,)
            return
        reachable = (other for other in earlier if other.due + self._lateness_ms > decision.due)
        self._passed[decision_id] = (*reachable, decision)

    def forget(self, decision_watermark: int, counts: Counter[str]) -> None:
        """Let go of the rewards that no decision after this tick can meet, and count them."""
        while self._awaited and self._awaited[0][0] < decision_watermark:
            _, _, reward = heapq.heappop(self._awaited)
            waiting = self._rewards[reward.decision_id]
            waiting.remove(reward)
            if not waiting:
                del self._rewards[reward.decision_id]
            if reward.verdict not in ("joined", "accounted"):
                counts[reward.verdict] += 1

    def _verdict(self, reward: Reward, decision: Passed) -> str | None:
        position = reward.watermark
        if position is not None and position >= decision.due + self._lateness_ms:
            return None
        if not -self._backward_ms <= reward.ts - decision.ts < decision.window_ms:
            return "out_of_window"
        if position is not None and position >= decision.due:
            return "late"
        return "joined"

    def _judge_after_the_fact(self, reward: Reward, decision: Passed) -> None:
        verdict = self._verdict(reward, decision)
        if verdict is not None:
            reward.judge("accounted" if decision.silent else verdict)
