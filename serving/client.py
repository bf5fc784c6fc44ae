"""Decisions in a service's own process: the client that the service holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

from prometheus_client import Counter

from bandstand.errors import DecisionError
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.serving.bootstrap import read_snapshots, write_snapshot
from bandstand.serving.choosing import Drawn, choose
from bandstand.serving.encoding import Layouts
from bandstand.serving.event_times import FutureLimits
from bandstand.serving.ids import TimeOrderedIds
from bandstand.serving.metrics import DECIDE_SECONDS, DECISIONS
from bandstand.serving.models import Fallback, Model, uniform_model
from bandstand.serving.sender import Sender, header_of
from bandstand.serving.subscriber import Subscriber
from bandstand.settings import Settings, load_settings

__all__ = ["Client", "Decision"]

_ONE_IN_SIXTEEN: Final = 0xF


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice, as the service gets it.

    Parameters
    ----------
    decision_id
        Its identity: what rewards refer to. A UUIDv7.
    bandit
        Name of the bandit that decided.
    action
        What to do.
    propensity
        Probability, in (0, 1], with which this action was drawn.
    probabilities
        Of each eligible action, in [0, 1]; they sum to 1.
    version
        Version of the snapshot that chose; empty where there was none.
    age
        Time since that snapshot was published, by this machine's clock, never negative; of a
        bootstrap file, since it was published before it was saved. None where there was none.
    fallback
        Which step of the ladder answered:

        - ``live``: the current snapshot; Kafka was heard from within ``serve.stale_after``;
        - ``last_good``: the last snapshot that could be used, because Kafka hasn't been heard from
          for that long, or because the current one can't be read;
        - ``bootstrap``: a snapshot from a file, because none has come from Kafka yet;
        - ``default``: each of the given actions equally often, because there is no snapshot.
    logged
        Whether it was taken into the queue to Kafka. If not, nothing will be learned from it.
    """

    decision_id: str
    bandit: str
    action: str
    propensity: float
    probabilities: Mapping[str, float]
    version: str
    age: timedelta | None
    fallback: Fallback
    logged: bool


