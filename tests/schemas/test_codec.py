"""The codec of single records."""

from __future__ import annotations

import pytest

from bandstand.errors import EventError
from bandstand.schemas.codec import NAMES, current, decode, encode, fingerprint
from tests.schemas.golden import EXAMPLES

REWARD = {
    "bandit": "home",
    "decision_id": "d1",
    "reward_id": "r1",
    "name": "click",
    "value": 1.0,
    "ts": 1_700_000_000_000,
}


def test_defaults_are_filled_in() -> None:
    """A field with a default may be left out, and comes back."""
    assert decode("reward", encode("reward", REWARD)) == {**REWARD, "metadata": {}}


@pytest.mark.parametrize("change", [{"value": "much"}, {"ts": 2**63}, {"surprise": 1}])
def test_a_wrong_record_names_its_field(change: dict[str, object]) -> None:
    """What doesn't fit the schema is refused before anything is written, by name."""
    with pytest.raises(EventError, match=f"invalid: .*{next(iter(change))}"):
        encode("reward", {**REWARD, **change})


@pytest.mark.parametrize("name", NAMES)
def test_a_record_cut_short_is_truncated(name: str) -> None:
    """Wherever its bytes end too early, that is the reason."""
    body = encode(name, EXAMPLES[name])
    for end in range(len(body)):
        with pytest.raises(EventError, match=r"^truncated: "):
            decode(name, body[:end])


def test_fingerprints_differ() -> None:
    """Each schema has a fingerprint of its own, 8 bytes long."""
    assert {len(fingerprint(name)) for name in NAMES} == {8}
    assert len({fingerprint(name) for name in NAMES}) == len(NAMES)


def test_what_goes_through_rust() -> None:
    """The schemas on the hot path are read by pyruhvro, only those with bytes by fastavro."""
    assert {name for name in NAMES if not current(name).in_rust} == {
        "dead_letter",
        "learner_state",
        "snapshot",
        "spec",
    }
