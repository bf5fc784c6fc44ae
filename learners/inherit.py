"""Which sums go on when a bandit's spec changes, and how: nothing is unlearned that needn't be.

Sums depend on the lane, the features, the reward function and the learner, and each action's on
nothing that other actions do. So a spec that keeps those goes on with the sums of the actions that
it keeps, whatever else of it changed: floor, prior, exploration, description, other actions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from bandstand.learners.registry import learner_of
from bandstand.learners.statistics import Statistics
from bandstand.schemas.spec import Spec

__all__ = ["inherited", "inherits", "only"]

Whole = Mapping[str, "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"]


def inherits(spec: Spec, old: Spec) -> bool:
    """Tell whether the sums of the actions that two specs of a bandit share are alike.

    Sums of outcomes with weights don't tell how many outcomes an action had, so with such ones no
    action may be missing in the newer spec. Sums of blocks of time are learned anew.
    """
    learner = learner_of(spec)
    return (
        getattr(learner, "actions_apart", False)
        and (spec.forget, spec.drift, spec.since) == (None, None, None)
        and (old.forget, old.drift, old.since) == (None, None, None)
        and spec.policy.name == old.policy.name
        and (spec.bandit, spec.lane, spec.features_hash)
        == (old.bandit, old.lane, old.features_hash)
        and _reward(spec, old) == _reward(old, spec)
        and (spec.reward.keep_probability is None or set(old.actions) <= set(spec.actions))
    )


def only(spec: Spec, actions: Collection[str]) -> Spec:
    """Give the spec as if it had only some of its actions: for learning, not for deciding."""
    fields = {name: getattr(spec, name) for name in Spec.model_fields}
    kept = tuple(action for action in spec.actions if action in actions)
    return Spec.model_construct(**{**fields, "actions": kept})


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
    sums = {}
    for name, shape in learner_of(spec).shapes(spec).items():
        sums[name] = np.zeros(shape, np.int64)
        for index, action in enumerate(spec.actions):
            source = old if action in kept else added
            if source is not None:
                sums[name][index] = source.sums[name][source.spec.actions.index(action)]
    gone = sum(
        int(old.sums["outcomes"][index])
        for index, action in enumerate(old.spec.actions)
        if action not in kept and spec.reward.keep_probability is None
    )
    more = Statistics.empty(spec) if added is None else added
    return Statistics(
        spec,
        sums,
        _counters(old.counters, gone, more),
        old.outcomes - gone + more.outcomes,
        max((t for t in (old.newest, more.newest) if t is not None), default=None),
    )


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
