"""Which sums go on when a bandit's spec changes, and how: nothing is unlearned that needn't be.

Sums depend on the lane, the features, the reward function and the learner, and each action's on
nothing that other actions do. So a spec that keeps those goes on with the sums of the actions that
it keeps, whatever else of it changed: floor, prior, exploration, description, other actions. A
chain begins with the prior, so that must stay, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

import numpy as np

from bandstand.learners.drift import PREFIX
from bandstand.learners.keepers import keeper_of
from bandstand.learners.protocols import ChainedLearner, Whole
from bandstand.learners.registry import learner_of
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec

__all__ = ["inherited", "inherits", "only"]


def inherits(spec: Spec, old: Spec) -> bool:
    """Tell whether the sums of the actions that two specs of a bandit share are alike.

    A chain goes on if all of these actions begin in it as they did: their prior is the same.

    Sums of outcomes with weights don't tell how many outcomes an action had, nor do blocks of time
    whose outcomes they count; so with such ones no action may be missing in the newer spec.
    """
    learner = learner_of(spec)
    can_lose = (spec.reward.keep_probability, spec.forget, spec.drift) == (None, None, None)
    return (
        getattr(learner, "actions_apart", False)
        and spec.policy.name == old.policy.name
        and (spec.bandit, spec.lane, spec.features_hash)
        == (old.bandit, old.lane, old.features_hash)
        and (spec.forget, spec.since, _step(spec)) == (old.forget, old.since, _step(old))
        and _reward(spec, old) == _reward(old, spec)
        and _begins_alike(spec, old)
        and (can_lose or set(old.actions) <= set(spec.actions))
    )


def only(spec: Spec, actions: Collection[str]) -> Spec:
    """Give the spec as if it had only some of its actions: for learning, not for deciding."""
    wanted = set(actions)
    kept = tuple(action for action in spec.actions if action in wanted)
    return spec.model_copy(update={"actions": kept})


def inherited(
    spec: Spec, old: Statistics, kept: Collection[str], added: Statistics | None
) -> Statistics:
    """Give what a new spec knows: of the actions kept what was learned before, and what was added.

    Parameters
    ----------
    spec
        The new spec, which `inherits` from that of the old statistics.
    old
        What was learned up to a position.
    kept
        Actions of both whose sums go on.
    added
        What the outcomes up to the same position taught of all other actions of the new spec, under
        the spec that `only` gives for them; None where there are no others.

    Returns
    -------
    Statistics
        With the digest of learning all of it under the new spec.
    """
    known, going_on = old.solvable()["outcomes"], set(kept)
    gone = sum(
        int(known[index]) for index, action in enumerate(old.spec.actions) if action not in going_on
    )
    sums = _placed(spec, old, kept)
    if added is not None:
        rest = [action for action in spec.actions if action not in going_on]
        sums = keeper_of(spec).merge(sums, _placed(spec, added, rest))
    more = Statistics.empty(spec) if added is None else added
    return Statistics(
        spec,
        sums,
        _counters(old.counters, gone, more),
        old.outcomes - gone + more.outcomes,
        max((t for t in (old.newest, more.newest) if t is not None), default=None),
    )


def _begins_alike(spec: Spec, old: Spec) -> bool:
    """Tell whether the actions of both begin alike; sums begin at 0, chains with the prior."""
    learner = learner_of(spec)
    if not isinstance(learner, ChainedLearner):
        return True
    theirs = set(old.actions)
    kept = [action for action in spec.actions if action in theirs]
    first, second = (
        {n: a[_rows(each, kept)] for n, a in start.items()}
        for each, start in ((spec, learner.start(spec)), (old, learner.start(old)))
    )
    return all((first[name] == second[name]).all() for name in first)


def _rows(spec: Spec, actions: Iterable[str]) -> list[int]:
    """Give where actions stand among a spec's."""
    places = {action: row for row, action in enumerate(spec.actions)}
    return [places[action] for action in actions]


def _step(spec: Spec) -> timedelta | None:
    """Give all of the watch for drift on which its series depends."""
    return None if spec.drift is None else spec.drift.step


def _placed(spec: Spec, statistics: Statistics, actions: Collection[str]) -> Whole:
    """Put what is known of some actions where a spec has them."""
    sources, targets = _rows(statistics.spec, actions), _rows(spec, actions)
    series = dict.fromkeys((f"{PREFIX}outcomes", f"{PREFIX}reward"), (len(spec.actions),))
    by_action = {**learner_of(spec).shapes(spec), **series}
    placed = {}
    for name, start in keeper_of(spec).start().items():
        array = statistics.sums[name]
        if name in by_action:
            # The axis of blocks of time, where there are any, stands before that of the actions.
            axis = start.ndim - len(by_action[name])
            wide = start.copy()
            np.moveaxis(wide, axis, 0)[targets] = np.moveaxis(array, axis, 0)[sources]
            array = wide
        placed[name] = array
    return placed


def _counters(old: Mapping[str, int], gone: int, added: Statistics) -> dict[str, int]:
    """Count what was rejected: a new action's outcomes aren't, for that, any more."""
    reasons = {
        name: count
        for name, count in added.counters.items()
        if name.startswith("rejected_") and name not in ("rejected_action", "rejected_no_decision")
    }
    counters = dict(old)
    for name, count in reasons.items():
        counters[name] = counters.get(name, 0) + count
    unknown = counters.get("rejected_action", 0) + gone - added.outcomes - sum(reasons.values())
    counters["rejected_action"] = max(0, unknown)
    return {name: count for name, count in sorted(counters.items()) if count}


def _reward(spec: Spec, other: Spec) -> dict[str, object]:
    """Give the reward function as far as it concerns the actions that both have."""
    reward = spec.reward.model_dump(mode="json")
    if spec.reward.cost is not None:
        both = set(spec.actions) & set(other.actions)
        costs = {a: c for a, c in spec.reward.cost.actions.items() if c and a in both}
        attributes = spec.reward.cost.model_dump(exclude={"actions"})
        nothing = not costs and not spec.reward.cost.action_attribute
        reward["cost"] = {**attributes, "actions": costs}
        if nothing and not spec.reward.cost.subject_attribute:
            del reward["cost"]
    return reward
