"""Structured logs: one event a line, as text for a terminal or as JSON for a collector.

All goes through the standard library's loggers. A service that uses Bandstand as a library keeps
its own set-up, of `logging` as well as of structlog: only roles call `configure_logs`.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Literal

import structlog

from bandstand.settings import LogSettings

__all__ = ["Logger", "configure_logs", "get_logger"]

Logger = structlog.stdlib.BoundLogger

_CLIENT_LIBRARIES = ("librdkafka", "aiokafka")
_SAME_AGAIN_S = 30.0

_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


class _Event(dict[str, Any]):
    """An event that reads well also where somebody else's formatter prints it."""

    def __str__(self) -> str:
        known = ("event", "logger", "level", "timestamp")
        facts = [f"{name}={value!r}" for name, value in self.items() if name not in known]
        return " ".join([str(self.get("event")), *facts])


def _to_standard_library(
    logger: logging.Logger, method: str, event: structlog.typing.EventDict
) -> tuple[tuple[_Event], dict[str, Any]]:
    (event,), arguments = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(
        logger, method, event
    )
    return (_Event(event),), arguments


def get_logger(name: str) -> Logger:
    """Give the logger of a module."""
    logger: Logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, *_SHARED, _to_standard_library],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger


class _Repeats(logging.Filter):
    """Lets a client library say the same thing once in a while, and how often it did.

    Kafka's clients log each try to reach a broker that is away: hundreds a second.
    """

    def __init__(self, loggers: tuple[str, ...], every: float) -> None:
        super().__init__()
        self._loggers = loggers
        self._every = every
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self._loggers):
            return True
        message = record.getMessage()
        alike = re.sub(r"\d+", "#", message)
        since, more = self._said.get(alike, (-self._every, 0))
        if record.created - since < self._every:
            self._said[alike] = (since, more + 1)
            return False
        self._said[alike] = (record.created, 0)
        if more:
            record.msg, record.args = f"{message} ({more} more like it)", ()
        return True


def configure_logs(settings: LogSettings) -> None:
    """Send all logs, also those of libraries, to standard error in one form.

    Parameters
    ----------
    settings
        ``auto`` writes text on a terminal and JSON elsewhere.
    """
    form = settings.format
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(_SHARED),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(form),
            ],
        )
    )
    handler.addFilter(_Repeats(_CLIENT_LIBRARIES, _SAME_AGAIN_S))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for noisy in ("aiokafka", "faust", "mode", "botocore", "urllib3", "boto3", "s3transfer"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _renderers(form: Literal["console", "json"]) -> list[structlog.typing.Processor]:
    # Tracebacks without local variables: those hold passwords, and whole batches.
    if form == "json":
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [
            structlog.processors.ExceptionRenderer(frames),
            structlog.processors.JSONRenderer(),
        ]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]
