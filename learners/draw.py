"""The draw: which action a logged seed and the logged probabilities give."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["draw", "uniform"]

_MASK: Final = 2**64 - 1


def uniform(seed: int) -> float:
    """Give the number in [0, 1) that a seed stands for.

    It is the upper 53 bits of one step of SplitMix64 from the seed, over 2**53.

    Parameters
    ----------
    seed
        0 <= seed < 2**63.

    Examples
    --------
    >>> uniform(42)
    0.7415648787718233

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), fig. 17; the
    finalizer is David Stafford's variant 13.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed} is outside 0 to 2**63 - 1")
    z = (seed + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    z ^= z >> 31
    return (z >> 11) * 2.0**-53


def draw(probabilities: npt.ArrayLike, seed: int) -> int:
    """Draw the index of an action.

    It is the first whose cumulative probability exceeds `uniform` of the seed; where rounding
    leaves none, the last with a positive probability. So an action of probability 0 is never drawn.

    Parameters
    ----------
    probabilities
        float64[k], >= 0, sum 1; in the order in which the decision logs its actions.
    seed
        0 <= seed < 2**63.

    Examples
    --------
    >>> draw([0.5, 0.25, 0.25], seed=42)
    1
    """
    each = np.asarray(probabilities, dtype=np.float64)
    index = int(each.cumsum().searchsorted(uniform(seed), side="right"))
    return index if index < len(each) else int(each.nonzero()[0][-1])