class Client:
    """Decides from the newest snapshots, which it follows in the background; thread-safe.

    Make one a process, after any fork, and close it at the end. Nothing in `decide` waits for Kafka
    or for a disk; a service starts and decides without either (see ``fallback`` of `Decision`).

    Parameters
    ----------
    settings
        By default those of the environment and ``bandstand.toml``.
    bootstrap
        Snapshot file written by `save_snapshot`, or a folder of ``*.snapshot`` files, to begin with
        until Kafka answers.
    lane
        Lane that decisions without a snapshot are logged to; all others go to their snapshot's.
    clock
        Gives the event time, seconds since 1970, UTC.
    seeds
        Gives the seed of each draw, 0 <= seed < 2^63; by default at random.

    Raises
    ------
    SettingsError
        If the settings are wrong.
    StateError
        If a bootstrap file can't be used.

    Examples
    --------
    ::

        with Client() as client:
            client.wait_ready("homepage", timeout=10)
            decision = client.decide("homepage", subject="user-17", context={"age": 41})
            show(decision.action)
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bootstrap: Path | None = None,
        lane: str = "default",
        clock: Callable[[], float] = time.time,
        seeds: Callable[[], int] | None = None,
    ) -> None:
        settings = load_settings() if settings is None else settings
        self._lane = lane
        self._clock = clock
        self._seeds = seeds or partial(Random().getrandbits, 63)
        self._ids = TimeOrderedIds()
        self._layouts = Layouts()
        self._counters: dict[tuple[str, Fallback], Counter] = {}
        self._topics = TopicNames(settings.topics.prefix)
        self._limits = FutureLimits(settings)
        self._wire = wire_from(settings)
        self._header = header_of(self._wire, "decision")
        models = {} if bootstrap is None else read_snapshots(bootstrap, self._layouts)
        self._sender = Sender(settings, "decisions", patience=_patience(settings))
        self._subscriber = Subscriber(settings, self._wire, models, self._layouts, clock)

    def decide(
        self,
        bandit: str,
        subject: str,
        context: Mapping[str, object] | None = None,
        actions: Sequence[str] | None = None,
    ) -> Decision:
        """Choose an action, and log that.

        Parameters
        ----------
        bandit
            Name of the bandit.
        subject
            Whom or what the choice is for, e.g. a user id.
        context
            What is known about the subject: name to finite number, truth value or string. All of it
            is logged; the snapshot's features are used.
        actions
            Actions to choose from, each once; by default all of the spec.

        Raises
        ------
        DecisionError
            If there is neither a snapshot nor actions; if an action is unknown, or a value of the
            context can't be used; if the client is closed, or was made before a fork.
        """
        seed = self._seeds()
        started = None if seed & _ONE_IN_SIXTEEN else time.perf_counter()
        if self._sender.ended is not None:
            raise DecisionError(f"this client can't decide: {self._sender.ended}")
        if not isinstance(subject, str):
            raise DecisionError(f"subject is {subject!r}; allowed: a string, e.g. a user id")
        try:
            model = self._subscriber.models.get(bandit) or self._without_snapshot(bandit, actions)
            drawn = choose(model.policy, context, model.eligible(actions), seed)
            decision = self._log(model, drawn, subject)
        except UnicodeEncodeError as error:
            raise DecisionError(
                f"{error.object!r} has half of a surrogate pair and can't be logged; give whole"
                " characters"
            ) from None
        self._count(bandit, decision.fallback)
        if started is not None:
            DECIDE_SECONDS.labels(bandit).observe(time.perf_counter() - started)
        return decision

    def wait_ready(self, bandit: str, timeout: float = 10.0) -> None:
        """Wait until all snapshots that are in Kafka have come, and one of a bandit is among them.

        Parameters
        ----------
        bandit
            Name of the bandit.
        timeout
            Seconds to wait at most, >= 0.

        Raises
        ------
        DecisionError
            If none came in time; says what is in the way.
        """
        if not self._subscriber.wait(bandit, timeout):
            known = ", ".join(sorted(self._subscriber.models)) or "none"
            raise DecisionError(
                f"no snapshot of bandit {bandit!r} came within {timeout:g} s; known: {known}; "
                f"{self._subscriber.trouble or 'the snapshots topic has none of it'}; see that its "
                "spec is applied ('bandstand apply') and that 'bandstand publish' runs"
            )

    def save_snapshot(self, bandit: str, path: Path) -> None:
        """Write the current snapshot of a bandit to a file, for `bootstrap`.

        Parameters
        ----------
        bandit
            Name of the bandit.
        path
            The file, ``*.snapshot`` where a folder of them is used; replaced whole if it is there.

        Raises
        ------
        DecisionError
            If none has come from Kafka yet.
        """
        artifact = self._subscriber.artifact(bandit)
        if artifact is None:
            raise DecisionError(
                f"no snapshot of bandit {bandit!r} has come from Kafka; call wait_ready first"
            )
        record = self._wire.loads("snapshot", artifact.value)
        write_snapshot(path, record, published=artifact.timestamp / 1000)

    def flush(self, timeout: float = 5.0) -> int:
        """Wait until all decisions are in Kafka; give how many are still on their way.

        Parameters
        ----------
        timeout
            Seconds to wait at most, >= 0.
        """
        return self._sender.flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Send what is queued, as far as that goes within the time, and end.

        Parameters
        ----------
        timeout
            Seconds to wait at most, >= 0.
        """
        deadline = time.monotonic() + timeout
        self._sender.close(timeout)
        self._subscriber.close(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _count(self, bandit: str, fallback: Fallback) -> None:
        counter = self._counters.get((bandit, fallback))
        if counter is None:
            counter = self._counters[bandit, fallback] = DECISIONS.labels(bandit, fallback)
        counter.inc()

    def _without_snapshot(self, bandit: str, actions: Sequence[str] | None) -> Model:
        known = tuple(self._subscriber.models)
        return uniform_model(bandit, self._lane, actions, known, self._layouts)

    def _log(self, model: Model, drawn: Drawn, subject: str) -> Decision:
        now = self._clock()
        ts = int(now * 1000)
        if fault := self._limits.fault(ts, model.lane):
            raise DecisionError(f"this decision can't be logged: {fault}")
        decision_id = self._ids.make(ts)
        step = model.step
        if step == "live" and time.monotonic() > self._subscriber.live_until:
            step = "last_good"
        body = model.encoder.encode(
            drawn, decision_id=decision_id, subject=subject, ts=ts, fallback=step
        )
        published = model.published
        return Decision(
            decision_id,
            model.bandit,
            drawn.action,
            drawn.propensity,
            dict(zip(drawn.eligible, drawn.probabilities, strict=True)),
            model.version,
            None if published is None else timedelta(seconds=max(0.0, now - published)),
            step,
            self._sender.send(
                self._topics.decisions(model.lane), decision_id.encode(), self._header + body, ts
            ),
        )


def _patience(settings: Settings) -> timedelta:
    """Give how long a decision may wait for its broker: after that no join would take it."""
    return max(lane.lateness for lane in settings.lanes.values())
