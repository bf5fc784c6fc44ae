"""A simulated bandit notices changes of rewards and acts on them as the publisher does."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_drift import moment_ms
from bandstand.simulation.pipeline import Pipeline
from bandstand.simulation.play import play
from tests.simulation.test_playable import spec_of

PACE = 10
CHANGE = 2_000


def outcomes(start: int, count: int) -> pa.RecordBatch:
    """Give decisions taken in turn: x and y change places, z brings nothing."""
    rows = []
    for number in range(start, start + count):
        best = "x" if number < CHANGE else "y"
        action = "xyz"[number % 3]
        luck = np.random.default_rng(number).random() < (0.8 if action == best else 0.1)
        rewards = [{"name": "click", "value": float(luck and action != "z")}]
        decision = {"action": action, "ts": number * PACE}
        rows.append({"rewards": rewards, "decision": decision})
    return pa.RecordBatch.from_pylist(rows)


def led(spec: Spec, until: int = 2 * CHANGE) -> Pipeline:
    """Give a pipeline that has learned so many, with a snapshot every hundred."""
    pipeline = Pipeline(spec)
    for start in range(0, until, 100):
        pipeline.learn(outcomes(start, 100))
        pipeline.publish()
    return pipeline


def test_an_alert_is_counted_once() -> None:
    """Of both actions that changed, and the spec stays; before the change there is none."""
    spec = spec_of("drift: {step: 1s}")
    assert led(spec, CHANGE).changes == 0
    pipeline = led(spec)
    assert pipeline.changes == 2
    assert pipeline.spec == spec


def test_an_epoch_begins_with_the_change() -> None:
    """The snapshot after an act is of all outcomes since the change, also of those before the act.

    The last one's best action is that of the new rewards.
    """
    spec = spec_of("drift: {step: 1s, act: epoch}")
    pipeline, learned = Pipeline(spec), 0
    while pipeline.spec == spec:
        pipeline.learn(outcomes(learned, 100))
        pipeline.publish()
        learned += 100
    since = pipeline.spec.since
    assert since is not None
    assert abs(moment_ms(since) - CHANGE * PACE) <= 100 * PACE
    assert learned >= CHANGE + 200
    anew = Pipeline(pipeline.spec)
    anew.learn(outcomes(0, learned))
    one, other = (each.publish().decide({}, spec.actions) for each in (pipeline, anew))
    assert (one.probabilities == other.probabilities).all()
    assert np.ptp(one.probabilities) > 0.1
    assert led(spec).publish().decide({}, spec.actions).probabilities[1] > 0.99


def test_a_policy_explores_for_a_while() -> None:
    """The floor is up from the snapshot after the one that showed it, and down again later."""
    spec = spec_of("drift: {step: 1s, act: explore, floor: 0.2, widen: 5s}")
    pipeline, floors = Pipeline(spec), list[float]()
    for start in range(0, 2 * CHANGE, 100):
        pipeline.learn(outcomes(start, 100))
        floors.append(float(pipeline.publish().decide({}, spec.actions).probabilities.min()))
    up = [number * 100 for number, floor in enumerate(floors) if floor >= 0.2]
    assert CHANGE < min(up) < CHANGE + 800
    assert pipeline.spec.widened is not None
    until = moment_ms(pipeline.spec.widened.until)
    assert until < 2 * CHANGE * PACE
    assert up == [s for s in range(min(up), 2 * CHANGE, 100) if (s + 99) * PACE < until]


def test_a_half_life_is_halved() -> None:
    """Down to eight seconds, no further."""
    pipeline = led(spec_of("forget: {half_life: 20s}\ndrift: {step: 1s, act: half_life}"))
    forget = pipeline.spec.forget
    assert forget is not None
    assert forget.half_life is not None
    assert forget.half_life.total_seconds() in (10, 8)


@pytest.mark.parametrize(
    ("act", "part"),
    [("act: epoch", 0.5), ("act: explore, floor: 0.1, widen: 1s", 0.8)],
)
def test_acting_pays_where_actions_change_places(act: str, part: float) -> None:
    """It loses less than this part of what is lost without; one that only alerts loses as much."""
    world = "drifting,low=0.05,high=0.8,every=3000"
    plain = play(spec_of(), world, 9_000, 1, 100)
    alerted = play(spec_of("drift: {step: 100ms}"), world, 9_000, 1, 100)
    acted = play(spec_of(f"drift: {{step: 100ms, {act}}}"), world, 9_000, 1, 100)
    assert (plain.regret == alerted.regret).all()
    assert plain.changes == 0
    assert alerted.changes > 0
    assert acted.regret[-1] < part * plain.regret[-1]
