"""Waiting for what other processes do, however slow the machine is just then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 120.0
"""Long, for it costs time in a test that fails only; how quick things are is for benchmarks."""
STOPS_WITHIN_S = 15.0
"""What docker-compose.yml gives a role that is told to stop; on a quiet machine it takes one."""


def until(
    condition: Callable[[], Any],
    what: str | Callable[[], str] = "what is awaited",
    within: float = PATIENCE_S,
) -> Any:
    """Wait until a condition holds, and give its value."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {within} s: {what if isinstance(what, str) else what()}")


def sleep_until(moment: float) -> None:
    """Wait for a moment of the monotonic clock that may be over."""
    time.sleep(max(moment - time.monotonic(), 0))
