"""Every error that Bandstand raises on purpose.

::

    BandstandError                 caught by the command line: one line, exit code 1
    ├── SettingsError              a setting is wrong, unknown or missing
    ├── SpecError                  a bandit's spec is wrong; names file, line, value, allowed
    ├── EventError                 bytes or a record that no reader may use (carries a Reason)
    ├── SchemaError                a schema is missing, or not compatible with a released one
    ├── TopicError                 a topic is missing or set up in a way that would lose data
    ├── LogGapError                offsets are missing where the log must be whole
    ├── StateError                 state that was read back can't be what was written
    ├── StorageError               the object store refuses or can't be reached
    ├── BrokerError                Kafka refuses or can't be reached
    ├── ServerError                a local server can't be fetched, started or stopped
    └── DecisionError              a service asked for a decision that can't be made

A message says what failed, the offending value, what is allowed, and what to do next.
"""

from __future__ import annotations

__all__ = [
    "BandstandError",
    "BrokerError",
    "DecisionError",
    "EventError",
    "LogGapError",
    "SchemaError",
    "ServerError",
    "SettingsError",
    "SpecError",
    "StateError",
    "StorageError",
    "TopicError",
]


class BandstandError(Exception):
    """Base of all errors raised on purpose."""


class SettingsError(BandstandError):
    """A setting is wrong, unknown or missing."""


class SpecError(BandstandError):
    """A bandit's spec is wrong."""


class EventError(BandstandError):
    """A record that no reader may use.

    Parameters
    ----------
    reason
        One word of a fixed set, used as the ``reason`` of the dead letter and as a metric label.
    detail
        What is wrong with this record, for a human.

    Examples
    --------
    >>> str(EventError("magic", "first byte is 0x7b, allowed: 0x00 or 0xc3"))
    'magic: first byte is 0x7b, allowed: 0x00 or 0xc3'
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SchemaError(BandstandError):
    """A schema is missing, or not compatible with a released one."""


class TopicError(BandstandError):
    """A topic is missing, or set up in a way that would lose data."""


class LogGapError(BandstandError):
    """Offsets are missing where the log must be whole."""


class StateError(BandstandError):
    """State that was read back can't be what was written."""


class StorageError(BandstandError):
    """The object store refuses or can't be reached."""


class BrokerError(BandstandError):
    """Kafka refuses or can't be reached.

    Parameters
    ----------
    message
        What failed, and what to do.
    passing
        Whether it is worth another try: the broker is away, or changes its leader.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class ServerError(BandstandError):
    """A local server can't be fetched, started or stopped."""


class DecisionError(BandstandError):
    """A service asked for a decision that can't be made."""
