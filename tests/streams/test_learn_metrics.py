"""What a learner counts for Prometheus."""

from __future__ import annotations

from prometheus_client import REGISTRY

from bandstand.schemas.spec import Spec
from bandstand.schemas.wire import Wire
from bandstand.streams import learn_metrics
from bandstand.streams.in_force import InForce
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import Position
from tests.streams.given import given_spec
from tests.streams.outcomes import outcome, outcome_record

LANE = "counted"


def total(metric: str, **labels: str) -> float:
    """Read a counter of the lane."""
    name = f"bandstand_learn_{metric}_total"
    return REGISTRY.get_sample_value(name, {"lane": LANE, **labels}) or 0.0


def test_reasons_add_up_to_what_was_rejected() -> None:
    """Outcomes that taught nothing have one reason each; values that were odd are counted apart."""
    wire = Wire.single_object()
    data = given_spec(lane=LANE).model_dump(mode="json")
    data |= {
        "since": "2023-11-14T22:13:20.002Z",
        "reward": {"name": "click", "activation": "click"},
    }
    core = LearnCore(LANE, 0, wire, Position(0))
    core.follow({"home": InForce(Spec.model_validate(data), 4)})
    core.open()
    given = [
        *(outcome(0, clicks=1), outcome(1, clicks=1)),  # before
        *(outcome(2), outcome(3), outcome(4)),  # not activated
        outcome(5, clicks=1, action="unknown"),
        outcome(6, clicks=1, age=1e9),
        outcome(7, clicks=1),
    ]
    learned = core.learn([outcome_record(n, fields, wire) for n, fields in enumerate(given)])
    learn_metrics.count(LANE, learned)
    reasons = {"before_since": 2, "not_activated": 3, "action": 1}
    assert {reason: total("rejected", reason=reason) for reason in reasons} == reasons
    assert total("outcomes", state="rejected") == sum(reasons.values())
    assert total("outcomes", state="learned") == 2
    assert total("odd_values", kind="clipped_features") == 1
    assert total("odd_values", kind="before_since") == 0
