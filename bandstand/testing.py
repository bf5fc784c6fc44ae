"""The conformance suite of learners: what each must keep, Bandstand's own as well as yours.

In a test of your package::

    import pytest
    from bandstand.testing import CHECKS, check_learner

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_learner(check):
        check_learner("my_learner", only=check, regret=0.5)
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bandstand.errors import DecisionError, StateError
from bandstand.learners.evidence import from_statistics
from bandstand.learners.grid import HEADROOM
from bandstand.learners.inherit import inherited, inherits, only
from bandstand.learners.policies import Policy, draw, policy_from_snapshot, resume, solve
from bandstand.learners.protocols import PortableChain
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_policy import learner
from bandstand.schemas.wire import Wire
from bandstand.testing_data import CONTEXTS, Case, batch, learned, merged, outcome, outcomes

__all__ = ["CHECKS", "check_learner"]

MANY_ACTIONS: Final = 300
STEPS: Final = 4_000
BATCH: Final = 50
MACHINES: Final = (
    {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Nehalem"},
    {"OPENBLAS_NUM_THREADS": "4", "OPENBLAS_CORETYPE": "Haswell"},
)
"""Environments in which sums must be those of this process; other kernels than x86's know none."""


Floats = npt.NDArray[np.float64]

_NAN: Final = int(np.float64("nan").view(np.int64))


def _policy(spec: Spec, statistics: Statistics) -> Policy:
    return policy_from_snapshot(build(spec, statistics, 0, "", {}))


def _assert_probabilities(choice: Floats, count: int, floor: float) -> None:
    assert choice.shape == (count,), f"{choice.shape} probabilities for {count} eligible actions"
    assert np.isfinite(choice).all(), f"probabilities {choice} aren't finite"
    assert (choice >= floor).all(), f"a probability of {choice.min()} is below the floor {floor}"
    assert abs(choice.sum() - 1.0) < 1e-12, f"probabilities sum up to {choice.sum()!r}"


def _assert_decides(policy: Policy, floor: float = 0.0) -> None:
    """Any context, any eligible actions: valid probabilities and finite scores."""
    actions = policy.spec.actions
    for context in CONTEXTS:
        for eligible in (actions, actions[::-1], actions[:1], actions[1:3]):
            if eligible:
                choice = policy.decide(context, eligible)
                _assert_probabilities(choice.probabilities, len(eligible), floor)
                assert np.isfinite(choice.scores).all(), f"scores {choice.scores}"


def _adds_up(case: Case) -> None:
    """Check that no bit depends on how outcomes were cut; nor, of sums, on their order."""
    spec = case.spec()
    records = outcomes(spec)
    whole = learned(spec, records)
    first, second = learned(spec, records[:217]), learned(spec, records[217:])
    assert first.digest() != whole.digest(), "the digest doesn't see outcomes"
    for start, step in ((0, 600), (0, 37), (217, 1)):
        total = learned(spec, records[:start])
        for position in range(start, len(records), step):
            total = total.update(batch(records[position : position + step]))
        assert total.digest() == whole.digest(), f"cut into batches of {step}"
    empty = Statistics.empty(spec)
    assert empty.merge(whole).digest() == whole.merge(empty).digest() == whole.digest(), "nothing"
    if case.chained:
        try:
            whole.subtract(first)
        except StateError:
            return
        raise AssertionError("a chain was subtracted")
    rng = np.random.default_rng(2)
    for _ in range(3):
        order = rng.permutation(len(records))
        assert learned(spec, [records[i] for i in order]).digest() == whole.digest(), "order"
    assert first.merge(second).digest() == whole.digest(), "split and merged"
    assert second.merge(first).digest() == whole.digest(), "merged the other way round"
    assert whole.subtract(first).digest() == second.digest(), "subtracted"
    assert whole.subtract(whole).digest() == empty.digest(), "subtracted all"


def _needs_no_order_of_workers(case: Case) -> None:
    """Check that seven partitions come to the same with one worker, three and seven."""
    spec = case.spec()
    records = outcomes(spec)
    assert merged(spec, records).outcomes == len(records)


def _counts_a_prior_once(case: Case) -> None:
    """Check that a spec's prior counts, and once only, however many partitions are merged."""
    if not case.informed:
        return
    spec, plain = case.spec(prior=True), case.spec()
    records = outcomes(spec)
    known = (learned(spec, records), merged(spec, records), learned(plain, records))
    one, seven, without = (_policy(s.spec, s).decide({}, spec.actions).scores for s in known)
    assert one[1] - without[1] > 0.2, f"a prior moves a score from {without[1]} to {one[1]} only"
    gap = np.abs(one - seven).max()
    assert gap < 0.15, f"scores of seven partitions together are {gap} off those of one"


