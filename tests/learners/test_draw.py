"""The draw is a function of seed and probabilities that anybody can redo."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from bandstand.learners.draw import draw, uniform


def test_five_lines_redo_a_draw() -> None:
    """The documented rule, written out once more, gives the same actions."""
    rng = np.random.default_rng(3)
    for seed in rng.integers(0, 2**63, size=500).tolist():
        p = rng.dirichlet(np.ones(5))
        z = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        u = ((z ^ z >> 31) >> 11) / 2**53
        assert draw(p, seed) == sum(u >= c for c in np.cumsum(p))


def test_numbers_of_a_seed_never_change() -> None:
    """Seeds are logged, so each keeps its number for good."""
    assert [uniform(s) for s in (0, 1, 42, 2**63 - 1)] == [
        0.8833108082136426,
        0.5665615751722809,
        0.7415648787718233,
        0.16564699010451844,
    ]


@pytest.mark.parametrize("sequential", [True, False])
def test_frequencies_match_the_probabilities(sequential: bool) -> None:
    """A chi-square test over 200,000 draws passes, for counted and for random seeds."""
    count = 200_000
    probabilities = np.array([0.5, 0.3, 0.15, 0.0, 0.049, 0.001])
    seeds = range(count)
    if not sequential:
        seeds = np.random.default_rng(1).integers(0, 2**63, size=count).tolist()
    drawn = np.bincount([draw(probabilities, seed) for seed in seeds], minlength=6)
    assert drawn[3] == 0
    some = probabilities > 0
    assert chisquare(drawn[some], probabilities[some] * count).pvalue > 1e-4


def test_rounding_never_gives_an_impossible_action() -> None:
    """Where the sum falls short of 1, the last possible action is drawn."""
    seed = next(s for s in range(10_000) if uniform(s) > 0.999)
    assert draw([0.5, 0.499, 0.0], seed) == 1
    assert draw([0.0, 1.0], 0) == 1


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_outside_its_range_is_refused(seed: int) -> None:
    """Seeds are what a signed 64-bit field of the log holds, without a sign."""
    with pytest.raises(ValueError, match="outside 0 to"):
        draw([1.0], seed)
