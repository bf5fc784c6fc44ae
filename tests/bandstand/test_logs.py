"""Logs: to standard error, in one form, without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from bandstand.logs import configure_logs, get_logger
from bandstand.settings import LogSettings


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_is_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Bandstand's events and libraries' come out alike, with their facts, on standard error."""
    configure_logs(LogSettings(format="json"))
    get_logger("bandstand.thing").info("moved", partition=3, name="x")
    get_logger("bandstand.thing").debug("nobody sees this")
    logging.getLogger("library").warning("old %s", "way")
    out, err = capsys.readouterr()
    first, second = (json.loads(line) for line in err.splitlines())
    assert out == ""
    assert {k: first[k] for k in ("event", "level", "logger", "partition", "name")} == {
        "event": "moved",
        "level": "info",
        "logger": "bandstand.thing",
        "partition": 3,
        "name": "x",
    }
    assert (second["event"], second["level"]) == ("old way", "warning")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variables(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception is logged with its traceback, but not with the passwords around it."""

    def fail(password: str) -> None:
        raise RuntimeError(f"{len(password)} letters")

    configure_logs(LogSettings.model_validate({"format": form}))
    try:
        fail("".join(["ge", "heim"]))
    except RuntimeError as error:
        get_logger("bandstand.thing").critical("dies", exc_info=error)
    err = capsys.readouterr().err
    assert "6 letters" in err
    assert "test_logs.py" in err
    assert "geheim" not in err


def test_a_library_keeps_its_users_set_up(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `configure_logs`, events go to the service's own handlers, as text, not to stdout."""
    before = structlog.is_configured()
    with caplog.at_level("INFO"):
        get_logger("bandstand.other").info("moved", partition=3)
    assert caplog.messages == ["moved partition=3"]
    assert capsys.readouterr().out == ""
    assert structlog.is_configured() == before


def test_a_client_library_says_the_same_thing_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A broker that is away costs a line now and then, whatever the numbers in it."""
    configure_logs(LogSettings(format="json"))
    for attempt in range(100):
        logging.getLogger("librdkafka").error("broker 1 is away (after %s ms)", attempt)
        get_logger("bandstand.thing").error("ours")
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events.count("ours") == 100
    assert [event for event in events if event != "ours"] == ["broker 1 is away (after 0 ms)"]