_MACHINE = """
import json
import sys
from bandstand.testing import _digest
for line in sys.stdin:
    print(_digest(*json.loads(line)), flush=True)
"""


def _digest(name: str, parameters: Mapping[str, Any]) -> str:
    spec = Case(name, parameters).spec()
    return learned(spec, outcomes(spec, 5_000)).digest()


@cache
def _machine(*environment: tuple[str, str]) -> subprocess.Popen[str]:
    """Start a process that answers with digests, and that ends with this one."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MACHINE],
        env={**os.environ, **dict(environment)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)  # which closes its input, and waits
    return process


def _is_the_same_on_any_machine(case: Case) -> None:
    """Check that another number of BLAS threads and, for sums, another kernel change no bit."""
    digests = [_digest(case.name, case.parameters)]
    for machine in MACHINES:
        if case.chained:
            machine = {k: v for k, v in machine.items() if k != "OPENBLAS_CORETYPE"}
        process = _machine(*machine.items())
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([case.name, dict(case.parameters)]) + "\n")
        process.stdin.flush()
        digests.append(process.stdout.readline().strip())
    assert len(set(digests)) == 1, f"digests {digests} in {len(digests)} processes"


def _is_restored(case: Case) -> None:
    """Check that statistics that were stored and read back go on as if nothing had happened."""
    spec = case.spec()
    records = outcomes(spec)
    before = learned(spec, records[:300])
    stored = {name: array.tobytes() for name, array in before.arrays().items()}
    like = Statistics.empty(spec).arrays()
    arrays = {
        name: np.frombuffer(data, np.int64).reshape(like[name].shape)
        for name, data in stored.items()
    }
    back = Statistics.from_arrays(
        spec, arrays, before.counters, before.outcomes, before.newest
    ).update(batch(records[300:]))
    whole = learned(spec, records)
    assert back.digest() == whole.digest(), "restored statistics went another way"
    for context in CONTEXTS:
        one, two = (_policy(spec, s).decide(context, spec.actions) for s in (back, whole))
        assert (one.probabilities == two.probabilities).all(), "restored statistics decide else"


def _gives_probabilities(case: Case) -> None:
    """Check probabilities: sum 1 within 1e-12, at least the floor, permuted with the actions."""
    for actions, floor in ((4, 0.0), (4, 0.03), (1, 0.0), (2, 0.5), (MANY_ACTIONS, 1e-4)):
        spec = case.spec(actions, floor)
        for statistics in (Statistics.empty(spec), learned(spec, outcomes(spec))):
            policy = _policy(spec, statistics)
            _assert_decides(policy, floor)
            order = np.random.default_rng(3).permutation(actions)
            for context in CONTEXTS:
                straight = policy.decide(context, spec.actions)
                turned = policy.decide(context, [spec.actions[i] for i in order])
                gap = np.abs(turned.probabilities - straight.probabilities[order]).max()
                assert gap < 1e-12, f"permuted actions change a probability by {gap}"
    with_none = _policy(case.spec(), Statistics.empty(case.spec()))
    for wrong in ([], ["nobody"], ["a0", "a0"]):
        try:
            with_none.decide({}, wrong)
        except DecisionError:
            continue
        raise AssertionError(f"eligible actions {wrong} weren't refused")


def _takes_other_actions(case: Case) -> None:
    """Check that a removed action teaches nothing, and that an added one can be taken."""
    spec, fewer, more = case.spec(4), case.spec(3), case.spec(5)
    records = outcomes(spec)
    kept = [record for record in records if record["decision"]["action"] != "a3"]
    statistics = learned(fewer, records)
    assert statistics.digest() == learned(fewer, kept).digest(), "a removed action teaches"
    assert statistics.counters["rejected_action"] == len(records) - len(kept)
    grown = learned(more, records)
    assert grown.outcomes == len(records)
    _assert_decides(_policy(more, grown))
    _assert_decides(_policy(fewer, statistics))


def _goes_on_with_its_actions(case: Case) -> None:
    """Check that sums which claim to be apart for each action survive changes, and move."""
    if not getattr(learner(case.name), "actions_apart", False):
        return
    fewer, more = (case.spec(actions, prior=case.informed) for actions in (3, 5))
    records = outcomes(more)
    whole, old = learned(more, records), learned(fewer, records)
    assert inherits(more, fewer)
    added = learned(only(more, more.actions[3:]), records)
    grown = inherited(more, old, fewer.actions, added)
    assert grown.digest() == whole.digest(), "an added action changes what others were taught"
    assert grown.counters == whole.counters
    shrunk = inherited(fewer, whole, fewer.actions, None)
    assert shrunk.digest() == old.digest(), "a removed action leaves something behind"
    if case.chained and not isinstance(learner(case.name), PortableChain):
        return
    told = from_statistics(more, whole, "another bandit")
    moved = resume(more, Statistics.empty(more), evidence=told).solved.arrays
    for name, array in solve(more, whole).arrays.items():
        assert np.allclose(moved[name], array, rtol=1e-6, atol=1e-9), f"{name} taken over differs"


def _weighs_outcomes(case: Case) -> None:
    """Check that an outcome of weight 4 counts as four, for a learner that claims to weigh."""
    if not hasattr(learner(case.name), "weighted"):
        return
    spec = case.spec()
    fields = spec.model_dump(mode="json")
    fields["reward"]["keep_probability"] = {"attribute": "kept"}
    weighing = Spec.model_validate(fields)
    records = outcomes(spec, 200)
    for record in records:
        record["decision"]["subject_numeric"].append(("kept", 0.25))
    once, four = learned(weighing, records).solvable(), learned(spec, records * 4).solvable()
    if case.chained:  # four at once aren't quite four in turn, but as many
        four = {"outcomes": four["outcomes"]}
    for name, sums in four.items():
        # A learner may round a weighed product once more, by half a step.
        gap = np.abs(once[name] - sums).max()
        assert gap <= 2 * len(records), f"{name} of weight 4 is off that of four by {gap}"


def _survives_degenerate_outcomes(case: Case) -> None:
    """Check one action only, one context only, all rewards alike."""
    spec = case.spec()
    for value in (-1.0, 3.0, None):
        for count in (1, 2_000):
            same = [outcome("a1", value, CONTEXTS[0])] * count
            _assert_decides(_policy(spec, learned(spec, same)))
    all_alike = [outcome(action, 1.0, {}) for action in spec.actions] * 200
    _assert_decides(_policy(spec, learned(spec, all_alike)))


def _refuses_extremes(case: Case) -> None:
    """Check that what can't be learned from is counted under its reason and changes no sum."""
    spec = case.spec()
    good = outcomes(spec, 50)
    bad = {
        "action": outcome("nobody", 1.0, {}),
        "reward_not_finite": outcome("a0", float("nan"), {}),
        "time": outcome("a0", 1.0, {}, ts=-1),
        "no_decision": {**outcome("a0", 1.0, {}), "decision": None, "state": "oversize"},
    }
    if case.contextual:
        ours = spec.features_hash
        bad["features_not_finite"] = outcome("a0", 1.0, {"age": float("inf")})
        bad["features_width"] = outcome("a0", 1.0, {}, features=[1.0], features_hash=ours)
        bad["features_hash"] = outcome("a0", 1.0, {}, features=[1.0], features_hash="other")
    if spec.policy.needs_propensity:
        for propensity in (0.0, -0.5, 1.5, float("nan"), float("inf")):
            statistics = learned(spec, [outcome("a0", 1.0, {}, propensity=propensity)])
            assert statistics.counters == {"rejected_propensity": 1}, statistics.counters
    alone = learned(spec, good)
    for reason, record in bad.items():
        statistics = learned(spec, [*good[:20], record, *good[20:]])
        assert statistics.digest() == alone.digest(), f"{reason}: the sums are poisoned"
        assert statistics.counters[f"rejected_{reason}"] == 1, (reason, statistics.counters)
        nothing = learned(spec, [record]).digest()
        assert nothing == learned(spec, []).digest(), f"{reason}: nothing else in its batch"
    huge = [outcome("a0", value, {"age": -value}) for value in (1e300, -1e300)]
    statistics = learned(spec, [*good, *huge])
    assert statistics.outcomes == len(good) + 2
    assert statistics.counters["clipped_reward"] >= 2, statistics.counters
    _assert_decides(_policy(spec, statistics))


