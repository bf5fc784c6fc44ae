"""What a storm asks of that which stands in it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from tests.streams.bench import Bench, Worker
from tests.streams.storm_follower import Arrival
from tests.streams.storm_plan import Group

__all__ = ["Play", "Scene", "at_work"]


@contextmanager
def at_work(*jobs: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do jobs, each in a thread, while the block runs; each is told to stop, and waited for."""
    stop = threading.Event()
    threads = [threading.Thread(target=job, args=(stop,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class Scene(ABC):
    """What is sent in a storm, and what must come of it."""

    topics: Sequence[str]
    """Names of the topics to be followed from their start."""

    @abstractmethod
    def sending(self) -> AbstractContextManager[None]:
        """Send while the block runs; at its end everything is delivered."""

    def outage(self) -> AbstractContextManager[None]:
        """Note that the broker is away while the block runs."""
        return nullcontext()

    @abstractmethod
    def struck(self, kind: str, at: float, workers: Sequence[Worker] | None) -> None:
        """Measure how long a fault is felt that is alone in its round.

        Parameters
        ----------
        kind
            Its name.
        at
            When it began, seconds of the monotonic clock.
        workers
            Those that are gone; None for everybody.
        """

    @abstractmethod
    def take(self, arrivals: Iterable[Arrival]) -> None:
        """Check what came.

        Raises
        ------
        DifferenceError
            At the first thing that isn't as it must be.
        """

    @property
    @abstractmethod
    def unfinished(self) -> str:
        """What is still to come; empty where nothing is."""

    @abstractmethod
    def close_round(self) -> None:
        """Check that all accounts close, once nothing is unfinished.

        Raises
        ------
        DifferenceError
            If one doesn't.
        """

    @abstractmethod
    def check_from_scratch(self) -> None:
        """Let new cores read the whole topics at once: they must come to the same.

        Raises
        ------
        DifferenceError
            If they don't.
        """

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Give what was sent and found, for a report."""


class Play(NamedTuple):
    """A kind of storm.

    Parameters
    ----------
    name
        Its command, ``make NAME``.
    about
        What it does, for the command line.
    groups
        The processes that run.
    commands
        How one of each group is started.
    settings
        Environment variables of all.
    ready
        What the first process says in its log once the storm may begin.
    stage
        Sets the scene: from the lane and the storm's seed.
    """

    name: str
    about: str
    groups: tuple[Group, ...]
    commands: Mapping[str, Sequence[str]]
    settings: Mapping[str, str]
    ready: str
    stage: Callable[[Bench, int], Scene]
