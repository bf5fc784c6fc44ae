"""The command line: what goes where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bandstand import __version__, cli
from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames, artifact_key
from bandstand.schemas.wire import wire_from
from bandstand.settings import load_settings
from tests.bandstand.calling import Call, Result
from tests.schemas.golden import EXAMPLES
from tests.streams.given import given_records


def _commands(app: typer.Typer, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for command in app.registered_commands:
        function = command.callback.__name__ if command.callback else ""
        found.append((*path, command.name or function.replace("_", "-")))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            found += _commands(group.typer_instance, (*path, group.name or ""))
    return found


@pytest.mark.parametrize("command", _commands(cli.app), ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...], call: Call) -> None:
    """`--help` of each command works and says what it does, without a broker."""
    code, out, err = call(*command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: bandstand")
    assert len([line for line in out.splitlines() if line.strip()]) >= 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("settings", "--yaml"),
        ("topics", "frobnicate"),
        ("apply",),
        ("run", "join", "lern"),
        ("--config",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(arguments: tuple[str, ...], call: Call) -> None:
    """A command, option or argument that isn't there: usage on standard error, exit code 2."""
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: bandstand" in err or "requires an argument" in err
    assert "Traceback" not in err


def test_an_unknown_role_is_named(call: Call) -> None:
    """`run` says which role it doesn't know, and which there are."""
    err = " ".join(call("run", "lern").err.split())
    assert "unknown role 'lern'; allowed: join, learn, publish, archive" in err


def test_version(call: Call) -> None:
    """`--version` is one line."""
    assert call("--version") == Result(0, f"bandstand {__version__}\n", "")


