"""The role ``bandstand join``: the Faust app with signals, web server and logs of a role."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from bandstand.logs import get_logger
from bandstand.role import Role, die, persist, running
from bandstand.settings import Settings
from bandstand.streams import topics
from bandstand.streams.lanes import Lanes

__all__ = ["leave_in_time", "run"]

_log = get_logger(__name__)
_LEAVE_WITHIN_S = 4.0
_LOOK_S = 0.05


def run(settings: Settings) -> None:
    """Join all lanes of the settings until SIGTERM or SIGINT.

    Parameters
    ----------
    settings
        The settings in force.

    Raises
    ------
    TopicError
        If a topic is missing, or set up in a way that would lose data.
    BrokerError
        If Kafka refuses for good.
    """
    lanes: list[Lanes] = []
    with running("join", settings, {"/clock/accept": lambda: lanes[0].accept_time()}) as role:
        persist(role, lambda: _join(role, lanes))


def _join(role: Role, lanes: list[Lanes]) -> None:
    topics.require(role.settings)
    lanes[:] = [Lanes(role.settings, role.health, lambda error: die("join", error))]
    asyncio.run(_serve(role, lanes[0]))


async def _serve(role: Role, lanes: Lanes) -> None:
    from bandstand.streams.app import create_app

    app = create_app(role.settings, lanes, role.health)
    started = asyncio.ensure_future(app.start())
    while not role.stop.is_set():
        await asyncio.sleep(_LOOK_S)
        _die_if_crashed(app, started)
    leave_in_time()
    await app.stop()


def _die_if_crashed(app: Any, started: asyncio.Future[Any]) -> None:
    error = app.crash_reason
    if error is None and started.done():
        error = started.exception()
    if error is not None or app.should_stop:
        die("join", error or RuntimeError("the Faust app stopped by itself"))


def leave_in_time() -> None:
    """See to it that this process, which is about to end, does so within five seconds.

    Leaving the group waits for a broker that doesn't answer; all that matters is in Kafka.
    """
    timer = threading.Timer(_LEAVE_WITHIN_S, _leave)
    timer.daemon = True
    timer.start()


def _leave() -> None:
    _log.warning("the broker doesn't answer; left without a goodbye", after_seconds=_LEAVE_WITHIN_S)
    os._exit(0)
