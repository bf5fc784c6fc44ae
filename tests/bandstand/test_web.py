"""What a role answers over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from bandstand.errors import SettingsError
from bandstand.settings import WebSettings
from bandstand.web import Health, WebServer
from tests.waiting import PATIENCE_S


@pytest.fixture
def health() -> Health:
    """Give the health of a role that starts."""
    return Health()


@pytest.fixture
def calls() -> list[str]:
    """Collect what was done by POST."""
    return []


@pytest.fixture
def server(health: Health, calls: list[str]) -> Iterator[WebServer]:
    """Run a server with one action."""
    actions = {"/clock/accept": lambda: calls.append("accepted"), "/fail": lambda: calls.remove("")}
    server = WebServer(WebSettings(), health, actions)
    server.start()
    yield server
    server.stop()


def _get(server: WebServer, path: str) -> requests.Response:
    return requests.get(server.url + path, timeout=PATIENCE_S)


def test_ready_and_healthy_are_two_things(server: WebServer, health: Health) -> None:
    """A role that starts or waits is healthy but not ready; a broken one is neither."""

    def codes() -> tuple[int, int]:
        return _get(server, "/healthz").status_code, _get(server, "/readyz?verbose").status_code

    assert codes() == (200, 503)
    health.started()
    assert codes() == (200, 200)
    health.wait_for("assignment", "no partition yet")
    assert codes() == (200, 503)
    assert _get(server, "/readyz").json() == {
        "broken": {},
        "waiting": {"assignment": "no partition yet"},
    }
    health.arrived("assignment")
    health.broken("storage", "refuses")
    assert codes() == (503, 503)
    assert _get(server, "/healthz").json()["broken"] == {"storage": "refuses"}
    health.mended("storage")
    assert codes() == (200, 200)


def test_metrics_are_prometheus_text(server: WebServer) -> None:
    """The process's metrics come in the format that Prometheus reads."""
    answer = _get(server, "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "process_cpu_seconds_total" in answer.text


def test_an_action_is_done_by_post_only(server: WebServer, calls: list[str]) -> None:
    """A POST acts once; a GET of the same path does nothing; unknown paths name the known."""
    assert requests.post(server.url + "/clock/accept", timeout=PATIENCE_S).text == "done\n"
    assert _get(server, "/clock/accept").status_code == 404
    assert calls == ["accepted"]
    unknown = requests.post(server.url + "/clock", timeout=PATIENCE_S)
    assert (unknown.status_code, unknown.text) == (404, "known: /clock/accept /fail\n")
    assert "/metrics" in _get(server, "/").text


def test_an_action_that_fails_says_so(server: WebServer) -> None:
    """An error in an action is an answer, with its text, and the server goes on."""
    answer = requests.post(server.url + "/fail", timeout=PATIENCE_S)
    assert answer.status_code == 500
    assert "ValueError" in answer.text
    assert _get(server, "/metrics").status_code == 200


def test_a_taken_port_is_named(server: WebServer, health: Health) -> None:
    """A second server on a port says which setting to change."""
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(SettingsError, match=f"web.port {port} on .* BANDSTAND_WEB__PORT"):
        WebServer(WebSettings(port=port), health)


def test_stop_frees_the_port(health: Health) -> None:
    """The same port can be taken again at once, also from a server that never started."""
    first = WebServer(WebSettings(), health)
    port = int(first.url.rpartition(":")[2])
    first.stop()
    second = WebServer(WebSettings(port=port), health)
    second.start()
    assert _get(second, "/healthz").status_code == 200
    second.stop()
    WebServer(WebSettings(port=port), health).stop()
