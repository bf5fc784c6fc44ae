"""The rules of the join in their plainest form, over two complete logs; shares no code with it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Entry:
    """One record of a log: a tick (with window and grace) or an event."""

    time: int
    id: str | None = None
    reward_id: str = ""
    window: int = 0
    grace: int = 0

    @property
    def is_tick(self) -> bool:
        """Whether this is a tick."""
        return self.id is None


@dataclass
class Judged:
    """A decision that gives an outcome."""

    offset: int
    time: int
    id: str
    before: int | None
    due: int
    window: int
    rewards: list[int] = field(default_factory=list)


@dataclass
class Verdicts:
    """All outcomes, and the state of every decision and reward by offset."""

    outcomes: list[Judged]
    decisions: dict[int, str]
    rewards: dict[int, str]


def watermark_at(log: list[Entry], offset: int) -> int | None:
    """Give the largest tick before a position."""
    ticks = [entry.time for entry in log[:offset] if entry.is_tick]
    return max(ticks) if ticks else None


def next_tick(log: list[Entry], offset: int) -> Entry | None:
    """Give the first tick after a position."""
    return next((entry for entry in log[offset + 1 :] if entry.is_tick), None)


def judge(
    decisions: list[Entry], rewards: list[Entry], lateness: int, backward: int, skew: int
) -> Verdicts:
    """Apply the rules to two whole logs."""
    states: dict[int, str] = {}
    valid: dict[int, Judged] = {}
    for offset, entry in enumerate(decisions):
        tick = next_tick(decisions, offset)
        if entry.is_tick or tick is None:
            continue
        assert entry.id is not None
        before = watermark_at(decisions, offset)
        after = tick.time if before is None else max(before, tick.time)
        if (before is not None and entry.time < before - lateness) or entry.time > after + skew:
            states[offset] = "invalid"
        else:
            closes = entry.time + tick.window
            due = (closes if before is None else max(closes, before)) + tick.grace
            valid[offset] = Judged(offset, entry.time, entry.id, before, due, tick.window)
    for offset, decision in valid.items():
        if any(
            other.offset < offset
            and other.id == decision.id
            and (decision.before is None or other.time >= decision.before - lateness)
            for other in valid.values()
        ):
            states[offset] = "duplicate"
    end = watermark_at(rewards, len(rewards))
    outcomes = []
    for offset, decision in valid.items():
        if states.get(offset) == "duplicate":
            continue
        if end is None or decision.due > end:
            break
        outcomes.append(decision)
    rank = ["joined", "duplicate", "late", "out_of_window", "unmatched"]
    reward_states: dict[int, str] = {}
    for offset, reward in enumerate(rewards):
        tick = next_tick(rewards, offset)
        if reward.is_tick or tick is None:
            continue
        position = watermark_at(rewards, offset)
        limit = (tick.time if position is None else max(position, tick.time)) + skew
        reward_states[offset] = "invalid" if reward.time > limit else "unmatched"
    for decision in outcomes:
        taken: set[str] = set()
        for offset, state in reward_states.items():
            reward = rewards[offset]
            if state == "invalid" or reward.id != decision.id:
                continue
            position = watermark_at(rewards, offset)
            awaited_until = reward.time + backward + lateness
            if position is not None:
                awaited_until = max(awaited_until, position)
                if position >= decision.due + lateness:
                    continue
            if decision.before is not None and awaited_until < decision.before:
                continue
            if not -backward <= reward.time - decision.time < decision.window:
                verdict = "out_of_window"
            elif position is not None and position >= decision.due:
                verdict = "late"
            elif reward.reward_id in taken:
                verdict = "duplicate"
            else:
                verdict = "joined"
                taken.add(reward.reward_id)
                decision.rewards.append(offset)
            if rank.index(verdict) < rank.index(reward_states[offset]):
                reward_states[offset] = verdict
        states[decision.offset] = "joined" if decision.rewards else "defaulted"
    return Verdicts(outcomes, states, reward_states)
