"""Serving and learning see the same columns, whichever way they come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.errors import DecisionError
from bandstand.learners.features import Built, Features, bucket
from bandstand.learners.grid import STEPS
from tests.learners.given import batch, beta_spec, linear_spec, outcome

SPEC = linear_spec()
FEATURES = Features(SPEC)
TEXT = st.sampled_from(["ch", "no", "de", "", "/a", "/b", "ü"])
CONTEXT = st.fixed_dictionaries(
    {},
    optional={
        "age": st.floats(allow_nan=False, allow_infinity=False),
        "spend": st.one_of(st.floats(-4, 1), st.integers(-5, 5)),
        "land": TEXT,
        "page": TEXT,
        "elsewhere": TEXT,
    },
)


def built(*outcomes: dict[str, Any]) -> Built:
    """Build the columns of outcomes."""
    return FEATURES.matrix(batch(outcomes).column("decision"))


def from_context(context: dict[str, Any]) -> dict[str, Any]:
    """Give the outcome of a service that logs attributes only."""
    numeric = {k: float(v) for k, v in context.items() if not isinstance(v, str)}
    return outcome(numeric=numeric, words={k: v for k, v in context.items() if isinstance(v, str)})


def from_vector(context: dict[str, Any]) -> dict[str, Any]:
    """Give the outcome of a service that logs the vector."""
    vector = FEATURES.vector(context).tolist()
    return outcome(vector=vector, features_hash=SPEC.features_hash)


@settings(deadline=None)
@given(contexts=st.lists(CONTEXT, max_size=6), data=st.data())
def test_maps_vectors_and_serving_agree_to_the_bit(
    contexts: list[dict[str, Any]], data: st.DataObject
) -> None:
    """A vector made for serving, logged or rebuilt from attributes, alone or mixed, is the same."""
    served = np.array([FEATURES.vector(c) for c in contexts]).reshape(-1, FEATURES.dimension)
    for ways in (
        [from_context] * len(contexts),
        [from_vector] * len(contexts),
        [data.draw(st.sampled_from([from_context, from_vector])) for _ in contexts],
    ):
        rows = [way(context) for way, context in zip(ways, contexts, strict=True)]
        answer = built(*rows)
        assert (answer.steps / STEPS == served).all()
        assert not answer.rejected


def test_columns_are_as_documented() -> None:
    """Low is -1, high 1, the middle or nothing 0; words stand in their own column."""
    assert FEATURES.names == (
        *("intercept", "age", "land=ch", "land=no", "spend", "page#0", "page#1", "page#2"),
    )
    cold = FEATURES.vector({"age": 0, "spend": 0.1, "land": "no"})
    assert cold.tolist() == [1, -1, 0, 1, 1, 0, 0, 0]
    assert cold.dtype == np.float32
    warm = FEATURES.vector({"age": 80.0, "spend": -1.45, "land": "xx", "page": "/a"})
    assert warm.tolist() == [1, 1, 0, 0, 0, *(bucket("page", "/a", 3) == i for i in range(3))]
    assert FEATURES.vector({}).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert FEATURES.vector({"age": None, "land": None}).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_hash_buckets_never_change() -> None:
    """Buckets are stored in snapshots, so a word keeps its bucket for good."""
    assert [bucket("page", word, 16) for word in ("", "/home", "ü")] == [2, 3, 15]


def test_a_policy_without_context_has_no_columns() -> None:
    """Its vector and matrix have width 0."""
    features = Features(beta_spec())
    assert features.vector({"age": 1.0}).shape == (0,)
    assert features.matrix(batch([outcome()]).column("decision")).steps.shape == (1, 0)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"age": "7"}, "attribute 'age' is '7'; its feature takes a number"),
        ({"age": b"7"}, "takes a number"),
        ({"age": [7]}, "takes a number"),
        ({"age": float("nan"), "spend": 1}, "attribute 'age' is nan; give a finite number"),
        ({"spend": float("-inf")}, "attribute 'spend' is -inf; give a finite number"),
        ({"age": 10**400}, "give a finite number"),
        ({"page": "\ud83d"}, "attribute 'page' is '.ud83d', which has half of a surrogate pair"),
        ({"land": 7}, "attribute 'land' is 7; its feature takes text"),
    ],
)
def test_a_wrong_attribute_is_refused(context: dict[str, Any], message: str) -> None:
    """Serving says which attribute is wrong, and what its feature takes."""
    with pytest.raises(DecisionError, match=message):
        FEATURES.vector(context)


def test_numbers_of_any_type_are_numbers() -> None:
    """Ints, bools and numpy's numbers give what the float gives."""
    for seven in (7, np.float32(7), np.int16(7), np.float64(7)):
        assert (FEATURES.vector({"age": seven}) == FEATURES.vector({"age": 7.0})).all()
    assert (FEATURES.vector({"age": True}) == FEATURES.vector({"age": 1.0})).all()


def test_of_a_repeated_key_the_last_counts() -> None:
    """A map that holds a key twice is read as a dict would be."""
    twice = outcome(
        numeric=[("age", 7.0), ("age", 40.0), ("spend", -1.45)],
        words=[("land", "no"), ("land", "ch"), ("page", "/a"), ("page", "/b")],
    )
    once = from_context({"age": 40.0, "spend": -1.45, "land": "ch", "page": "/b"})
    assert (built(twice).steps == built(once).steps).all()


def test_a_slice_of_a_batch_is_read_as_itself() -> None:
    """Offsets of a slice aren't mistaken for those of the whole."""
    rows = [from_context({"age": float(i), "page": f"/{i}"}) for i in range(6)]
    rows += [from_vector({"age": float(i)}) for i in range(6)]
    whole = batch(rows)
    steps = FEATURES.matrix(whole.column("decision")).steps
    for start, stop in ((2, 4), (4, 9), (7, 12), (3, 3)):
        part = whole.slice(start, stop - start)
        assert (FEATURES.matrix(part.column("decision")).steps == steps[start:stop]).all()


def test_what_is_absent_or_unknown_is_counted() -> None:
    """Missing values and words outside the vocabulary are counted, per value."""
    answer = built(
        from_context({"age": 1.0, "land": "xx", "page": "/a"}),
        from_context({"spend": 0.0, "land": "ch", "page": "/b"}),
        from_context({"spend": 1e9, "age": 1.0, "land": "ch"}),
        from_vector({}),
    )
    assert {name: rows.tolist() for name, rows in answer.counted.items()} == {
        "missing_features": [1, 1, 1, 0],
        "unknown_categories": [1, 0, 0, 0],
        "clipped_features": [0, 0, 1, 0],
    }


def test_a_vector_of_another_definition_is_not_used() -> None:
    """With attributes the columns are built from them; without, the row is rejected."""
    attributes = from_context({"age": 40.0, "land": "ch"})
    foreign = outcome(vector=[9.0] * 8, features_hash="other")
    both = outcome(
        vector=[9.0] * 8, features_hash="other", numeric={"age": 40.0}, words={"land": "ch"}
    )
    answer = built(both, foreign, attributes)
    assert (answer.steps[0] == answer.steps[2]).all()
    assert answer.rejected["features_hash"].tolist() == [False, True, False]
    assert (answer.steps[1, 1:] == 0).all()
