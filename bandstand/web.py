"""What a role tells the outside: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from bandstand.errors import SettingsError
from bandstand.logs import get_logger
from bandstand.settings import WebSettings

__all__ = ["Health", "WebServer"]

_log = get_logger(__name__)


class Health:
    """What keeps a role from being healthy or ready, by name; thread-safe.

    Healthy means: restarting would not help. Ready means: it does its work now.

    Examples
    --------
    >>> health = Health()
    >>> health.ready
    False
    >>> health.started()
    >>> health.wait_for("assignment"); health.ready
    False
    >>> health.arrived("assignment"); health.ready
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, str] = {"start": "starting"}
        self._trouble: dict[str, str] = {}

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken."""
        return not self._trouble

    @property
    def ready(self) -> bool:
        """Whether the role does its work."""
        return not self._trouble and not self._waiting

    def started(self) -> None:
        """Say that the start is over."""
        self.arrived("start")

    def wait_for(self, name: str, why: str = "") -> None:
        """Say that the role isn't ready until `name` has arrived."""
        with self._lock:
            self._waiting[name] = why or f"waiting for {name}"

    def arrived(self, name: str) -> None:
        """Say that the role no longer waits for `name`."""
        with self._lock:
            self._waiting.pop(name, None)

    def broken(self, name: str, why: str) -> None:
        """Say that `name` is broken."""
        with self._lock:
            self._trouble[name] = why

    def mended(self, name: str) -> None:
        """Say that `name` works again."""
        with self._lock:
            self._trouble.pop(name, None)

    def report(self) -> dict[str, dict[str, str]]:
        """Give what is broken and what is waited for."""
        with self._lock:
            return {"broken": dict(self._trouble), "waiting": dict(self._waiting)}


class WebServer:
    """Answers on one port from a thread of its own.

    Parameters
    ----------
    settings
        Host and port; port 0 takes a free one.
    health
        What `/healthz` and `/readyz` report.
    actions
        What a POST to a path does, e.g. ``{"/clock/accept": accept}``.

    Raises
    ------
    SettingsError
        If the port is taken.
    """

    def __init__(
        self,
        settings: WebSettings,
        health: Health,
        actions: dict[str, Callable[[], None]] | None = None,
    ) -> None:
        handler = type("Handler", (_Handler,), {"health": health, "actions": actions or {}})
        try:
            self._server = ThreadingHTTPServer((settings.host, settings.port), handler)
        except OSError as error:
            raise SettingsError(
                f"web.port {settings.port} on {settings.host} can't be used: {error.strerror}; "
                "set BANDSTAND_WEB__PORT to another one, or to 0 for any free one"
            ) from None
        self.url = f"http://{settings.host}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="web",
            daemon=True,
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    health: Health
    actions: dict[str, Callable[[], None]]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, generate_latest(REGISTRY), CONTENT_TYPE_LATEST)
        elif path in ("/healthz", "/readyz"):
            good = self.health.healthy if path == "/healthz" else self.health.ready
            status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, json.dumps(self.health.report()).encode(), "application/json")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"known: /metrics /healthz /readyz\n", "text/plain")

    def do_POST(self) -> None:
        action = self.actions.get(self.path)
        if action is None:
            known = " ".join(sorted(self.actions)) or "none"
            self._answer(HTTPStatus.NOT_FOUND, f"known: {known}\n".encode(), "text/plain")
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to who asked
            _log.exception("action failed", path=self.path)
            text = f"{error!r}\n".encode()
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, text, "text/plain")
            return
        self._answer(HTTPStatus.OK, b"done\n", "text/plain")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Say nothing: probes come every second."""

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
