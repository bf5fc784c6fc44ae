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
from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

from bandstand.streams import splice
from bandstand.streams.decision_table import DecisionTable, Prints

__all__ = ["Judged", "Reward", "RewardIndex"]

# Best first: a reward that meets several decisions keeps the best of its verdicts.
_BEST_FIRST = ("joined", "duplicate", "late", "out_of_window", "unmatched")
_RANK = {verdict: rank for rank, verdict in enumerate(_BEST_FIRST)}


class Judged(NamedTuple):
    """What the verdict on a reward depends on in a decision."""

    ts: int
    due: int
    window_ms: int


class Reward:
    """One valid reward and the best verdict on it so far.

    Parameters
    ----------
    decision_id
        The record's key.
    ts
        Event time, milliseconds.
    offset
        In the reward log.
    part
        What an outcome says of it, as bytes: millions may wait for as long as a window.
    """

    __slots__ = ("awaited_until", "decision_id", "offset", "part", "ts", "verdict", "watermark")

    def __init__(self, decision_id: bytes, ts: int, offset: int, part: bytes) -> None:
        self.decision_id = decision_id
        self.ts = ts
        self.offset = offset
        self.part = part
        self.watermark: int | None = None
        self.awaited_until = ts
        self.verdict = "unmatched"

    @property
    def reward_id(self) -> bytes:
        """Identity of the reward, as UTF-8."""
        return splice.reward_id(self.part)

    def judge(self, verdict: str) -> bool:
        """Keep a verdict if it is better than those before; say whether it was."""
        if _RANK[verdict] >= _RANK[self.verdict]:
            return False
        self.verdict = verdict
        return True


class RewardIndex:
    """Rewards by decision id, judged by decisions that are due and by those that have passed.

    Parameters
    ----------
    lateness_ms, backward_ms
        The lane's, >= 0.
    table
        The decisions that the decision cursor has seen.
    counted_until
        Rewards that no decision awaits after this tick are in somebody else's accounts; None: none.
    """

    def __init__(
        self,
        lateness_ms: int,
        backward_ms: int,
        table: DecisionTable,
        counted_until: int | None = None,
    ) -> None:
        self._lateness_ms = lateness_ms
        self._backward_ms = backward_ms
        self._table = table
        self._counted_until = counted_until
        self._rewards: dict[bytes, list[Reward]] = {}
        self._awaited: list[tuple[int, int, Reward]] = []
        self._joined = 0
        self.passed = 0
        """Decisions of the table, in its order, whose outcome is out."""

    def __len__(self) -> int:
        return len(self._awaited)

    @property
    def uncounted(self) -> int:
        """Rewards whose state isn't final."""
        return len(self._awaited) - self._joined

    def admit(self, rewards: Sequence[Reward], watermark: int | None) -> None:
        """Take rewards in, at the watermark of their positions; None before the first tick."""
        for reward in rewards:
            reward.watermark = watermark
            self._rewards.setdefault(reward.decision_id, []).append(reward)
            reward.awaited_until = reward.ts + self._backward_ms + self._lateness_ms
            if watermark is not None:
                reward.awaited_until = max(reward.awaited_until, watermark)
            heapq.heappush(self._awaited, (reward.awaited_until, reward.offset, reward))
        seen = self._table.contains(Prints.of([reward.decision_id for reward in rewards]))
        for row in seen.nonzero()[0].tolist():
            self._judge_after_the_fact(rewards[row])

    def awaiting(self, decision_ids: Sequence[bytes]) -> list[int]:
        """Give which of these decisions, by place, rewards are there for."""
        there = map(self._rewards.__contains__, decision_ids)
        return list(compress(range(len(decision_ids)), there))

    def take(
        self,
        decision_id: bytes,
        decision: Judged,
        before: int | None,
        counts: Counter[str] | None,
    ) -> list[Reward]:
        """Judge all rewards of a decision that is due, and give those that count for it.

        Parameters
        ----------
        decision_id, decision, before
            The decision, and the largest tick before it.
        counts
            Where a reward that joins is counted; None: it is in somebody else's accounts.
        """
        counting: dict[bytes, Reward] = {}
        waiting = self._rewards.get(decision_id, ())
        alone = len(waiting) == 1
        for reward in waiting:
            if before is not None and reward.awaited_until < before:
                continue
            verdict = self._verdict(reward, decision)
            if verdict == "joined":
                which = b"" if alone else reward.reward_id
                if counting.setdefault(which, reward) is not reward:
                    verdict = "duplicate"
            if verdict is not None and reward.judge(verdict) and verdict == "joined":
                self._joined += 1
                if counts is not None:
                    counts["joined"] += 1
        return list(counting.values())

    def forget(self, decision_watermark: int, counts: Counter[str]) -> None:
        """Let go of the rewards that no decision after this tick can meet, and count them."""
        while self._awaited and self._awaited[0][0] < decision_watermark:
            until, _, reward = heapq.heappop(self._awaited)
            waiting = self._rewards[reward.decision_id]
            waiting.remove(reward)
            if not waiting:
                del self._rewards[reward.decision_id]
            if reward.verdict == "joined":
                self._joined -= 1
            elif self._counted_until is None or until >= self._counted_until:
                counts[reward.verdict] += 1

    def _verdict(self, reward: Reward, decision: Judged) -> str | None:
        position = reward.watermark
        if position is not None and position >= decision.due + self._lateness_ms:
            return None
        if not -self._backward_ms <= reward.ts - decision.ts < decision.window_ms:
            return "out_of_window"
        if position is not None and position >= decision.due:
            return "late"
        return "joined"

    def _judge_after_the_fact(self, reward: Reward) -> None:
        for known in self._table.find(reward.decision_id):
            if known.number < self.passed and not known.repeat:
                verdict = self._verdict(reward, Judged(known.ts, known.due, known.window_ms))
                if verdict is not None:
                    reward.judge(verdict)
