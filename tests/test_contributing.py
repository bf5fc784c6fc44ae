"""CONTRIBUTING.md speaks of what is there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_make_target_is_there() -> None:
    """Whatever is said to be made can be made."""
    named = set(re.findall(r"\bmake ([a-z-]+)\b", re.sub(r"\bmake,", "", TEXT)))
    assert {"test", "lint", "lock", "demo", "dev"} <= named
    assert named - set(TARGETS) == set()


def test_every_path_is_there() -> None:
    """Every file and folder that is named in a command, a link or as code exists."""
    paths = re.findall(
        r"(?<![\w./])((?:tests|locks|docs|local|schemas|bandstand)/[\w./-]*\w)", TEXT
    )
    paths += re.findall(r"\]\(([\w./-]+)\)", TEXT)
    paths += re.findall(r"`([\w-]+\.(?:toml|yml)|Dockerfile|\.dockerignore|\.ci/run)`", TEXT)
    made_by_the_reader = {"bandstand/evaluation"}
    assert len(paths) > 15
    assert [p for p in paths if not (ROOT / p).exists() and p not in made_by_the_reader] == []


def test_every_module_that_is_run_is_there() -> None:
    """Modules given to `python -m` are modules."""
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        path = ROOT / module.replace(".", "/")
        assert module == "pytest" or path.with_suffix(".py").exists()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_examples_run(block: str) -> None:
    """The examples compile, and what they claim is so."""
    names: dict[str, object] = {"__name__": "contributing"}
    exec(compile("from __future__ import annotations\n" + block, "CONTRIBUTING.md", "exec"), names)
    runner = doctest.DocTestRunner()
    for name, thing in names.items():
        for example in doctest.DocTestFinder().find(thing, name, globs=names, module=False):
            assert runner.run(example).failed == 0