def _keeps_headroom(case: Case) -> None:
    """Check that a total that would grow too large, or a state that isn't finite, is refused."""
    spec = case.spec()
    statistics = learned(spec, outcomes(spec))
    if case.chained:
        lost = {name: np.full_like(array, _NAN) for name, array in statistics.arrays().items()}
        try:
            Statistics.from_arrays(spec, lost, {}, statistics.outcomes, None)
        except StateError:
            return
        raise AssertionError("a state that isn't finite was taken")
    near = {
        name: np.where(array > 0, HEADROOM - 1, array)
        for name, array in statistics.arrays().items()
    }
    full = Statistics.from_arrays(spec, near, {}, statistics.outcomes, None)
    digest = full.digest()
    try:
        full.merge(statistics)
    except StateError:
        assert full.digest() == digest, "a refused total was changed"
        return
    raise AssertionError("a total beyond the headroom was taken")


def _is_read_from_bytes(case: Case) -> None:
    """Check that a snapshot's bytes decide as the statistics do."""
    spec, wire = case.spec(floor=0.01), Wire.single_object()
    snapshot = build(spec, learned(spec, outcomes(spec)), 3, "", {0: 7})
    back = wire.loads("snapshot", wire.dumps("snapshot", snapshot))
    for context in CONTEXTS:
        one, two = (policy_from_snapshot(s).decide(context, spec.actions) for s in (snapshot, back))
        assert (one.probabilities == two.probabilities).all()
        assert (one.scores == two.scores).all()
    json.dumps({name: float(value) for name, value in back["parameters"].items()})


