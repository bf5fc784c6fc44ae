"""Panels find densities wherever they lie, whatever scale they were told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, ndtr

from bandstand.learners import panels
from bandstand.learners.panels import largest_by_panels

Floats = np.ndarray[Any, np.dtype[np.float64]]


def logistic(z: Floats) -> tuple[Floats, Floats]:
    """Give cdf and density."""
    return expit(z), expit(z) * expit(-z)


def normal(z: Floats) -> tuple[Floats, Floats]:
    """Give cdf and density."""
    return ndtr(z), np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


@pytest.mark.parametrize("width", [1.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("place", [-2.0, 0.37, 7.1])
def test_a_density_that_the_first_panels_miss_is_found(place: float, width: float) -> None:
    """A variable that is not where, and far narrower than, it was said to be."""

    def standard(z: Floats) -> tuple[Floats, Floats]:
        below, density = logistic(z[:1])
        hidden, peak = normal((z[1:] - place) / width)
        return np.concatenate([below, hidden]), np.concatenate([density, peak / width])

    found = largest_by_panels(np.zeros(2), np.ones(2), -40.0, 40.0, standard)
    z = np.linspace(-9.0, 9.0, 2001)
    second = (normal(z)[1] * expit(place + width * z)).sum() * (z[1] - z[0])
    assert np.abs(found - [1 - second, second]).max() < 1e-8


@pytest.mark.parametrize("ratio", [1e3, 1e9, 1e14])
def test_narrow_variables_apart_from_each_other_keep_their_shapes(ratio: float) -> None:
    """Two pairs, a scale's distance within each and the width of a fifth between them."""
    narrow = 1 / ratio
    mean = np.array([0.25, 0.25 + 2 * narrow, 0.75, 0.75 + narrow, 0.0])
    scale = np.array([narrow, narrow, narrow, 2 * narrow, 1.0])
    found = largest_by_panels(mean, scale, -9.0, 9.0, normal)
    gap = mean[3] - mean[2]  # as rounded
    second = ndtr(0.75) * ndtr(gap / (np.sqrt(5) * narrow))
    expected = [0, 0, ndtr(0.75) - second, second, 1 - ndtr(0.75)]
    assert np.abs(found - expected).max() < 1e-9 + narrow


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One panel at a time adds up to the same."""
    rng = np.random.default_rng(4)
    mean, scale = rng.normal(size=9), 10 ** rng.uniform(-5, 0, size=9)
    found = largest_by_panels(mean, scale, -20.0, 20.0, logistic)
    monkeypatch.setattr(panels, "BLOCK", 1)
    assert np.abs(largest_by_panels(mean, scale, -20.0, 20.0, logistic) - found).max() < 1e-14


def test_a_thousandth_of_the_tolerance_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 random sets of variables, no probability moves by 1e-9."""
    rng = np.random.default_rng(8)
    for count in (2, 3, 5, 20, 60) * 12:
        scale = 10 ** rng.uniform(-rng.choice([0.01, 1, 3, 8]), 0, size=count)
        mean = rng.normal(size=count) * scale * rng.choice([0, 0.1, 2])
        lowest = float((mean - 8 * scale).max())
        with monkeypatch.context() as patched:
            found = largest_by_panels(mean, scale, lowest, 9.0, normal)
            patched.setattr(panels, "TOLERANCE", panels.TOLERANCE / 1000)
            finer = largest_by_panels(mean, scale, lowest, 9.0, normal)
        assert np.abs(found - finer).max() < 1e-9
