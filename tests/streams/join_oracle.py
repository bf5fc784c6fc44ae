"""The rules of the join in their plainest form, over two logs; shares no code with the join.

A log is a list of entries, as far as it was read. All that is said follows from the two lists:
which outcomes there are, byte for byte, and the state of every decision and every reward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Entry", "Lane", "Outcome", "Verdicts", "judge"]

BEST_FIRST = ("joined", "duplicate", "late", "out_of_window", "unmatched")
"""Which verdict stays on a reward that meets several decisions of its id."""

Encode = Callable[[Mapping[str, Any]], bytes]


class Lane(NamedTuple):
    """What is a lane's for good; milliseconds and bytes."""

    lateness: int
    backward: int
    skew: int
    max_outcome_bytes: int


@dataclass(frozen=True)
class Entry:
    """One record of a log: a tick, with the settings in force, or an event."""

    offset: int
    time: int
    id: str = ""
    reward_id: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    """What an outcome shows of the event."""
    fault: str | None = None
    """Why nobody can use the record, whatever its time."""
    settings: tuple[int, int] | None = None
    """A tick's window and grace."""


class Placed(NamedTuple):
    """An event, the largest tick before it, and the next tick record; None: there is none yet."""

    entry: Entry
    before: int | None
    next: Entry | None


@dataclass
class Decision:
    """A decision that gives an outcome, and the rewards that count for it."""

    entry: Entry
    before: int | None
    window: int
    grace: int
    rewards: list[Entry] = field(default_factory=list)

    @property
    def due(self) -> int:
        """When its outcome may leave."""
        closes = self.entry.time + self.window
        return (closes if self.before is None else max(closes, self.before)) + self.grace


class Outcome(NamedTuple):
    """A record of the outcome topic."""

    key: bytes
    timestamp: int
    value: bytes


@dataclass
class Verdicts:
    """All outcomes in their order, and the state of every decision and reward by offset."""

    outcomes: list[Outcome]
    decisions: dict[int, str]
    rewards: dict[int, str]
    refused: set[tuple[str, int, str]]
    """Log, offset and reason of every dead letter."""


def judge(decisions: list[Entry], rewards: list[Entry], lane: Lane, encode: Encode) -> Verdicts:
    """Apply the rules to two logs.

    Parameters
    ----------
    decisions, rewards
        What was read of each.
    lane
        Its settings for good.
    encode
        Gives the bytes of an outcome.
    """
    verdicts = Verdicts([], {}, {}, set())
    distinct = judge_clocks_and_repeats(decisions, lane, verdicts)
    reached = watermark(rewards)
    emitted = []
    for decision in distinct:
        if reached is None or reached < decision.due:
            break  # those behind it wait too: outcomes leave in log order
        emitted.append(decision)
    judge_rewards(rewards, emitted, lane, verdicts)
    for decision in emitted:
        write(decision, lane, encode, verdicts)
    first_open = (p for p in placed(decisions) if verdicts.decisions[p.entry.offset] == "open")
    stands = next((p.before for p in first_open), watermark(decisions))
    keep_open(rewards, stands, lane, verdicts)
    return verdicts


def placed(log: Iterable[Entry]) -> list[Placed]:
    """Give the events of a log, in order, with the ticks around them."""
    before: int | None = None
    between: list[Entry] = []
    result = []
    for entry in log:
        if entry.settings is None:
            between.append(entry)
        else:
            result += [Placed(event, before, entry) for event in between]
            between = []
            before = entry.time if before is None else max(before, entry.time)
    return result + [Placed(event, before, None) for event in between]


def watermark(log: Iterable[Entry]) -> int | None:
    """Give the largest tick of a log."""
    return max((entry.time for entry in log if entry.settings is not None), default=None)


def after(event: Placed) -> int:
    """Give the next tick's time, or the largest one before where that is larger."""
    assert event.next is not None
    return event.next.time if event.before is None else max(event.before, event.next.time)


