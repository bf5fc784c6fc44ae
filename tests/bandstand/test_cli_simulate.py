"""`bandstand simulate`: table, document and picture, as docs/simulate.md shows them."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from bandstand.simulation.environments import ENVIRONMENTS
from bandstand.simulation.report import document, draw_png, rows
from bandstand.simulation.run import Plan, Step, bundled, load, notes, run
from tests.bandstand.calling import Call

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "simulate.md").read_text()


def test_policies_are_played_in_processes_as_alone() -> None:
    """Every seed of every policy is there once; curves and rows are made of them."""
    steps = list[Step]()
    plan = Plan(bundled(), "bernoulli,low=0.1,high=0.9", 600, 50, seeds=3)
    policies = run(plan, steps.append)
    assert [(step.done, step.total) for step in steps] == [(n, 12) for n in range(1, 13)]
    assert [policy.regret.shape for policy in policies] == [(3, 12)] * 4
    shown = rows(policies)
    assert [row["regret"] for row in shown] == sorted(row["regret"] for row in shown)
    whole = document(plan, policies)
    for policy in policies:
        curve = whole["curves"][policy.name]
        assert curve["decisions"] == list(range(50, 601, 50))
        assert np.allclose(curve["regret_mean"], policy.regret.mean(axis=0))
        assert (np.array(curve["regret_p10"]) <= np.array(curve["regret_p90"])).all()
        assert np.allclose(np.sum(curve["shares"], axis=1), 1)


def test_the_command_prints_a_document_and_draws(call: Call, tmp_path: Path) -> None:
    """Bundled policies without arguments; the picture is one."""
    picture = tmp_path / "regret.png"
    few = ("--decisions", "300", "--seeds", "2", "--png", str(picture))
    code, out, _ = call("simulate", *few, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["decisions"], found["seeds"], len(found["results"])) == (300, 2, 4)
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = call("simulate", *few)
    assert table.code == 0
    assert [name in table.out for name in ("ab_test", "thompson", "ucb1")] == [True] * 3


def test_policies_with_other_actions_are_not_compared(call: Call, tmp_path: Path) -> None:
    """One line names both."""
    for name, actions in (("a", "[x, y]"), ("b", "[x, z]")):
        (tmp_path / f"{name}.yaml").write_text(
            f"bandit: {name}\nactions: {actions}\npolicy: {{name: uniform}}\nreward: {{name: c}}\n"
        )
    code, _, err = call("simulate", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert code == 1
    assert "bandits 'a' and 'b' have other actions: x, y, but x, z;" in " ".join(err.split())


FEW = ("--decisions", "200", "--seeds", "2")


def written(path: Path, policy: str, more: str = "", bandit: str = "home") -> str:
    """Write a spec of two actions, and give its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"bandit: {bandit}\nactions: [x, y]\npolicy: {{name: {policy}}}\n"
        f"reward: {{name: click}}\n{more}"
    )
    return str(path)


def test_no_result_is_lost_where_bandits_coincide(call: Call, tmp_path: Path) -> None:
    """Curves and rows have one name each: the bandit's, with its file's where it must be."""
    files = [
        written(tmp_path / "x1.yaml", "uniform"),
        written(tmp_path / "x2.yaml", "ucb1"),
        written(tmp_path / "sub" / "x2.yaml", "softmax"),
        written(tmp_path / "x3.yaml", "exp3", bandit="other"),
    ]
    names = ["home (x1.yaml)", f"home ({files[1]})", f"home ({files[2]})", "other"]
    assert list(load([Path(file) for file in files])) == names
    found = json.loads(call("simulate", *files, *FEW, "--json").out)
    assert list(found["curves"]) == names
    rows = {row["name"]: (row["bandit"], row["policy"]) for row in found["results"]}
    assert rows == dict(
        zip(
            names,
            [("home", "uniform"), ("home", "ucb1"), ("home", "softmax"), ("other", "exp3")],
            strict=True,
        )
    )
    for row in found["results"]:
        last = found["curves"][row["name"]]["regret_mean"][-1]
        assert row["regret"] == pytest.approx(last, abs=0.051)
    table = call("simulate", *files[::3], files[1], *FEW).out
    assert [name in table for name in ("x1.yaml", "x2.yaml", "other")] == [True] * 3
    code, _, err = call("simulate", files[0], *files[:2])
    assert code == 1
    assert "x1.yaml is given twice" in err


def test_a_picture_names_each_curve(tmp_path: Path) -> None:
    """By what tells it from the others, also where bandits coincide."""
    files = [Path(written(tmp_path / f"{name}.yaml", "uniform")) for name in ("one", "two")]
    plan = Plan(load(files), "bernoulli", 200, 100, seeds=1)
    picture = tmp_path / "regret.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_png(plan, run(plan, lambda _: None), picture)
    drawn = picture.read_text()
    assert "home (one.yaml): uniform" in drawn
    assert "home (two.yaml): uniform" in drawn


@pytest.mark.parametrize("world", ["linear", "logistic"])
def test_the_bundled_policies_play_in_worlds_with_context(call: Call, world: str) -> None:
    """A note says that the world's features are its own."""
    code, out, err = call("simulate", "--env", world, *FEW)
    assert code == 0
    assert "beta_thompson" in out
    assert f"note: environment {world}: no spec has features" in " ".join(err.split())


def test_what_is_not_played_is_said(call: Call, tmp_path: Path) -> None:
    """On standard error, with the section's name, and in the document."""
    more = "since: 2026-11-29T20:00:00Z\ndrift: {step: 10m}\n"
    file = written(tmp_path / "home.yaml", "beta_thompson", more)
    result = call("simulate", file, *FEW, "--json")
    found = json.loads(result.out)
    assert [note.partition(" (")[0] for note in found["notes"]] == [
        "bandit 'home': since",
        "bandit 'home': drift.step",
    ]
    assert all(f"note: {note}" in result.err for note in found["notes"])
    assert found["results"][0]["changes"] == 0
    paced = Plan(load([Path(file)]), "bernoulli", 200, pace_ms=3_600_000)
    assert [note.partition(" (")[0] for note in notes(paced)] == ["bandit 'home': since"]


def test_the_pace_is_that_of_the_run(call: Call) -> None:
    """The option is read as a duration, and stands in the document."""
    found = json.loads(call("simulate", *FEW, "--pace", "1h", "--json").out)
    assert (found["pace_ms"], found["notes"]) == (3_600_000, [])


@pytest.mark.parametrize(
    ("pace", "code", "message"),
    [
        ("soon", 2, "'soon' is not a duration"),
        ("0s", 2, "0 is not allowed"),
        ("9000d", 1, "200 decisions, 9000d each, last longer than 1,000 years"),
    ],
)
def test_a_pace_that_is_none_is_refused(call: Call, pace: str, code: int, message: str) -> None:
    """With what is allowed."""
    result = call("simulate", *FEW, "--pace", pace)
    assert result.code == code
    assert message in " ".join(result.err.split())


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_the_page_has_every_world(name: str) -> None:
    """By name, in its table."""
    assert f"| `{name}` |" in PAGE
