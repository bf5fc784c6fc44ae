from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bandstand.schemas.codec import decode, encode
from bandstand.serving.choosing import Drawn
from bandstand.serving.contexts import Attributes
from bandstand.serving.encoding import DecisionEncoder, Layouts

TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
NUMBER = st.floats(allow_nan=False)
LAYOUTS = Layouts()


@st.composite
def choices(draw: st.DrawFn) -> Drawn:
    """Anything that could be drawn, and more: the encoder checks nothing."""
    eligible = tuple(draw(st.lists(TEXT, min_size=1, max_size=80, unique=True)))
    index = draw(st.integers(0, len(eligible) - 1))
    probabilities = draw(st.lists(st.floats(0, 1), min_size=len(eligible), max_size=len(eligible)))
    return Drawn(
        eligible=eligible,
        probabilities=probabilities,
        action=eligible[index],
        propensity=probabilities[index],
        seed=draw(st.integers(0, 2**63 - 1)),
        attributes=Attributes(
            draw(st.dictionaries(TEXT, NUMBER, max_size=80)),
            draw(st.dictionaries(TEXT, TEXT, max_size=20)),
        ),
        features=np.array(draw(st.lists(st.floats(width=32), max_size=80)), np.float32),
        score=draw(st.none() | NUMBER),
        optimality_gap=draw(st.none() | NUMBER),
    )


def record_of(drawn: Drawn, **fields: Any) -> dict[str, Any]:
    """Give the record that the reference codec writes."""
    return {
        **fields,
        "action": drawn.action,
        "propensity": drawn.propensity,
        "score": drawn.score,
        "features": drawn.features.tolist(),
        "subject_numeric": drawn.attributes.numeric,
        "subject_categorical": drawn.attributes.categorical,
        "actions": [
            {"action": action, "probability": probability, "numeric": {}, "categorical": {}}
            for action, probability in zip(drawn.eligible, drawn.probabilities, strict=True)
        ],
        "seed": drawn.seed,
        "optimality_gap": drawn.optimality_gap,
        "metadata": {},
    }


@given(choices(), TEXT, TEXT, TEXT, st.integers(-(2**63), 2**63 - 1))
def test_bytes_are_those_of_the_reference_codec(
    drawn: Drawn, subject: str, version: str, policy: str, ts: int
) -> None:
    """Whatever is drawn, fastavro writes the same bytes for it."""
    encoder = DecisionEncoder("home", version, policy, "a1b2", LAYOUTS)
    body = encoder.encode(drawn, decision_id="id", subject=subject, ts=ts, fallback="live")
    assert body == encode(
        "decision",
        record_of(
            drawn,
            bandit="home",
            decision_id="id",
            subject=subject,
            ts=ts,
            snapshot_version=version,
            policy=policy,
            features_hash="a1b2",
            fallback="live",
        ),
    )


def test_a_service_with_ever_new_names_forgets_the_oldest_layouts() -> None:
    """What is kept doesn't grow without end, and what is forgotten is still written rightly."""
    encoder = DecisionEncoder("home", "1-0-ab", "p", "", layouts := Layouts())
    for i in [*range(1_000), 0]:
        drawn = Drawn(
            eligible=(f"a{i}", "b"),
            probabilities=[0.25, 0.75],
            action="b",
            propensity=0.75,
            seed=i,
            attributes=Attributes({f"n{i}": 1.5}, {}),
            features=np.empty(0, np.float32),
            score=None,
            optimality_gap=None,
        )
        body = encoder.encode(drawn, decision_id="id", subject="s", ts=i, fallback="live")
        assert decode("decision", body)["actions"][0]["action"] == f"a{i}"
        assert decode("decision", body)["subject_numeric"] == {f"n{i}": 1.5}
    assert layouts.kept <= 512
