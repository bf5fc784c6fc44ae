"""Two logs in the making: what the oracle reads of them, and the Kafka records that say it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bandstand.schemas.topics import TICK_KEY
from bandstand.schemas.wire import Wire
from bandstand.streams.join_types import TICK_HEADER, Log, Record
from tests.streams.join_oracle import Entry, Lane, Verdicts, judge

__all__ = ["FAULTS", "LOGS", "START", "WIRE", "Logs", "encode"]

LOGS: tuple[Log, Log] = ("decisions", "rewards")
WIRE = Wire.single_object()
START = 1_700_000_000_000
FAULTS = ("magic", "truncated", "trailing", "empty", "schema", "key", "timestamp", "tick", "value")
"""Reasons for which a record can't be used; ``value`` is for rewards only."""


def encode(fields: Mapping[str, Any]) -> bytes:
    """Write an outcome with the reference codec."""
    return WIRE.dumps("outcome", fields)


def decision_fields(decision_id: str, time: int, size: int = 0) -> dict[str, Any]:
    """Give a decision; `size` makes it longer."""
    return {
        "bandit": "b",
        "decision_id": decision_id,
        "subject": "s" * size,
        "ts": time,
        "action": "a",
        "propensity": 1.0,
    }


def reward_fields(reward_id: str, time: int, value: float = 1.0, size: int = 0) -> dict[str, Any]:
    """Give what an outcome keeps of a reward; `size` makes it longer."""
    metadata = {"k": "v" * size}
    return {
        "reward_id": reward_id,
        "name": "click",
        "value": value,
        "ts": time,
        "metadata": metadata,
    }


class Logs:
    """The two logs of one partition, written record by record.

    Parameters
    ----------
    lane
        Its settings for good.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.entries: dict[Log, list[Entry]] = {log: [] for log in LOGS}
        self.records: dict[Log, list[Record]] = {log: [] for log in LOGS}
        self._end: dict[Log, int] = dict.fromkeys(LOGS, 0)

    def tick(self, log: Log, time: int, window: int, grace: int) -> None:
        """Write a tick."""
        headers = [(TICK_HEADER, self._header(window, grace))]
        entry = Entry(self._end[log], time, settings=(window, grace))
        self._append(log, entry, TICK_KEY, None, headers)

    def decision(self, decision_id: str, time: int, size: int = 0) -> None:
        """Write a decision."""
        fields = decision_fields(decision_id, time, size)
        entry = Entry(self._end["decisions"], time, decision_id, content=fields)
        self._append("decisions", entry, decision_id.encode(), WIRE.dumps("decision", fields))

    def reward(self, decision_id: str, reward_id: str, time: int, size: int = 0) -> None:
        """Write a reward; its value is its offset."""
        offset = self._end["rewards"]
        fields = reward_fields(reward_id, time, float(offset), size)
        entry = Entry(offset, time, decision_id, reward_id, fields)
        value = WIRE.dumps("reward", {"bandit": "b", "decision_id": decision_id, **fields})
        self._append("rewards", entry, decision_id.encode(), value)

    def unusable(self, log: Log, fault: str, decision_id: str, time: int) -> None:
        """Write a record that nobody can use, for one of `FAULTS`."""
        key: bytes | None = decision_id.encode()
        fields = decision_fields(decision_id, time + (fault == "timestamp"))
        value: bytes | None = WIRE.dumps("decision", fields)
        if (log == "rewards") != (fault == "schema"):
            reward = reward_fields("r", fields["ts"], float("nan" if fault == "value" else "1"))
            value = WIRE.dumps("reward", {"bandit": "b", "decision_id": decision_id, **reward})
        assert value is not None
        headers: list[tuple[str, bytes]] = []
        match fault:
            case "magic":
                value = b"\x7b" + value
            case "truncated":
                value = value[:-1]
            case "trailing":
                value += b"\x00"
            case "empty":
                value = None
            case "key":
                key = TICK_KEY if time % 2 else None
            case "tick":
                key, value = TICK_KEY, None
                headers = [(TICK_HEADER, self._header(-1, 0))] if time % 2 else []
        self._append(log, Entry(self._end[log], time, fault=fault), key, value, headers)

    def skip(self, log: Log, offsets: int) -> None:
        """Leave offsets out, as the markers of transactions do."""
        self._end[log] += offsets

    def judged(self, read: Mapping[Log, int] | None = None) -> Verdicts:
        """Ask the oracle about the logs, or of what lies below the offsets `read`."""
        decisions, rewards = (
            [entry for entry in self.entries[log] if read is None or entry.offset < read[log]]
            for log in LOGS
        )
        return judge(decisions, rewards, self.lane, encode)

    def _header(self, window: int, grace: int) -> bytes:
        settings = {
            "window_ms": window,
            "grace_ms": grace,
            "lateness_ms": self.lane.lateness,
            "backward_ms": self.lane.backward,
            "skew_ms": self.lane.skew,
        }
        return json.dumps(settings).encode()

    def _append(
        self,
        log: Log,
        entry: Entry,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        self.entries[log].append(entry)
        self.records[log].append(Record(entry.offset, entry.time, key, value, headers))
        self._end[log] += 1
