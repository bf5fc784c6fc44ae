"""Each benchmark runs, in a tiny size, so that none rots; nothing here judges speed."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest

from bandstand.local import Kafka
from benchmarks import archiving, codec, joining, report, serving
from benchmarks.__main__ import PREPARE, Name
from benchmarks.measure import TINY, Benchmark, Contestant, Ratio, run


def runs(prepared: AbstractContextManager[Benchmark], folder: Path) -> None:
    """Run a benchmark, and check that its report is whole."""
    rounds: list[int] = []
    with prepared as benchmark:
        result = run(benchmark, TINY.rounds, rounds.append)
    assert rounds == [0, 1, 2]
    assert report.table(benchmark, result).row_count > len(benchmark.ratios)
    document = json.loads(report.write(folder, benchmark, result).read_text())
    assert document["benchmark"] == benchmark.name
    assert set(document["figures"]) == {c.name for c in benchmark.contestants}
    assert document["machine"]["cores"] >= 1
    for figures in document["figures"].values():
        for figure in figures.values():
            assert len(figure["rounds"]) == TINY.rounds
            assert 0 <= figure["min"] <= figure["median"] <= figure["max"]


@pytest.mark.parametrize("module", [codec, archiving, joining])
def test_a_benchmark_without_servers_runs(module: ModuleType, tmp_path: Path) -> None:
    """The contestants do the same work, and the report has all of them."""
    runs(module.prepare(TINY), tmp_path)


def test_serving_runs(bandstand_kafka: Kafka, bandstand_prefix: str, tmp_path: Path) -> None:
    """Decisions are made from a published snapshot and reach the broker."""
    runs(serving.on_broker(TINY, bandstand_kafka.bootstrap_servers, bandstand_prefix), tmp_path)


def test_every_benchmark_is_on_the_command_line() -> None:
    """No module is forgotten in the list."""
    assert set(PREPARE) == set(Name)
    assert {prepare.__module__.rpartition(".")[2] for prepare in PREPARE.values()} == set(Name)


def test_ratios_are_taken_within_each_round() -> None:
    """A disturbance that meets both sides of a round leaves the ratio alone; warm-up is out."""
    ours, theirs = iter([9.0, 1.0, 10.0, 2.0]), iter([1.0, 3.0, 30.0, 6.0])
    benchmark = Benchmark(
        "made up",
        "",
        "turn",
        {},
        [
            Contestant("ours", lambda: {"us": next(ours)}),
            Contestant("theirs", lambda: {"us": next(theirs)}),
        ],
        [Ratio("us", over="theirs", under="ours")],
    )
    result = run(benchmark, 3, lambda _: None)
    assert result.ratios[0][1].rounds == [3.0, 3.0, 3.0]
    assert result.figures["ours"]["us"][:3] == (2.0, 1.0, 10.0)
