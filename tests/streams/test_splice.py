"""Outcomes put together from parts against the reference codec, where offsets grow by a byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandstand.schemas.codec import encode
from bandstand.schemas.definitions import current
from bandstand.streams import splice
from tests.schemas.strategies import records
from tests.streams.join_logs import WIRE, decision_fields
from tests.streams.join_story import Story

BLOCK = 2**13
AROUND = sorted(
    {
        max(edge + step, 0)
        for edge in (0, 2**6, BLOCK, 2 * BLOCK, 3 * BLOCK, 2**20, 2**33, 2**62)
        for step in (-2, -1, 0, 1, 2)
    }
)
"""Offsets beside those where another byte is needed, or another part is shared."""


@pytest.mark.parametrize("before", [None, 0, 1_700_000_000_000])
@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_a_defaulted_outcome_is_what_the_codec_writes(batch: int, before: int | None) -> None:
    """At any offset, and in any company: batches end within blocks and run across them."""
    header, skip = WIRE.header("outcome"), len(WIRE.header("decision"))
    rules = splice.rules_part(before, 500, 20, 50)
    decisions = [decision_fields(f"d{offset}", offset) for offset in AROUND]
    frames = [WIRE.dumps("decision", decision) for decision in decisions]
    spliced = []
    for at in range(0, len(AROUND), batch):
        rows = slice(at, at + batch)
        spliced += splice.defaulted(np.array(AROUND[rows]), rules, frames[rows], skip, header)
    for offset, decision, value in zip(AROUND, decisions, spliced, strict=True):
        fields = {
            "state": "defaulted",
            "source_offset": offset,
            "before": before,
            "window_ms": 500,
            "backward_ms": 20,
            "grace_ms": 50,
            "rewards": [],
            "decision": decision,
        }
        assert value == WIRE.dumps("outcome", fields)
        assert WIRE.dumps("outcome", WIRE.loads("outcome", value)) == value
        assert splice.source_offset(value, len(header)) == offset


def test_an_outcome_takes_a_reward_as_it_is_around_its_offset() -> None:
    """What is spliced must be the same fields in the same order: a new one needs a new splice."""
    [rewards] = (f for f in current("outcome").definition["fields"] if f["name"] == "rewards")
    shown = [(field["name"], field["type"]) for field in rewards["type"]["items"]["fields"]]
    fields = [(field["name"], field["type"]) for field in current("reward").definition["fields"]]
    assert [name for name, _ in fields[:2]] == ["bandit", "decision_id"]
    assert [name for name, _ in shown] == ["reward_id", "name", "value", "ts", "offset", "metadata"]
    assert [field for field in shown if field[0] != "offset"] == fields[2:]


@given(
    reward=records("reward"),
    offsets=st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)),
    longer=st.sampled_from([1, 20, 500]),
)
def test_a_joined_outcome_is_what_the_codec_writes(
    reward: dict[str, Any], offsets: tuple[int, int], longer: int
) -> None:
    """Whatever the reward holds, however long its texts are."""
    texts = ("bandit", "decision_id", "reward_id", "name")
    reward = {**reward, **{name: reward[name] * longer for name in texts}}
    header, skip = WIRE.header("outcome"), len(WIRE.header("reward"))
    rules = splice.rules_part(7, 500, 20, 50)
    part = splice.reward_part(WIRE.dumps("reward", reward), skip, offsets[1])
    decision = decision_fields("d", 9)
    shown = {name: value for name, value in reward.items() if name not in ("bandit", "decision_id")}
    fields = {
        "state": "joined",
        "source_offset": offsets[0],
        "before": 7,
        "window_ms": 500,
        "backward_ms": 20,
        "grace_ms": 50,
        "rewards": [{**shown, "offset": offsets[1]}] * 2,
        "decision": decision,
    }
    body = encode("decision", decision)
    assert splice.joined(offsets[0], rules, [part, part], body, header) == WIRE.dumps(
        "outcome", fields
    )
    assert splice.reward_id(part).decode() == reward["reward_id"]


@pytest.mark.parametrize("block", [1, 2, 2**7, 2**20])
def test_the_outcomes_of_a_batch_that_runs_across_a_block_of_offsets(block: int) -> None:
    """Between joined and too large ones, the core writes the oracle's bytes."""
    story = Story()
    story.skip("decisions", block * BLOCK - 4)
    for number in range(7):
        story.decides(f"d{number}", 10 + number, 2_000 if number == 4 else 0)
    story.rewards("d1", "r", 20).rewards("d5", "r", 20).ticks(100, 9_000)
    states = [state for _, state, _ in story.told()]
    assert [states.index("oversize"), states.count("joined"), states.count("defaulted")] == [
        4,
        2,
        4,
    ]
