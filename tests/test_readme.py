"""The README's snippets and commands run as they stand, so that it can't drift."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from bandstand.settings import load_settings
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(?:<!-- run: (?P<name>[^>]+?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.S)


def blocks() -> dict[str, str]:
    """Give the README's code blocks by the name of what is to be run."""
    found = {}
    for match in BLOCK.finditer((ROOT / "README.md").read_text()):
        assert match["name"], (
            f"a block without '<!-- run: NAME -->' before it: {match['text'][:80]}"
        )
        found[match["name"]] = match["text"]
    return found


def commands(text: str) -> list[str]:
    """Give the commands of a shell block, without comments."""
    lines = (line.split("  #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def clean_environment() -> dict[str, str]:
    """Give this process's environment with the project's programs first and no settings."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("BANDSTAND_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def sh(
    command: str, folder: Path, environment: Mapping[str, str], seconds: float = PATIENCE_S
) -> str:
    """Run a command as a user's shell does; fail with all that it said."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def in_background(command: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Run what a user ends by Ctrl-C; gives its log."""
    log = folder / "roles.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command.split(), cwd=folder, env=environment, stderr=out)
    try:
        yield log
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        code = process.wait(PATIENCE_S)
    assert code == 0, log.read_text()


def exports(text: str) -> dict[str, str]:
    """Give what a shell would export."""
    return dict(re.findall(r"^export (\w+)=(\S+)", text, re.M))


def await_snapshots(folder: Path, environment: Mapping[str, str], log: Path) -> None:
    """Wait until the publisher has published the bandit's first snapshot."""
    until(
        lambda: json.loads(sh("bandstand snapshot list --json", folder, environment)),
        log.read_text,
    )


def test_the_readme_takes_a_new_user_from_a_spec_to_a_decision(tmp_path: Path) -> None:
    """Every command and snippet of the guided part works, in its order, on real servers."""
    text = blocks()
    (tmp_path / "homepage.yaml").write_text(text["spec homepage.yaml"])
    up, into_shell, create, apply, run = commands(text["shell"])
    bare = clean_environment()
    try:
        sh(up, tmp_path, bare, seconds=3 * PATIENCE_S)
        environment = {**bare, **exports(sh("bandstand dev env", tmp_path, bare))}
        assert into_shell == 'eval "$(bandstand dev env)"'
        sh(create, tmp_path, environment)
        sh(apply, tmp_path, environment)
        with in_background(run, tmp_path, environment) as log:
            await_snapshots(tmp_path, environment, log)
            service = text["service"] + text["reward"] + "rewards.flush()\nclient.close()\n"
            sh(f"python - <<'END'\n{service}\nprint(choice)\nEND", tmp_path, environment)
            for command in commands(text["look"]):
                assert sh(command, tmp_path, environment)
    finally:
        sh("bandstand dev down --delete-data", tmp_path, bare)
    assert not (tmp_path / ".bandstand").exists()


def test_the_settings_for_production_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README exports is what the settings take."""
    variables = exports(blocks()["production"])
    assert len(variables) == 4
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.kafka.security_protocol == "SASL_SSL"
    assert list(settings.lanes) == ["checkout"]


def test_make_demo_gives_its_figures_and_leaves_nothing_running(tmp_path: Path) -> None:
    """The first command of the README does the main job, and every figure is right."""
    demo, _ = commands(blocks()["two commands"])
    tree = tmp_path / "tree"
    tree.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("build", ".git"):
            (tree / path.name).symlink_to(path)
    sh(demo, tree, clean_environment(), seconds=10 * PATIENCE_S)
    summary = json.loads((tree / "build/demo/summary.json").read_text())
    assert summary["open_bandit"]["joined"] == 38
    assert summary["open_bandit_broken"]["dead_letters"] == 20
    assert summary["digits"]["error_last_2000"] < 0.25
    assert (tree / "build/demo/report.png").stat().st_size > 10_000
    left = subprocess.run(
        ["pgrep", "-f", "bandstand-demo-"], capture_output=True, text=True, check=False
    )
    assert not left.stdout
