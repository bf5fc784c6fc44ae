"""`bandstand simulate`: table, document and picture, as docs/simulate.md shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bandstand.simulation.environments import ENVIRONMENTS
from bandstand.simulation.report import document, rows
from bandstand.simulation.run import Plan, Step, bundled, run
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
        curve = whole["curves"][policy.spec.bandit]
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


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_the_page_has_every_world(name: str) -> None:
    """By name, in its table."""
    assert f"| `{name}` |" in PAGE
