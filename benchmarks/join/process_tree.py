"""What a process and all below it have cost, from Linux's /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Cost", "cost"]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CPU = slice(13, 17)
"""User and system time of a process, and of those of its children that it has waited for."""

_SIZES = ("VmHWM:", "VmRSS:")


class Cost(NamedTuple):
    """What processes have used."""

    cpu_s: float
    """CPU seconds, user and system."""
    peak_mb: float
    """Sum of each one's largest resident memory, MB; 0 where one has ended."""
    now_mb: float = 0.0
    """Sum of each one's resident memory at this moment, MB."""


def cost(roots: Iterable[int]) -> Cost:
    """Add up what these processes and their children have used so far."""
    cpu = peak = now = 0.0
    for pid in (pid for root in roots for pid in _tree(root)):
        try:
            cpu += sum(map(int, _stat(pid)[_CPU])) / _TICKS_PER_S
            largest, present = _memory_kb(pid)
            peak, now = peak + largest / 1e3, now + present / 1e3
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile; its parent's figures have its time
    return Cost(cpu, peak, now)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(c) for t in threads for c in (t / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from _tree(child)


def _stat(pid: int) -> list[str]:
    head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return [*head.split(" (", 1), *tail.split()]


def _memory_kb(pid: int) -> tuple[int, int]:
    # Not `ru_maxrss`: that of a child begins with what its parent had when it was forked.
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith(_SIZES)}
    return found.get("VmHWM:", 0), found.get("VmRSS:", 0)
