from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from bandstand.errors import DecisionError
from bandstand.serving.contexts import split_context


def test_numbers_of_all_kinds_become_floats() -> None:
    """Python's and numpy's numbers and truth values are numeric; strings are categorical."""
    numeric, categorical = split_context(
        {
            "int": 3,
            "float": 0.5,
            "true": True,
            "half": np.float32(0.5),
            "count": np.int64(7),
            "flag": np.bool_(False),
            "third": Fraction(1, 4),
            "word": "x",
            "text": np.str_("y"),
        }
    )
    assert numeric == {
        "int": 3.0,
        "float": 0.5,
        "true": 1.0,
        "half": 0.5,
        "count": 7.0,
        "flag": 0.0,
        "third": 0.25,
    }
    assert {type(value) for value in numeric.values()} == {float}
    assert categorical == {"word": "x", "text": "y"}


@pytest.mark.parametrize(
    "value", [None, [1], {"a": 1}, b"x", 1j, float("nan"), float("inf"), -np.inf, 10**400]
)
def test_anything_else_is_refused_by_name(value: object) -> None:
    """A value that can't be logged is an error that names its key and what is allowed."""
    with pytest.raises(DecisionError, match=r"context 'age' is .*allowed: a finite number"):
        split_context({"size": 1.0, "age": value})


def test_finite_numbers_are_taken_even_if_their_sum_is_not() -> None:
    """Two numbers near the end of the range don't count as infinite."""
    assert split_context({"a": 1e308, "b": 1e308}).numeric == {"a": 1e308, "b": 1e308}


def test_a_key_that_is_no_string_is_refused() -> None:
    """Attributes have names."""
    context: Any = {1: 2.0}
    with pytest.raises(DecisionError, match="a key of type int; allowed: strings"):
        split_context(context)
