"""The frame around every long-running role: signals, logs, web server, exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bandstand.errors import BandstandError, BrokerError, TopicError
from bandstand.logs import configure_logs, get_logger
from bandstand.probe import Probe
from bandstand.settings import Settings
from bandstand.watchdog import Watchdog
from bandstand.web import Health, WebServer

__all__ = ["Role", "die", "on_signals", "persist", "running"]

_log = get_logger(__name__)
_EXIT_SOFTWARE = 70
_RETRY_S = 0.5
_ASK_S = 0.5
_PAUSE_S = 0.1
_SLOW_S = 1.0
"""How long a first answer may take before anything is said of it."""
_SAY_AGAIN_S = 60.0
_DENIES_S = 10.0
"""For how long a broker that was away may deny topics that it has."""


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
    """Run a role: logs, signals, web server and watchdog are set up inside and put away after.

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
    watchdog = Watchdog(settings, lambda error: die(name, error))
    watchdog.start()
    with _signals(role):
        _log.info("role starts", role=name, pid=os.getpid(), web=web.url)
        try:
            yield role
        finally:
            watchdog.stop()
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
    """Do the work of a role when Kafka answers, and begin it anew whenever Kafka was away.

    Parameters
    ----------
    role
        The running role; while it waits, it isn't ready, and ends at once when it is told to.
    work
        Returns when it is done, or the role is told to stop. All that it must remember is in Kafka.

    Raises
    ------
    BrokerError
        If Kafka refuses for good.
    TopicError
        If a topic is missing, or set up in a way that would lose data.
    """
    away, back = False, 0.0
    while not role.stop.is_set():
        if _wait_for_kafka(role) or away:
            away, back = False, time.monotonic()
        if role.stop.is_set():
            return
        problem: BandstandError
        try:
            work()
        except BrokerError as error:
            if not error.passing:
                raise
            problem, away = error, True
        except TopicError as error:
            if time.monotonic() - back > _DENIES_S or not back:
                raise
            problem = error
        else:
            return
        role.health.wait_for("kafka", str(problem))
        _log.warning("begins anew when Kafka answers", role=role.name, problem=str(problem))
        role.stop.wait(_RETRY_S)
        role.health.arrived("kafka")


def _wait_for_kafka(role: Role) -> bool:
    """Wait until Kafka answers or the role is told to stop; tell whether it was away."""
    probe = Probe(role.settings)
    began = time.monotonic()
    said: float | None = None
    while not role.stop.is_set() and not probe.ask(_ASK_S):
        now = time.monotonic()
        role.health.wait_for("kafka", f"Kafka can't be reached: {probe.problem}")
        if now - (said or began) > (_SLOW_S if said is None else _SAY_AGAIN_S):
            said = now
            _log.warning(
                "Kafka can't be reached, waits for it",
                role=role.name,
                servers=role.settings.kafka.bootstrap_servers,
                problem=probe.problem,
                seconds=round(now - began),
            )
        role.stop.wait(_PAUSE_S)
    role.health.arrived("kafka")
    if said is not None and not role.stop.is_set():
        _log.info("Kafka answers", role=role.name, after_seconds=round(time.monotonic() - began))
    return said is not None


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
