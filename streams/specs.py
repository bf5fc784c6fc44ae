"""The specs in force: how an operator sets them, and how every role follows them.

The topic ``specs`` holds the newest spec of each bandit. The offset of its record is the bandit's
epoch: all that is learned and published says which epoch it belongs to.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bandstand.errors import BrokerError, EventError, SpecError
from bandstand.kafka import TopicReader, broker_errors, producer_config
from bandstand.learners.evidence import Evidence
from bandstand.logs import get_logger
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire, wire_from
from bandstand.settings import Settings
from bandstand.streams.dead_letters import DeadLetters, origin_of
from bandstand.streams.in_force import Ancestor, InForce, SpecChange
from bandstand.streams.topic_plans import FRAME_BYTES, TABLE_RECORD_BYTES

__all__ = ["InForce", "SpecChange", "SpecFollower", "apply_spec", "specs_in_force"]

_log = get_logger(__name__)
_READ_S = 30.0
_WRITE_S = 10.0
_MOST_BYTES = TABLE_RECORD_BYTES - FRAME_BYTES


def apply_spec(
    settings: Settings,
    spec: Spec,
    author: str = "",
    reason: str = "",
    evidence: Evidence | None = None,
    instead_of: int | None = None,
) -> int:
    """Put a spec in force for all roles; no record is written where it is already.

    Evidence that came with an earlier one stays, as long as sums go on.

    Parameters
    ----------
    settings
        The settings in force.
    spec
        The spec.
    author, reason
        Who does it, and why; kept with the record.
    evidence
        What is known before any outcome, instead of what was said before.
    instead_of
        Only where this epoch is in force: what somebody else has applied meanwhile stays.

    Returns
    -------
    int
        The bandit's epoch.

    Raises
    ------
    SettingsError
        If the spec's lane isn't set up.
    SpecError
        If the record would be too large.
    BrokerError
        If Kafka refuses or can't be reached.
    """
    settings.lane(spec.lane)
    current = specs_in_force(settings).get(spec.bandit)
    if current is not None and current.spec.hash == spec.hash and evidence is None:
        return current.epoch
    if instead_of is not None and (current is None or current.epoch != instead_of):
        return -1 if current is None else current.epoch
    ancestors = current.heirs(spec) if current is not None else ()
    if evidence is None and current is not None and ancestors:
        evidence = current.evidence
    return _write(settings, spec, author, reason, ancestors, evidence)


def specs_in_force(settings: Settings) -> dict[str, InForce]:
    """Read the specs once.

    Raises
    ------
    BrokerError
        If Kafka refuses or can't be reached.
    """
    with SpecFollower(settings, role="apply") as follower:
        follower.catch_up()
        return dict(follower.current)


class SpecFollower:
    """Follows ``specs`` from its start, without a consumer group.

    A record that can't be read goes to ``dead-letters``; what was in force before stays in force.

    Parameters
    ----------
    settings
        The settings in force.
    role
        Name of the role that follows, for dead letters.

    Raises
    ------
    TopicError
        If the topic isn't there.
    """

    def __init__(self, settings: Settings, role: str = "specs") -> None:
        self.current: dict[str, InForce] = {}
        """What is in force, by bandit."""
        self.unreadable: set[int] = set()
        """Offsets of records that were refused: epochs that a newer version may know."""
        self._wire = wire_from(settings)
        self._letters = DeadLetters(settings, role, self._wire)
        self._reader = TopicReader(settings, TopicNames(settings.topics.prefix).specs)

    def poll(self, timeout: float = 0.0) -> list[SpecChange]:
        """Give what has changed since the last call, oldest first.

        Parameters
        ----------
        timeout
            Seconds to wait for a first record, >= 0.
        """
        return self._take(self._reader.poll(timeout))

    def catch_up(self, timeout: float = _READ_S) -> list[SpecChange]:
        """Read up to the end that the topic has now; gives what has changed.

        Parameters
        ----------
        timeout
            Seconds within which the end must be reached, > 0.

        Raises
        ------
        BrokerError
            If it isn't.
        """
        return self._take(self._reader.read_to_end(timeout))

    def close(self) -> None:
        """Stop following."""
        self._reader.close()
        self._letters.close()

    def __enter__(self) -> SpecFollower:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _take(self, messages: Iterable[Message]) -> list[SpecChange]:
        changes = []
        for message in messages:
            try:
                change = self._change(message)
            except EventError as error:
                _log.warning("spec refused", offset=message.offset(), problem=str(error))
                self._letters.send(origin_of(message), error.reason, error.detail)
                self.unreadable.add(message.offset() or 0)
                continue
            self._note(change)
            changes.append(change)
        return changes

    def _change(self, message: Message) -> SpecChange:
        bandit, now = read_record(message, self._wire)
        return SpecChange(bandit, now, self.current.get(bandit))

    def _note(self, change: SpecChange) -> None:
        if change.now is None:
            self.current.pop(change.bandit, None)
        else:
            self.current[change.bandit] = change.now
        _log.debug(
            "spec changes",
            bandit=change.bandit,
            epoch=change.now.epoch if change.now else None,
            spec_hash=change.now.spec.hash[:16] if change.now else None,
        )


def read_record(message: Message, wire: Wire) -> tuple[str, InForce | None]:
    """Read a record of ``specs``: the bandit, and its spec unless that was removed.

    Raises
    ------
    EventError
        If its key, its value or the spec in it can't be right.
    """
    origin = origin_of(message)
    try:
        key = (origin.key or b"").decode()
    except UnicodeDecodeError as error:
        raise EventError("key", f"a bandit's name must be UTF-8: {error}") from None
    if origin.value is None:
        return key, None
    record = wire.loads("spec", origin.value)
    try:
        spec = Spec.from_canonical(record["spec"])
    except SpecError as error:
        raise EventError("invalid", str(error)) from None
    if not key == record["bandit"] == spec.bandit:
        raise EventError(
            "key", f"key {key!r}, record {record['bandit']!r} and spec {spec.bandit!r} must agree"
        )
    if record["spec_hash"] != spec.hash:
        raise EventError(
            "invalid", f"spec_hash is {record['spec_hash']}, the spec's is {spec.hash}"
        )
    return key, InForce(spec, origin.offset, tuple(_ancestors(record)), _evidence(record))


def _ancestors(record: Mapping[str, Any]) -> Iterator[Ancestor]:
    """Read the specs before, up to one that this version can't read."""
    for ancestor in record["ancestors"]:
        try:
            yield Ancestor(ancestor["epoch"], Spec.from_canonical(ancestor["spec"]))
        except SpecError:
            return


