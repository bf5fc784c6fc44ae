"""What breaks when: the faults of a storm, drawn from a seed and from nothing else."""

from __future__ import annotations

import random
from typing import NamedTuple

__all__ = ["KINDS", "MOST_WORKERS", "SLOTS_AT_START", "Fault", "plan"]

SLOTS_AT_START = (0, 1)
MOST_WORKERS = 3
_STARTS_S = (0.3, 2.5)

KINDS = {
    "kill worker": (0.0, 2.0),
    "kill all workers": (0.0, 1.5),
    "kill broker": (0.0, 1.5),
    "kill worker and broker": (0.0, 1.5),
    "freeze worker": (1.5, 4.0),
    "freeze broker": (0.5, 3.0),
    "add worker": (0.0, 0.0),
    "remove worker": (0.0, 0.0),
}
"""What can happen, and for how many seconds what is dead stays dead or what is frozen frozen.

A worker's session is one second: every frozen one is a zombie when it goes on.
"""


class Fault(NamedTuple):
    """One thing that goes wrong.

    Parameters
    ----------
    kind
        One of `KINDS`.
    at
        Seconds from the start of its round.
    lasts
        Seconds until what was killed is started again, and what was frozen goes on.
    slots
        The workers that it is about; a worker that replaces a killed one takes its slot.
    broker
        Whether it is about the broker.
    """

    kind: str
    at: float
    lasts: float
    slots: tuple[int, ...]
    broker: bool

    def __str__(self) -> str:
        about = [f"worker {slot}" for slot in self.slots] + ["broker"] * self.broker
        return f"{self.kind} ({', '.join(about)}) at {self.at:.2f} s for {self.lasts:.2f} s"


def plan(seed: int, rounds: int) -> list[tuple[Fault, ...]]:
    """Draw the faults of each round: one, or two that overlap.

    Kinds come from a bag that is filled anew when nothing in it can happen, so that a few rounds
    have all of them.

    Parameters
    ----------
    seed, rounds
        The first rounds of a longer plan with the same seed are those of a shorter one.
    """
    draw = random.Random(seed)
    slots, next_slot = list(SLOTS_AT_START), len(SLOTS_AT_START)
    bag: list[str] = []
    planned = []
    for _ in range(rounds):
        faults: list[Fault] = []
        for _ in range(draw.choice((1, 2))):
            free = [slot for slot in slots if not any(slot in fault.slots for fault in faults)]
            broker = not any(fault.broker for fault in faults)
            chosen = next((kind for kind in bag if _possible(kind, slots, free, broker)), None)
            if chosen is None and not faults:
                bag += draw.sample(list(KINDS), len(KINDS))
                chosen = next(kind for kind in bag if _possible(kind, slots, free, broker))
            if chosen is None:
                break
            bag.remove(chosen)
            about = _about(chosen, free, next_slot, draw)
            at, lasts = draw.uniform(*_STARTS_S), draw.uniform(*KINDS[chosen])
            faults.append(Fault(chosen, at, lasts, about, "broker" in chosen))
            if chosen == "add worker":
                slots, next_slot = [*slots, next_slot], next_slot + 1
            elif chosen == "remove worker":
                slots = [slot for slot in slots if slot not in about]
        planned.append(tuple(sorted(faults, key=lambda fault: fault.at)))
    return planned


def _possible(kind: str, slots: list[int], free: list[int], broker: bool) -> bool:
    if kind == "add worker":
        return len(slots) < MOST_WORKERS
    if kind == "remove worker":
        return len(slots) > len(SLOTS_AT_START) and bool(free)
    if kind == "kill all workers":
        return free == slots
    return (broker or "broker" not in kind) and (bool(free) or "worker" not in kind)


def _about(kind: str, free: list[int], next_slot: int, draw: random.Random) -> tuple[int, ...]:
    if kind == "add worker":
        return (next_slot,)
    if kind == "kill all workers":
        return tuple(free)
    return (draw.choice(free),) if "worker" in kind else ()
