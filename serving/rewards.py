"""What happened after a decision, sent from wherever it is seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from numbers import Real
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, Message

from bandstand.errors import BrokerError, EventError, SpecError
from bandstand.kafka import TopicReader
from bandstand.schemas.codec import encode
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire, wire_from
from bandstand.serving.event_times import FutureLimits
from bandstand.serving.ids import TimeOrderedIds
from bandstand.serving.sender import Sender, header_of
from bandstand.settings import Settings, load_settings

__all__ = ["OnFailure", "RewardProducer"]

OnFailure = Callable[[Mapping[str, object], str], None]
"""Gets the reward, as a record, and why it couldn't be delivered."""

_EARLIEST_TS: Final = 100_000_000_000
_READ_S: Final = 10.0


class RewardProducer:
    """Sends one bandit's rewards without waiting; thread-safe.

    Make one a process, after any fork, and close it at the end.

    Parameters
    ----------
    bandit
        Whose decisions are rewarded.
    settings
        By default those of the environment and ``bandstand.toml``.
    lane
        Lane of the bandit; by default read from its spec in Kafka, once.
    on_failure
        Called, from a thread of its own, with every reward that was queued and couldn't be
        delivered. It is also counted and logged.
    clock
        Gives the event time where none is given, seconds since 1970, UTC.

    Raises
    ------
    SpecError
        If the bandit has no spec in Kafka, and no lane was given.
    BrokerError
        If the specs can't be read; that is tried for about ten seconds.

    Examples
    --------
    ::

        with RewardProducer("homepage") as rewards:
            rewards.reward(decision_id, "click")
            rewards.reward(decision_id, "purchase", 49.90, reward_id=f"order-{order}")
    """

    def __init__(
        self,
        bandit: str,
        settings: Settings | None = None,
        *,
        lane: str | None = None,
        on_failure: OnFailure | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = load_settings() if settings is None else settings
        self.bandit = bandit
        self._wire = wire_from(settings)
        self.lane = _lane_of(bandit, settings, self._wire) if lane is None else lane
        self._clock = clock
        self._on_failure = on_failure
        self._topic = TopicNames(settings.topics.prefix).rewards(self.lane)
        self._header = header_of(self._wire, "reward")
        self._limits = FutureLimits(settings)
        self._ids = TimeOrderedIds()
        longest = max(max(lane.lateness, lane.window) for lane in settings.lanes.values())
        self._sender = Sender(settings, "rewards", patience=longest, on_lost=self._lost)

    def reward(
        self,
        decision_id: str,
        name: str,
        value: float = 1.0,
        *,
        ts: int | None = None,
        reward_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Send one reward; give its identity.

        Sending the same ``reward_id`` for a decision again is safe: only the first counts. So give
        one of your own (an order number, an event's id) wherever a reward may be sent twice, such
        as on a retry.

        Parameters
        ----------
        decision_id
            Identity of the decision.
        name
            What was observed, e.g. ``click``; the spec says which name counts.
        value
            How much of it; finite.
        ts
            When it happened, milliseconds since 1970, UTC; by default now.
        reward_id
            Its identity; by default a new one.
        metadata
            Anything else to keep with it.

        Raises
        ------
        EventError
            ``invalid``, if no reader could use it; nothing was sent.
        BrokerError
            If the queue is full, or this producer is closed or was made before a fork: nothing was
            sent. Trying again later is safe with the same ``reward_id``.
        """
        ts = int(self._clock() * 1000) if ts is None else ts
        self._check(decision_id, name, value, ts)
        if self._sender.ended is not None:
            raise BrokerError(f"rewards can't be sent: {self._sender.ended}")
        reward_id = self._ids.make(ts) if reward_id is None else reward_id
        body = encode(
            "reward",
            {
                "bandit": self.bandit,
                "decision_id": decision_id,
                "reward_id": reward_id,
                "name": name,
                "value": float(value),
                "ts": ts,
                "metadata": metadata or {},
            },
        )
        if not self._sender.send(self._topic, decision_id.encode(), self._header + body, ts):
            raise BrokerError(
                f"reward {reward_id} of decision {decision_id} was not taken: the queue to Kafka "
                "is full; call flush and try again, or raise serve.queue_max_messages"
            )
        return reward_id

    def flush(self, timeout: float = 5.0) -> int:
        """Wait until all rewards are in Kafka; give how many are still on their way.

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
        self._sender.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self, decision_id: object, name: object, value: object, ts: int) -> None:
        for what, text in (("decision_id", decision_id), ("name", name)):
            if not isinstance(text, str) or not text:
                raise EventError("invalid", f"{what} is {text!r}; allowed: a string, not empty")
        if not isinstance(value, Real) or not math.isfinite(value):
            raise EventError("invalid", f"value is {value!r}; allowed: a finite number")
        if not isinstance(ts, int) or ts < _EARLIEST_TS:
            raise EventError(
                "invalid", f"ts is {ts!r}; allowed: whole milliseconds since 1970, UTC; not seconds"
            )
        if fault := self._limits.fault(ts, self.lane):
            raise EventError("invalid", fault)

    def _lost(self, message: Message, error: KafkaError) -> None:
        if self._on_failure is not None:
            self._on_failure(self._wire.loads("reward", message.value()), error.str())


def _lane_of(bandit: str, settings: Settings, wire: Wire) -> str:
    """Read a bandit's lane from the specs topic."""
    topic = TopicNames(settings.topics.prefix).specs
    specs: dict[str, bytes | None] = {}
    reader = TopicReader(settings, topic)
    try:
        for message in reader.read_to_end(_READ_S):
            specs[(message.key() or b"").decode(errors="replace")] = message.value()
    finally:
        reader.close()
    value = specs.get(bandit)
    if value is None:
        known = ", ".join(sorted(name for name, spec in specs.items() if spec)) or "none"
        raise SpecError(
            f"bandit {bandit!r} has no spec in topic {topic!r}; known: {known}; run "
            "'bandstand apply' first, or give the lane: RewardProducer(…, lane='default')"
        )
    return Spec.from_canonical(wire.loads("spec", value)["spec"]).lane
