"""The Faust app of the join: ``faust -A bandstand.streams.app worker``.

Membership, co-partitioned assignment, rebalancing, streams and agents are Faust's; what happens to
the records is the business of `lanes`. The app that Faust's command line looks for, ``app``, is
made from the environment when it is asked for.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import faust
from faust.types import TP
from yarl import URL

from bandstand.errors import SettingsError
from bandstand.logs import configure_logs, get_logger
from bandstand.role import Role, die, persist
from bandstand.settings import KafkaSettings, Settings, load_settings
from bandstand.streams import topics
from bandstand.streams.join import leave_in_time
from bandstand.streams.join_metrics import JoinCollector
from bandstand.streams.lanes import Lanes
from bandstand.streams.log_reader import Found, LogReader
from bandstand.streams.topic_watch import TopicWatch
from bandstand.streams.transport import Batch, BatchTransport
from bandstand.watchdog import Watchdog
from bandstand.web import Health, WebServer

__all__ = ["create_app", "credentials"]

_log = get_logger(__name__)
_POLL_S = 0.05
_COMMIT_EVERY_S = 2.0
_COMMIT_WITHIN_S = 5.0
_FLUSH_S = 1.5
_LONG_S = 86_400.0
_METADATA_AGE_MS = 5_000
"""A broker that has just started may deny topics that it has, and then nobody is assigned any."""


def __getattr__(name: str) -> Any:
    if name == "app":
        globals()["app"] = _command_line_app()
        return globals()["app"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _command_line_app() -> Any:
    settings = load_settings()
    configure_logs(settings.log)
    role = Role("join", settings)
    lanes = Lanes(settings, role.health, _die)
    web = WebServer(settings.web, role.health, {"/clock/accept": lanes.accept_time})
    web.start()
    Watchdog(settings, _die).start()
    _log.info("join runs under faust", web=web.url)
    apps: list[Any] = []

    def begin() -> None:
        topics.require(settings)
        apps.append(create_app(settings, lanes, role.health))

    persist(role, begin)  # until Faust runs, signals do what they do to any process
    return apps[0]


def create_app(settings: Settings, lanes: Lanes, health: Health) -> Any:
    """Make the Faust app that reads for these lanes.

    Parameters
    ----------
    settings
        The settings in force.
    lanes
        What the records are for.
    health
        Where the start is reported.

    Raises
    ------
    SettingsError
        If Faust's client can't connect in the way that the settings ask for.
    """
    join = settings.join
    session = join.session_timeout.total_seconds()
    urls = [URL(f"kafka://{server}") for server in settings.kafka.bootstrap_servers.split(",")]
    app = _App(
        id=join.group,
        lanes=lanes,
        health=health,
        broker=urls,
        broker_credentials=credentials(settings.kafka),
        broker_client_id=settings.kafka.client_id,
        broker_session_timeout=session,
        broker_heartbeat_interval=session / 4,
        broker_max_poll_interval=_LONG_S,
        consumer_metadata_max_age_ms=_METADATA_AGE_MS,
        consumer_auto_offset_reset="earliest",
        datadir=tempfile.gettempdir(),
        store="memory://",
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_buffer_maxsize=16,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        web_enabled=False,
        web_bind="127.0.0.1",
        web_port=_free_port(),
        worker_redirect_stdouts=False,
        logging_config={"version": 1, "incremental": True},
    )
    watch = TopicWatch(settings, lanes.topics, lambda topic, why: lanes.lost((topic, 0), why))
    reader = LogReader(settings, lanes.topics, lanes.lost)
    app.transport = BatchTransport(urls, app, read=partial(_read, watch, reader, lanes), die=_die)
    for topic in lanes.topics:
        _add_agent(app, lanes, topic)
    _add_handlers(app, lanes)
    return app


def credentials(kafka: KafkaSettings) -> Any:
    """Give Faust's client what librdkafka gets from the same settings.

    Raises
    ------
    SettingsError
        If it has no such way to log in.
    """
    context = _ssl_context(kafka) if "SSL" in kafka.security_protocol.split("_") else None
    if not kafka.security_protocol.startswith("SASL"):
        return None if context is None else faust.SSLCredentials(context)
    if kafka.sasl_mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise SettingsError(
            f"kafka.sasl_mechanism is {kafka.sasl_mechanism!r}; allowed for the join: PLAIN, "
            "SCRAM-SHA-256, SCRAM-SHA-512, because Faust's client must log in too"
        )
    password = kafka.sasl_password
    return faust.SASLCredentials(
        mechanism=kafka.sasl_mechanism,
        username=kafka.sasl_username,
        password=None if password is None else password.get_secret_value(),
        ssl_context=context,
    )


def _free_port() -> int:
    # Faust's command line starts its web server whatever the settings say, dies of a taken port.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    password = kafka.ssl_key_password
    context = ssl.create_default_context(cafile=kafka.ssl_ca_location)
    context.check_hostname = kafka.ssl_endpoint_identification_algorithm == "https"
    if kafka.ssl_certificate_location is not None:
        context.load_cert_chain(
            kafka.ssl_certificate_location,
            kafka.ssl_key_location,
            None if password is None else password.get_secret_value(),
        )
    return context


class _App(faust.App):
    """Faust's app with the lanes' connections around its life."""

    def __init__(self, *, lanes: Lanes, health: Health, **options: Any) -> None:
        super().__init__(**options)
        self._lanes = lanes
        self._health = health

    async def on_start(self) -> None:
        """Connect before anything is assigned."""
        # The cores keep many small objects and no cycles: looking through them took a quarter of
        # the join's time.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        self._lanes.start()
        self._collector = JoinCollector(self._lanes)
        self._health.started()
        await super().on_start()


def _die(error: BaseException) -> None:
    die("join", error)


def _or_die(work: Callable[[], None]) -> None:
    """Do what must not fail; Faust would restart an agent that raises, past the failure."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing may move any more
        _die(error)


