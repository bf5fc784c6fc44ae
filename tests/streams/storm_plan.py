"""What breaks when: the faults of a storm, drawn from a seed and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Fault", "Group", "Kind", "kinds", "plan", "slots_at_start"]

_STARTS_S = (0.3, 2.5)


class Group(NamedTuple):
    """Processes of one role, all alike.

    Parameters
    ----------
    name
        What one is called.
    at_start, most
        How many run when the storm begins, which is also the least; and the most.
    """

    name: str
    at_start: int = 2
    most: int = 3


class Kind(NamedTuple):
    """What can happen.

    Parameters
    ----------
    act
        ``kill``, ``kill all``, ``freeze``, ``add`` or ``remove``.
    group
        Whose processes it is about; empty: nobody's.
    broker
        Whether it is about the broker.
    lasts
        Seconds, least and most, until what was killed is started again, or what was frozen goes on.
        Sessions last one second: every frozen process is a zombie when it goes on.
    """

    act: str
    group: str
    broker: bool
    lasts: tuple[float, float]

    def __str__(self) -> str:
        whom = [f"{self.group}s" if self.act == "kill all" else self.group] if self.group else []
        return f"{self.act} {' and '.join(whom + ['broker'] * self.broker)}"


class Fault(NamedTuple):
    """One thing that goes wrong.

    Parameters
    ----------
    kind
        One of `kinds`.
    at
        Seconds from the start of its round.
    lasts
        Seconds, see `Kind`.
    slots
        The processes that it is about; one that replaces a killed one takes its slot.
    """

    kind: Kind
    at: float
    lasts: float
    slots: tuple[int, ...]

    def __str__(self) -> str:
        about = [f"{self.kind.group} {n}" for n in self.slots] + ["broker"] * self.kind.broker
        return f"{self.kind} ({', '.join(about)}) at {self.at:.2f} s for {self.lasts:.2f} s"


def kinds(groups: Sequence[Group]) -> list[Kind]:
    """Give all that can happen to these groups and the broker beside them."""
    found = []
    for act, alone, broker, lasts in (
        ("kill", False, False, (0.0, 2.0)),
        ("kill all", False, False, (0.0, 1.5)),
        ("kill", True, True, (0.0, 1.5)),
        ("kill", False, True, (0.0, 1.5)),
        ("freeze", False, False, (1.5, 4.0)),
        ("freeze", True, True, (0.5, 3.0)),
        ("add", False, False, (0.0, 0.0)),
        ("remove", False, False, (0.0, 0.0)),
    ):
        names = [""] if alone else [group.name for group in groups]
        found += [Kind(act, name, broker, lasts) for name in names]
    return found


def slots_at_start(groups: Sequence[Group]) -> dict[str, tuple[int, ...]]:
    """Give the numbers of the processes that run when the storm begins."""
    slots, next_slot = {}, 0
    for group in groups:
        slots[group.name] = tuple(range(next_slot, next_slot + group.at_start))
        next_slot += group.at_start
    return slots


def plan(seed: int, rounds: int, groups: Sequence[Group]) -> list[tuple[Fault, ...]]:
    """Draw the faults of each round: one, or two that overlap.

    Kinds come from a bag that is filled anew when nothing in it can happen, so that a few rounds
    have all of them.

    Parameters
    ----------
    seed, rounds
        The first rounds of a longer plan with the same seed are those of a shorter one.
    groups
        Whose processes there are.
    """
    draw = random.Random(seed)
    slots = slots_at_start(groups)
    next_slot = sum(map(len, slots.values()))
    bag: list[Kind] = []
    planned = []
    for _ in range(rounds):
        faults: list[Fault] = []
        for _ in range(draw.choice((1, 2))):
            taken = {slot for fault in faults for slot in fault.slots}
            free = {name: [n for n in mine if n not in taken] for name, mine in slots.items()}
            broker = not any(fault.kind.broker for fault in faults)
            fit = [kind for kind in bag if _possible(kind, groups, slots, free, broker)]
            if not fit and not faults:
                every = kinds(groups)
                bag += draw.sample(every, len(every))
                fit = [kind for kind in bag if _possible(kind, groups, slots, free, broker)]
            if not fit:
                break
            chosen = fit[0]
            bag.remove(chosen)
            about = _about(chosen, free, next_slot, draw)
            faults.append(
                Fault(chosen, draw.uniform(*_STARTS_S), draw.uniform(*chosen.lasts), about)
            )
            if chosen.act == "add":
                slots[chosen.group], next_slot = (*slots[chosen.group], next_slot), next_slot + 1
            elif chosen.act == "remove":
                slots[chosen.group] = tuple(n for n in slots[chosen.group] if n not in about)
        planned.append(tuple(sorted(faults, key=lambda fault: fault.at)))
    return planned


def _possible(
    kind: Kind,
    groups: Sequence[Group],
    slots: dict[str, tuple[int, ...]],
    free: dict[str, list[int]],
    broker: bool,
) -> bool:
    if kind.broker and not broker:
        return False
    if not kind.group:
        return True
    [group] = [group for group in groups if group.name == kind.group]
    mine, unharmed = slots[kind.group], free[kind.group]
    if kind.act == "add":
        return len(mine) < group.most
    if kind.act == "remove":
        return len(mine) > group.at_start and bool(unharmed)
    return len(unharmed) == len(mine) if kind.act == "kill all" else bool(unharmed)


def _about(
    kind: Kind, free: dict[str, list[int]], next_slot: int, draw: random.Random
) -> tuple[int, ...]:
    if kind.act == "add":
        return (next_slot,)
    if kind.act == "kill all":
        return tuple(free[kind.group])
    return (draw.choice(free[kind.group]),) if kind.group else ()
