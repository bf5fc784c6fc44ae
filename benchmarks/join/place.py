"""Where a contestant runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.join.workload import Topics, Traffic

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """Where a contestant runs.

    Parameters
    ----------
    servers
        The broker.
    prefix
        Of the run's own topics; also the name of its consumer group.
    topics
        What it reads and where it writes.
    folder
        Its own, empty.
    traffic
        What it reads there, and how it has to join that.
    """

    servers: str
    prefix: str
    topics: Topics
    folder: Path
    traffic: Traffic