def test_settings_as_table_and_json(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are shown with what is in force, secrets masked, for people and for programs."""
    monkeypatch.setenv("BANDSTAND_KAFKA__SASL_PASSWORD", "geheim")
    monkeypatch.setenv("BANDSTAND_LANES__CHECKOUT__WINDOW", "7d")
    table = call("settings")
    assert table.code == 0
    assert "lanes.checkout.window" in table.out
    document = call("settings", "--json")
    assert json.loads(document.out)["lanes"]["checkout"]["window"] == "7d"
    for shown in (table.out, document.out):
        assert "geheim" not in shown
        assert "****" in shown


def test_a_users_mistake_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting: exit code 1, one line on standard error, nothing on standard output."""
    monkeypatch.setenv("BANDSTAND_WEB__PROT", "1")
    code, out, err = call("settings", "--json")
    assert (code, out) == (1, "")
    assert err.startswith("error: environment variable BANDSTAND_WEB__PROT: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.yaml", None, "missing.yaml"),
        ("broken.yaml", "bandit: [", "broken.yaml"),
        ("unknown.yaml", "bandit: x\nactons: [a]\n", "actions"),
    ],
)
def test_a_wrong_spec_is_one_error(
    name: str, text: str | None, message: str, call: Call, tmp_path: Path
) -> None:
    """A spec that can't be read is named before anything is asked of Kafka."""
    if text is not None:
        (tmp_path / name).write_text(text)
    code, out, err = call("apply", name)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """With `--debug` an expected error comes with where it was raised, and exit code 1."""
    command = [sys.executable, "-m", "bandstand", "--config", "nowhere.toml"]
    for debug in ([], ["--debug"]):
        done = subprocess.run(
            [*command, *debug, "settings"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "nowhere.toml can't be read: No such file" in done.stderr
        assert ("Traceback" in done.stderr) == bool(debug)


def test_topics_create_and_check(kafka: Kafka, call: Call) -> None:
    """What is created passes the check; what isn't there is a finding, and exit code 1."""
    missing = call("topics", "check", "--json")
    assert missing.code == 1
    assert all("finding" in row for row in json.loads(missing.out))
    created = json.loads(call("topics", "create", "--json").out)
    assert len(created) == len(json.loads(missing.out)) > 5
    again = call("topics", "create", "--json")
    assert (again.code, json.loads(again.out), again.err) == (0, [], "")
    assert call("topics", "check") == Result(
        0, "", "findings: nothing\ntopics are as they must be\n"
    )


def test_snapshot_show_describes_every_solution(kafka: Kafka, call: Call) -> None:
    """Shapes for arrays and dates for times, in the record and in the solutions that it carries."""
    del kafka
    assert call("topics", "create").code == 0
    record, settings = EXAMPLES["snapshot"], load_settings()
    key = artifact_key(record["bandit"], record["version"])
    artifact = key, wire_from(settings).dumps("snapshot", record)
    given_records(settings, TopicNames(settings.topics.prefix).snapshots, artifact)
    code, out, _ = call("snapshot", "show", "homepage", record["version"], "--json")
    assert code == 0
    shown = json.loads(out)
    (part,) = shown["earlier"]
    assert (part["weight"], part["newest"], part["spec"]) == (0.75, None, {})
    assert shown["arrays"] == part["arrays"] == {"mean": [1]}
    assert shown["newest"] == "2023-11-14T22:13:20.123+00:00"
    assert shown["carried"]["newest"] == "2023-11-14T22:13:20.122+00:00"


def test_apply_tells_the_epoch(kafka: Kafka, call: Call, tmp_path: Path) -> None:
    """An applied spec is told with its epoch, as JSON, with nothing else on standard output."""
    call("topics", "create")
    (tmp_path / "a.yaml").write_text(
        "bandit: a\nactions: [x, y]\npolicy: {name: beta_thompson}\nreward: {name: click}\n"
    )
    code, out, err = call("apply", "a.yaml", "--json", "--author", "me", "--reason", "new")
    assert (code, err) == (0, "")
    assert [row["bandit"] for row in json.loads(out)] == ["a"]


def test_apply_takes_folders_and_applies_all_or_none(
    kafka: Kafka, call: Call, tmp_path: Path
) -> None:
    """Files of a folder go by name; one without any is a mistake, and so are two of one bandit."""
    call("topics", "create")
    folder = tmp_path / "specs"
    folder.mkdir()
    refused = call("apply", "specs")
    assert "specs: no spec is there; allowed: files ending in .yaml or .yml" in refused.err
    for name in ("b.yaml", "a.yml", "c.txt"):
        spec = "actions: [x, y]\npolicy: {name: uniform}\nreward: {name: r}\n"
        (folder / name).write_text(f"bandit: {name[0]}\n{spec}")
    (tmp_path / "again.yaml").write_text((folder / "b.yaml").read_text())
    twice = call("apply", "specs", "again.yaml")
    assert (twice.code, twice.err) == (1, "error: several specs of 'b'; give one a bandit\n")
    rows = json.loads(call("apply", "specs", "--json").out)
    assert [row["bandit"] for row in rows] == ["a", "b"]
    assert rows[1]["epoch"] == rows[0]["epoch"] + 1
    assert json.loads(call("apply", "specs", "--json").out) == rows


def test_apply_says_whose_logs_evaluate_nothing(kafka: Kafka, call: Call, tmp_path: Path) -> None:
    """A deterministic policy without a floor is applied, and its owner told; one with, not."""
    call("topics", "create")
    spec = "bandit: a\nactions: [x, y]\npolicy: {name: ucb1}\nreward: {name: click}\n"
    (tmp_path / "a.yaml").write_text(spec)
    code, _, err = call("apply", "a.yaml")
    assert code == 0
    said = " ".join(err.split())
    assert "'a': ucb1 takes one action for sure and its floor is 0" in said
    (tmp_path / "a.yaml").write_text(spec + "floor: 0.01\n")
    assert call("apply", "a.yaml").err == ""


def test_a_broker_that_is_away_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker: one line that says where it was looked for, exit code 1, no noise of a library."""
    monkeypatch.setattr("bandstand.streams.topics._TIMEOUT_S", 0.5)
    monkeypatch.setenv("BANDSTAND_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    code, out, err = call("topics", "check")
    assert (code, out) == (1, "")
    assert "is Kafka up where kafka.bootstrap_servers says?" in err
    assert len(err.splitlines()) == 1


def test_the_demo_says_what_it_needs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra it is one line with the remedy, not a traceback."""
    for name in [name for name in sys.modules if name.startswith("bandstand.demo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    result = call("demo")
    assert result.code == 1
    assert result.err == "error: the demo needs the package duckdb: pip install 'bandstand[demo]'\n"
