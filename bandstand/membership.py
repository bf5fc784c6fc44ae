"""Being a member of a consumer group whose partitions move one by one, and leaving it in time."""

from __future__ import annotations

import threading
from datetime import timedelta

from confluent_kafka import Consumer

from bandstand.durations import milliseconds
from bandstand.logs import get_logger

__all__ = ["leave", "membership"]

_log = get_logger(__name__)
_HEARTBEAT_MS = 500


def membership(session_timeout: timedelta) -> dict[str, object]:
    """Give the properties of a member of a group whose partitions move one by one.

    Heartbeats are much more frequent than the session needs: they are also how a member learns
    that a rebalance has begun, and one takes several rounds.
    """
    session = milliseconds(session_timeout)
    return {
        "partition_assignment_strategy": "cooperative-sticky",
        "session_timeout_ms": session,
        "heartbeat_interval_ms": min(session // 3, _HEARTBEAT_MS),
    }


def leave(consumer: Consumer, seconds: float = 2.0) -> None:
    """Leave the group and close, waiting for a rebalance under way for some seconds at most.

    Where that isn't enough, the session timeout does the rest.
    """
    thread = threading.Thread(target=consumer.close, name="leave", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _log.warning("didn't leave the group in time, a rebalance is under way", seconds=seconds)
