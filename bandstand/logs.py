"""Structured logs: one event a line, as text for a terminal or as JSON for a collector."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from bandstand.settings import LogSettings

__all__ = ["Logger", "configure_logs", "get_logger"]

Logger = structlog.stdlib.BoundLogger

_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


def get_logger(name: str) -> Logger:
    """Give the logger of a module."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger


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
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for noisy in ("aiokafka", "faust", "mode", "botocore", "urllib3", "boto3", "s3transfer"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _renderers(form: Literal["console", "json"]) -> list[structlog.typing.Processor]:
    if form == "json":
        return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
