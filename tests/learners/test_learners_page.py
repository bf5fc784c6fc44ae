"""docs/learners.md has every learner as it is, and its example is one that works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bandstand.schemas.spec_policy import GROUP, learner, learner_names
from bandstand.testing import CHECKS, check_learner

HERE = Path(__file__).resolve().parent
PAGE = (HERE.parents[1] / "docs" / "learners.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|[^|]*\| ([0-9.]+) \| ([0-9.]+) \|$", re.M)
TESTED = re.compile(r"^\| (`[^|]+`) \|[^|]*\|[^|]*\| ([^|]+) \| `(\w+\.py)::(\w+)` \|$", re.M)
PEERS = ("test_peers.py", "test_linear_peers.py")
BLOCK = re.compile(r"<!-- run: (\S+) -->\n```\w+\n(.*?)```", re.S)
BOUND = {name: float(bound) for name, _, _, bound in ROW.findall(PAGE)}


def test_the_page_has_every_learner_with_its_parameters() -> None:
    """Names, parameters and defaults are those of the code; the regret is within its bound."""
    assert sorted(BOUND) == learner_names()
    for name, parameters, regret, bound in ROW.findall(PAGE):
        shown = {k: float(v) for k, v in re.findall(r"`(\w+)` \(([^)]+)\)", parameters)}
        fields = learner(name).parameters.model_fields
        assert shown == {k: field.default for k, field in fields.items() if k != "name"}
        assert float(regret) <= float(bound)


def sources_of(file: str) -> dict[str, str]:
    """Give the source of each test of a file, without its decorators."""
    text = (HERE / file).read_text()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    sources = {node.name: ast.get_source_segment(text, node) or "" for node in functions}
    return {name: source for name, source in sources.items() if name.startswith("test_")}


def test_the_page_has_what_each_learner_is_tested_against() -> None:
    """Each learner has a row with another library, and each such test a row.

    The tests that it names are there, have the tolerance in them, and know the learner.
    """
    rows = TESTED.findall(PAGE)
    compared = set()
    for listed, within, file, test in rows:
        names, source = re.findall(r"`(\w+)`", listed), sources_of(file)[test]
        assert within == "equal" or within in source, (test, within)
        stated = source.count("rtol=0") + source.count("rel_tol=")  # numpy's own is 1e-5
        assert source.count("close(") == stated, test
        assert all(f'"{name}"' in (HERE / file).read_text() for name in names), (test, names)
        if file in PEERS:
            compared |= set(names)
    assert sorted(compared) == learner_names()
    named = {(file, test) for _, _, file, test in rows}
    assert {(file, test) for file in PEERS for test in sources_of(file)} <= named


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", sorted(BOUND))
def test_conformance(name: str, check: str) -> None:
    """It keeps what is promised of all learners, and the bound of its regret on the page."""
    check_learner(name, only=check, regret=BOUND[name])


def test_the_strangers_program_is_the_one_that_is_tested() -> None:
    """Thirty lines, the very ones by which test_policies decides."""
    program = (HERE / "reader.py").read_text()
    assert dict(BLOCK.findall(PAGE))["reader.py"] == program
    assert len(program.splitlines()) <= 30


def test_the_example_is_found_and_passes_the_suite(tmp_path: Path) -> None:
    """The file, its entry point and its test, as the page has them, in another process."""
    blocks = dict(BLOCK.findall(PAGE))
    assert len(blocks["proportional.py"].splitlines()) <= 60
    for name in ("proportional.py", "test_proportional.py"):
        (tmp_path / name).write_text(blocks[name])
    points = tomllib.loads(blocks["pyproject.toml"])["project"]["entry-points"][GROUP]
    installed = tmp_path / "proportional-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: proportional\nVersion: 1.0\n")
    lines = [f"[{GROUP}]", *(f"{name} = {value}" for name, value in points.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(CHECKS)} passed" in done.stdout
