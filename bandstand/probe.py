"""Asks whether Kafka answers, by a client of its own: fresh, and impatient to connect."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException

from bandstand.errors import BrokerError
from bandstand.kafka import admin
from bandstand.settings import Settings

__all__ = ["Probe"]

_RECONNECT_MS = 1_000
_REFUSALS = (KafkaError._AUTHENTICATION, KafkaError._SSL)
_REFUSED_S = 5.0
"""For how long a refusal must be the last word: a broker that dies while we log in refuses, too."""


class Probe:
    """One client that asks; for one thread.

    Parameters
    ----------
    settings
        Where the broker is and how to reach it.

    Raises
    ------
    BrokerError
        If the settings aren't fit to reach a broker.
    """

    def __init__(self, settings: Settings) -> None:
        self.problem = ""
        """The last thing that was wrong, in the client library's words."""
        self._servers = settings.kafka.bootstrap_servers
        self._refused_since: float | None = None
        self._client = admin(settings, error_cb=self._note, reconnect_backoff_max_ms=_RECONNECT_MS)

    def ask(self, timeout: float) -> bool:
        """Tell whether a broker answers.

        Parameters
        ----------
        timeout
            Seconds to wait for the answer, > 0; used up where no broker is there.

        Raises
        ------
        BrokerError
            If Kafka is there and refuses us: waiting wouldn't help.
        """
        try:
            self._client.list_topics(timeout=timeout)
        except KafkaException as error:
            self._client.poll(0)
            self.problem = self.problem or error.args[0].str()
            self._mind_refusal()
            return False
        return True

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            return  # its cause was said before
        self.problem = error.str()
        if error.code() not in _REFUSALS:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = time.monotonic()

    def _mind_refusal(self) -> None:
        since = self._refused_since
        if since is not None and time.monotonic() - since > _REFUSED_S:
            raise BrokerError(
                f"Kafka at {self._servers} refuses this client: {self.problem}; check "
                "kafka.security_protocol and the settings kafka.sasl_* and kafka.ssl_*"
            )