def _learns(case: Case) -> None:
    """Check that its regret is at most the stated part of the uniform policy's."""
    spec = case.spec(5)
    ours, uniform = _regret(spec, learning=True), _regret(spec, learning=False)
    assert ours <= case.regret * uniform, (
        f"regret {ours:.0f} over {STEPS} decisions is {ours / uniform:.3f} of the uniform policy's;"
        f" stated: {case.regret}"
    )


def _regret(spec: Spec, *, learning: bool) -> float:
    """Regret over STEPS decisions, learned in batches of BATCH; rewards are 0 or 1 by chance.

    Without features the actions have chances of 0.1, 0.2, ... 0.5; with them, each land likes
    another action, and age another one still.
    """
    rng = np.random.default_rng(4)
    statistics, regret = Statistics.empty(spec), 0.0
    policy, waiting = _policy(spec, statistics), list[dict[str, Any]]()
    lands = ("ch", "no", "de")
    for number in range(STEPS):
        land, age = int(rng.integers(3)), float(rng.uniform(0.0, 80.0))
        context = {"age": age, "land": lands[land]}
        chances = 0.1 * (1 + np.arange(5))
        if spec.features:
            chances = np.full(5, 0.2)
            chances[land] = 0.6
            chances[3] = age / 100
        probabilities = policy.decide(context, spec.actions).probabilities
        chosen = draw(probabilities, number) if learning else int(rng.integers(5))
        regret += float(chances.max() - chances[chosen])
        value = 3.0 if rng.random() < chances[chosen] else -1.0
        propensity = float(probabilities[chosen])
        waiting.append(outcome(spec.actions[chosen], value, context, propensity=propensity))
        if learning and len(waiting) == BATCH:
            statistics = statistics.update(batch(waiting))
            policy = _policy(spec, statistics)
            waiting.clear()
    return regret


_CHECKS: Final[Mapping[str, Callable[[Case], None]]] = {
    "adds_up": _adds_up,
    "needs_no_order_of_workers": _needs_no_order_of_workers,
    "counts_a_prior_once": _counts_a_prior_once,
    "is_the_same_on_any_machine": _is_the_same_on_any_machine,
    "is_restored": _is_restored,
    "gives_probabilities": _gives_probabilities,
    "takes_other_actions": _takes_other_actions,
    "goes_on_with_its_actions": _goes_on_with_its_actions,
    "weighs_outcomes": _weighs_outcomes,
    "survives_degenerate_outcomes": _survives_degenerate_outcomes,
    "refuses_extremes": _refuses_extremes,
    "keeps_headroom": _keeps_headroom,
    "is_read_from_bytes": _is_read_from_bytes,
    "learns": _learns,
}

CHECKS: Final = tuple(_CHECKS)
"""Names of all checks, e.g. to make each a test of its own."""


def check_learner(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    regret: float = 1.0,
    only: str | None = None,
) -> None:
    """Check that a learner keeps what Bandstand promises of all of them.

    Parameters
    ----------
    name
        Its entry point in the group ``bandstand.learners``: the name that specs give.
    parameters
        Of its policy; those that aren't there have their defaults.
    regret
        Bound of its regret on the standard problem, as a part of the uniform policy's: 4,000
        decisions among five actions, learned in batches of 50.
    only
        One of `CHECKS`; all of them by default.

    Raises
    ------
    AssertionError
        Saying what isn't kept.
    SpecError
        If there is no such learner, or it can't be loaded.

    Examples
    --------
    >>> check_learner("beta_thompson", only="adds_up")
    """
    case = Case(name, parameters or {}, regret)
    for check in (only,) if only else CHECKS:
        _CHECKS[check](case)