def judge_clocks_and_repeats(log: list[Entry], lane: Lane, verdicts: Verdicts) -> list[Decision]:
    """Tell which decisions are invalid or duplicates, and give the others with a next tick."""
    valid: dict[str, list[int]] = defaultdict(list)
    distinct = []
    for event in placed(log):
        entry, before = event.entry, event.before
        earliest = None if before is None else before - lane.lateness
        if entry.fault is not None:
            refuse(verdicts, "decisions", entry, entry.fault)
        elif event.next is None:
            verdicts.decisions[entry.offset] = "open"
        elif (earliest is not None and entry.time < earliest) or (
            entry.time > after(event) + lane.skew
        ):
            refuse(verdicts, "decisions", entry, "clock")
        else:
            if any(earliest is None or time >= earliest for time in valid[entry.id]):
                verdicts.decisions[entry.offset] = "duplicate"
            else:
                verdicts.decisions[entry.offset] = "open"
                window, grace = event.next.settings or (0, 0)
                distinct.append(Decision(entry, before, window, grace))
            valid[entry.id].append(entry.time)
    return distinct


def judge_rewards(
    log: list[Entry], emitted: list[Decision], lane: Lane, verdicts: Verdicts
) -> None:
    """Give every reward the best verdict that a decision with an outcome has on it."""
    of_id: dict[str, list[Placed]] = defaultdict(list)
    for reward in placed(log):
        entry = reward.entry
        if entry.fault is not None:
            refuse(verdicts, "rewards", entry, entry.fault)
        elif reward.next is None:
            verdicts.rewards[entry.offset] = "open"
        elif entry.time > after(reward) + lane.skew:
            refuse(verdicts, "rewards", entry, "clock")
        else:
            verdicts.rewards[entry.offset] = "unmatched"
            of_id[entry.id].append(reward)
    for decision in emitted:
        for reward in of_id[decision.entry.id]:
            verdict = verdict_of(decision, reward, lane)
            if verdict == "joined":
                if reward.entry.reward_id in {other.reward_id for other in decision.rewards}:
                    verdict = "duplicate"
                else:
                    decision.rewards.append(reward.entry)
            so_far = verdicts.rewards[reward.entry.offset]
            verdicts.rewards[reward.entry.offset] = min(verdict, so_far, key=BEST_FIRST.index)


def verdict_of(decision: Decision, reward: Placed, lane: Lane) -> str:
    """Say what a reward is to one decision of its id, if it is no repeat."""
    position = reward.before
    if position is not None and position >= decision.due + lane.lateness:
        return "unmatched"
    if decision.before is not None and decision.before > awaited_until(reward, lane):
        return "unmatched"
    if not -lane.backward <= reward.entry.time - decision.entry.time < decision.window:
        return "out_of_window"
    if position is not None and position >= decision.due:
        return "late"
    return "joined"


def awaited_until(reward: Placed, lane: Lane) -> int:
    """Give the largest tick before a decision that the reward can meet."""
    longest = reward.entry.time + lane.backward + lane.lateness
    return longest if reward.before is None else max(longest, reward.before)


def write(decision: Decision, lane: Lane, encode: Encode, verdicts: Verdicts) -> None:
    """Add the outcome of a decision, or its stub where it would be too large."""
    entry = decision.entry
    fields = {
        "state": "joined" if decision.rewards else "defaulted",
        "source_offset": entry.offset,
        "before": decision.before,
        "window_ms": decision.window,
        "backward_ms": lane.backward,
        "grace_ms": decision.grace,
        "rewards": [{**reward.content, "offset": reward.offset} for reward in decision.rewards],
        "decision": entry.content,
    }
    key, value = entry.id.encode(), encode(fields)
    if len(key) + len(value) > lane.max_outcome_bytes:
        fields |= {"state": "oversize", "rewards": [], "decision": None}
        value = encode(fields)
    verdicts.decisions[entry.offset] = str(fields["state"])
    verdicts.outcomes.append(Outcome(key, entry.time, value))


def keep_open(log: list[Entry], stands: int | None, lane: Lane, verdicts: Verdicts) -> None:
    """Take back the verdicts that a decision still to come could better."""
    for reward in placed(log):
        offset = reward.entry.offset
        if verdicts.rewards[offset] not in ("joined", "invalid") and (
            stands is None or awaited_until(reward, lane) >= stands
        ):
            verdicts.rewards[offset] = "open"


def refuse(verdicts: Verdicts, log: str, entry: Entry, reason: str) -> None:
    """Note an invalid record."""
    states = verdicts.decisions if log == "decisions" else verdicts.rewards
    states[entry.offset] = "invalid"
    verdicts.refused.add((log, entry.offset, reason))