def _prior(evidence: Evidence) -> dict[str, Any]:
    return {
        "origin": evidence.origin,
        "actions": list(evidence.actions),
        "arrays": [
            {"name": name, "shape": list(array.shape), "data": array.astype("<f8").tobytes()}
            for name, array in sorted(evidence.arrays.items())
        ],
    }


def _evidence(record: Mapping[str, Any]) -> Evidence | None:
    prior = record["prior"]
    if prior is None:
        return None
    arrays = {
        array["name"]: np.frombuffer(array["data"], "<f8").reshape(array["shape"])
        for array in prior["arrays"]
    }
    return Evidence(prior["origin"], tuple(prior["actions"]), arrays)


def _write(
    settings: Settings,
    spec: Spec,
    author: str,
    reason: str,
    ancestors: Iterable[Ancestor],
    evidence: Evidence | None,
) -> int:
    record = {
        "bandit": spec.bandit,
        "spec_hash": spec.hash,
        "spec": spec.canonical(),
        "ts": time.time_ns() // 1_000_000,
        "author": author,
        "reason": reason,
        "ancestors": [{"epoch": a.epoch, "spec": a.spec.canonical()} for a in ancestors],
        "prior": evidence and _prior(evidence),
    }
    value = wire_from(settings).dumps("spec", record)
    if len(value) > _MOST_BYTES:
        raise SpecError(
            f"the record of {spec.bandit!r} would have {len(value)} bytes; allowed: {_MOST_BYTES};"
            " give the bandit fewer actions or features, or no prior from elsewhere"
        )
    answers: list[tuple[KafkaError | None, int]] = []
    topic = TopicNames(settings.topics.prefix).specs
    producer = Producer(
        producer_config(
            settings,
            linger_ms=0,
            message_timeout_ms=8_000,
            message_max_bytes=TABLE_RECORD_BYTES,
        )
    )
    with broker_errors(f"applying the spec of {spec.bandit!r}"):
        producer.produce(
            topic,
            value,
            spec.bandit.encode(),
            on_delivery=lambda error, message: answers.append((error, message.offset() or 0)),
        )
        producer.flush(_WRITE_S)
        if not answers:
            raise BrokerError(f"applying the spec of {spec.bandit!r}: no answer in {_WRITE_S:g} s")
        failure, offset = answers[0]
        if failure is not None:
            raise KafkaException(failure)
    return offset
