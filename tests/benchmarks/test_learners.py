"""The learners' benchmark runs in a small size, so that it can't rot; no speed is judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandstand.local import Progress
from benchmarks.join import page
from benchmarks.learners import results
from benchmarks.learners.__main__ import PEERS, PUBLISHED, Amount, measured, processes
from benchmarks.learners.world import BATCHES, CASES, Case, batches, rows

TINY = Amount(rounds=2, seconds=0.0, calls=2, bandits=3)


@pytest.fixture(scope="module")
def run() -> Any:
    """Give a run of our own process alone; the peers aren't installed for tests."""
    told: list[Progress] = []
    with processes((sys.executable, "benchmarks.learners.ours")) as contestants:
        found = measured(contestants, CASES[:1], (1, 100, 1_000), TINY, told.append)
    assert (told[-1].done, told[-1].total) == (7, 7)
    document: Any = json.loads(json.dumps(results.document(found, PEERS)))
    return document


def test_all_contestants_take_their_turns(run: Any) -> None:
    """Each has a figure for every size that it takes, of the rounds that count."""
    names = {name for name in run["says"] if name != "bandstand, from Avro"}
    for batch in (1, 100, 1_000):
        mine = {row["contestant"] for row in run["update"] if row["batch"] == batch}
        assert mine - {"bandstand, from Avro"} == names
    for row in run["update"]:
        assert len(row["rows_per_second"]["rounds"]) == TINY.rounds
        assert row["rows_per_second"]["min"] > 0
        assert (row["ours_over_it_rows_per_second"] == 1.0) or row["contestant"] != "bandstand"
    [decided] = run["decide"]
    assert (decided["contestant"], decided["probabilities"]) == ("bandstand", True)
    assert 0 < decided["p50_us"]["median"] <= decided["p99_us"]["median"]
    assert [row["contestant"] for row in run["publish"]] == [f"{n} of {k}" for k, n in PUBLISHED]
    assert set(results.PEERS) < set(run["versions"])


def test_figures_reach_the_file_and_the_page(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables, picture and page can be made of a run; only what stands between the marks changes."""
    wide = [{**row, "case": CASES[1]} for row in run["update"]]
    whole = {**run, "update": run["update"] + wide}
    whole["decide"] = run["decide"] + [{**row, "case": CASES[1]} for row in run["decide"]]
    path = results.write(tmp_path, whole)
    assert json.loads(path.read_text())["update"][0]["batch"] == 1
    assert (tmp_path / "learners.png").stat().st_size > 10_000
    titles = [str(table.title) for table in results.tables(whole)]
    assert [title.partition(":")[0].partition(",")[0] for title in titles] == [
        "Updates",
        "Updates",
        "One decision",
        "Publishing 1",
        "Wanted",
    ]
    text = page._PAGE.read_text()
    monkeypatch.setattr(page, "_PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(results, "PICTURES", tmp_path)
    page._PAGE.write_text(text)
    results.put_in_docs(whole)
    changed = page._PAGE.read_text()
    begin, end = text.index("<!-- learners: begin -->"), text.index("<!-- learners: end -->")
    assert changed.startswith(text[:begin])
    assert changed.endswith(text[end:])
    assert "| bandstand, solved | " in changed
    assert (tmp_path / "learners-speed.png").exists()


@pytest.mark.parametrize("size", BATCHES)
def test_batches_are_different_ones_of_the_same_rows(size: int) -> None:
    """Contestants of both processes see the same, and no batch has another's rows."""
    case = Case(3, 4)
    parts = batches(case, size)
    whole = rows(case, size * len(parts))
    assert np.array_equal(np.concatenate([part.x for part in parts]), whole.x)
    assert all(len(part.actions) == size for part in parts)
    assert (whole.x[:, 0] == 1.0).all()
    assert len(parts) == min(200, 10_000 // size)
