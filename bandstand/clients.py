"""The client library's clients, known to this process: each may be asked whether it is answered.

Whoever makes a client for longer than a moment makes it from here, so that `watchdog` can see to
it. While all is well nothing more is done than to remember that it is there.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import admin as confluent_admin

__all__ = ["AdminClient", "Client", "Consumer", "Producer", "all_clients", "disconnected"]

disconnected = threading.Event()
"""Set when a client of this process has said that all its brokers are down."""

_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_lock = threading.Lock()


class Client:
    """What any client of this process can be asked, by another thread than its own."""

    list_topics: Any

    def _register(self) -> None:
        self._in_use = threading.Lock()
        self._closed = False
        with _lock:
            _clients.add(self)

    def answered(self, timeout: float) -> bool:
        """Tell whether a broker answers this client; one that was closed needs no answer.

        Parameters
        ----------
        timeout
            Seconds to wait, > 0; for so long it can't be closed.
        """
        with self._in_use:
            if self._closed:
                return True
            try:
                self.list_topics(timeout=timeout)
            except KafkaException:
                return False
        return True


class Producer(confluent_kafka.Producer, Client):
    """A producer that is known to this process."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(_hooked(config))
        self._register()


class Consumer(confluent_kafka.Consumer, Client):
    """A consumer that is known to this process."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(_hooked(config))
        self._register()

    def close(self) -> None:
        """Leave the group and disconnect; no question may be under way then."""
        with self._in_use:
            self._closed = True
        super().close()


class AdminClient(confluent_admin.AdminClient, Client):
    """An admin client that is known to this process; nobody polls it, so it isn't listened to."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(dict(config))
        self._register()


def all_clients() -> list[weakref.ref[Client]]:
    """Give the clients that are there now."""
    with _lock:
        return [weakref.ref(client) for client in _clients]


def _hooked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Listen to a client's errors, beside whoever else does."""
    tell, logger = config.get("error_cb"), config.get("logger")

    def note(error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            disconnected.set()
        if tell is not None:
            tell(error)
        elif logger is not None:
            logger.error("ERROR %s", error.str())  # as the library does where nobody listens

    return {**config, "error_cb": note}
