"""The frame around every long-running role: signals, logs, web server, exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bandstand.errors import BrokerError
from bandstand.logs import configure_logs, get_logger
from bandstand.settings import Settings
from bandstand.web import Health, WebServer

__all__ = ["Role", "die", "on_signals", "running"]

_log = get_logger(__name__)
_EXIT_SOFTWARE = 70
_RETRY_S = 0.5


class Role:
    """One running role.

    Parameters
    ----------
    name
        Its name on the command line and in metrics, e.g. ``learn``.
    settings
        The settings in force.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.stop = threading.Event()
        """Set when the role should finish: by SIGTERM, SIGINT or a test."""
        self.health = Health()


def die(role: str, error: BaseException) -> None:
    """End this process at once, loudly, without moving any position.

    For a state in which going on could lose or falsify something: no ``finally``, no commit and no
    flush may run after it.
    """
    _log.critical("role dies", role=role, error=repr(error), exc_info=error)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(_EXIT_SOFTWARE)


@contextmanager
def running(
    name: str, settings: Settings, actions: dict[str, Callable[[], None]] | None = None
) -> Iterator[Role]:
    """Run a role: logs, signals and the web server are set up inside and put away after.

    Parameters
    ----------
    name
        Name of the role.
    settings
        The settings in force.
    actions
        What a POST to a path of the role's web server does.
    """
    configure_logs(settings.log)
    role = Role(name, settings)
    web = WebServer(settings.web, role.health, actions)
    web.start()
    with _signals(role):
        _log.info("role starts", role=name, pid=os.getpid(), web=web.url)
        try:
            yield role
        finally:
            web.stop()
    _log.info("role ends", role=name)


@contextmanager
def on_signals(act: Callable[[str], None]) -> Iterator[None]:
    """Do something when this process is told to stop, and go on; for the main thread.

    Parameters
    ----------
    act
        Called with the signal's name, from a thread of its own: a handler runs between any two
        steps of the main thread, which may hold the very lock that `act` needs.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        name = signal.Signals(number).name
        threading.Thread(target=act, args=(name,), name="signal", daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def persist(role: Role, work: Callable[[], None]) -> None:
    """Do the work of a role, and begin it anew when Kafka was away, until told to stop.

    Parameters
    ----------
    role
        The running role; while it isn't done with beginning, it isn't ready.
    work
        Returns when the role is told to stop. All that it must remember is in Kafka.

    Raises
    ------
    BrokerError
        If Kafka refuses for good.
    """
    while not role.stop.is_set():
        try:
            work()
        except BrokerError as error:
            if not error.passing:
                raise
            role.health.wait_for("kafka", str(error))
            _log.warning("begins anew when Kafka answers", role=role.name, problem=str(error))
            role.stop.wait(_RETRY_S)
            role.health.arrived("kafka")


@contextmanager
def _signals(role: Role) -> Iterator[None]:
    def stop(name: str) -> None:
        _log.info("role stops", role=role.name, signal=name)
        role.stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with on_signals(stop):
        yield
