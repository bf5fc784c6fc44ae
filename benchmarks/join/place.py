"""Where a contestant runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.join.workload import Topics

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
    """

    servers: str
    prefix: str
    topics: Topics
    folder: Path
