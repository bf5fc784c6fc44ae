"""A table that can't be a world is refused with the value, its place and what is allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from bandstand.errors import SpecError
from bandstand.simulation.environments import environment
from bandstand.simulation.play import play
from tests.simulation.test_worlds import AGE, LAND, spec_of

SPEC = spec_of("linear_thompson", f"features: [{AGE}, {LAND}]")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("age,label\n30,x\nold,y\n", "'old' in row 2 of column 'age', a numeric feature of"),
        ("age,label\n30,x\nnan,y\ninf,y\n", "inf in row 3 of column 'age'"),
        ("age,label\n2020-01-01,x\n", r"datetime.date\(2020, 1, 1\) in row 1 of column 'age'"),
        ("age,label\n", "has no rows; give at least one"),
        ("", "can't be read: Empty CSV file"),
        ("age,who\n30,x\n", "with a column 'label' can't be read"),
        ("age,label\n30,moon\n", r"labels that are no actions \('moon'\); every row of column"),
        (
            "age,label\n30,1\n31,\n32,7\n33,\n",
            (
                r"no actions \('1', '7'\) and no label in row 2, 4; every row of column 'label'"
                " must name an action of bandit 'b': x, y, z"
            ),
        ),
        (
            "age,label\n" + "".join(f"30,{label}\n" for label in "abcdefg"),
            r"no actions \('a', 'b', 'c', 'd', 'e', …\)",
        ),
    ],
)
def test_a_table_that_is_no_world_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    """One error, before anything is played."""
    (tmp_path / "people.csv").write_text(rows)
    with pytest.raises(SpecError, match=message):
        play(SPEC, f"classification,file={tmp_path / 'people.csv'}", 10, 1, 5)


def test_null_labels_are_named_beside_unknown_ones(tmp_path: Path) -> None:
    """Also where both are in a column of text, which only Parquet has."""
    table = pa.table({"label": ["x", None, "moon"]})
    pa.parquet.write_table(table, tmp_path / "people.parquet")
    with pytest.raises(SpecError, match=r"no actions \('moon'\) and no label in row 2;"):
        play(SPEC, f"classification,file={tmp_path / 'people.parquet'}", 10, 1, 5)


def test_an_unknown_attribute_is_no_mistake(tmp_path: Path) -> None:
    """An empty cell is left out of the subject; a column that isn't there is noted."""
    (tmp_path / "people.csv").write_text("age,label\n30,x\n,y\n")
    random = np.random.default_rng(1)
    world = f"classification,file={tmp_path / 'people.csv'}"
    made, _ = environment(world, [SPEC], random)
    assert {tuple(context.items()) for context in made.contexts(random, 50)} == {
        (("age", 30.0),),
        (),
    }
    (note,) = made.notes
    assert note.endswith("people.csv has no column 'land', so that stays unknown; columns: age")


def test_a_column_has_one_kind(tmp_path: Path) -> None:
    """It can't be a number for one policy and a word for another; the range may differ."""
    (tmp_path / "people.csv").write_text("age,label\n30,x\n")
    world = f"classification,file={tmp_path / 'people.csv'}"
    wide = spec_of("lin_ucb", f"features: [{AGE.replace('18', '0')}]", "wide")
    assert play(wide, world, 20, 1, 5, [SPEC, wide]).regret.shape == (4,)
    words = spec_of("lin_ucb", "features: [{name: age, kind: hashed, buckets: 8}]", "words")
    with pytest.raises(SpecError, match="'age', but it is a number for bandit 'b' and a word for"):
        play(words, world, 20, 1, 5, [SPEC, words])
