"""What commands print."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from bandstand.output import Output, progress_bar

ROWS = [{"bandit": "a", "error_rate": 0.123456}, {"bandit": "b [x]", "error_rate": 1234567.0}]


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows and records come out as JSON that a program reads back, and nothing else."""
    out = Output(as_json=True)
    out.rows(ROWS, "title")
    out.say("for people only")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == ROWS
    assert printed.err == ""
    out.rows([])
    assert json.loads(capsys.readouterr().out) == []
    out.record({"a": {"b": 1}})
    assert json.loads(capsys.readouterr().out) == {"a": {"b": 1}}


def test_tables_show_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    """A table has all columns and rows; brackets in data are data, not markup."""
    out = Output(as_json=False)
    out.rows(ROWS, "bandits")
    table = capsys.readouterr().out
    for text in ("bandits", "error rate", "0.1235", "1.235e+06", "b [x]"):
        assert text in table
    out.record({"a.b": {"c": 1}, "n": None})
    assert '{"c": 1}' in capsys.readouterr().out


def test_no_rows_are_said_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to show leaves standard output empty."""
    Output(as_json=False).rows([], "findings")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "findings: nothing\n")


@dataclass(frozen=True)
class _Job:
    task: str
    done: int
    total: int


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress is shown where people look, and never mixes with data."""
    with progress_bar() as report:
        report(_Job("fetch [jars]", 1, 2))
        report(_Job("fetch [jars]", 2, 2))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "fetch [jars]" in printed.err
    assert "100 %" in printed.err