def _read(watch: TopicWatch, reader: LogReader, lanes: Lanes) -> Found:
    watch.look()
    lanes.poll()
    wanted = lanes.wanted()  # first: a partition may be taken over in between
    return reader.read(lanes.positions(), wanted)


def _add_agent(app: Any, lanes: Lanes, topic: str) -> None:
    source = app.topic(topic, value_serializer="raw", acks=False)

    async def read(batches: Any) -> None:
        async for event in batches.events():
            batch: Batch = event.value
            place: TP = event.message.tp
            _or_die(partial(lanes.take, *place, batch.records))
            batch.taken.set()

    app.agent(source, name=f"bandstand.join.{topic}")(read)


def _add_handlers(app: Any, lanes: Lanes) -> None:
    async def hand_over(_sender: Any, _revoked: set[TP], **_: Any) -> None:
        _or_die(lanes.hand_over)

    async def assign(_sender: Any, assigned: set[TP], **_: Any) -> None:
        _or_die(partial(lanes.assign, assigned))

    async def stop(_sender: Any, **_: Any) -> None:
        leave_in_time()
        _or_die(lanes.finish)
        await asyncio.to_thread(lanes.flush, _FLUSH_S)

    async def poll() -> None:
        while not app.should_stop:
            _or_die(lanes.poll)
            await asyncio.sleep(_POLL_S)

    async def commit() -> None:
        while not app.should_stop:
            await asyncio.sleep(_COMMIT_EVERY_S)
            await _commit(app, lanes)

    app.on_partitions_revoked.connect(hand_over, weak=False)
    app.on_partitions_assigned.connect(assign, weak=False)
    app.on_before_shutdown.connect(stop, weak=False)
    app.task(poll)
    app.task(commit)


async def _commit(app: Any, lanes: Lanes) -> None:
    began = time.monotonic()
    try:
        offsets = {TP(*place): offset for place, offset in lanes.positions().items()}
        await asyncio.wait_for(app.consumer._thread.commit_quietly(offsets), _COMMIT_WITHIN_S)
    except Exception as error:  # noqa: BLE001 - nothing reads these offsets but lag tools
        _log.warning(
            "the group's offsets were not committed",
            why=repr(error),
            seconds=round(time.monotonic() - began, 1),
        )
