"""The plans of storms: repeatable, complete, and such as can happen."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.streams.storm_join import JOIN
from tests.streams.storm_learn import LEARN
from tests.streams.storm_plan import kinds, plan, slots_at_start
from tests.streams.storm_scene import Play


@pytest.mark.parametrize("play", [JOIN, LEARN], ids=lambda play: play.name)
def test_a_seed_repeats_its_plan(play: Play) -> None:
    """The same seed gives the same faults, a longer plan begins like a shorter one."""
    groups = play.groups
    assert plan(3, 50, groups) == plan(3, 200, groups)[:50] != plan(4, 50, groups)


@pytest.mark.parametrize("play", [JOIN, LEARN], ids=lambda play: play.name)
@pytest.mark.parametrize("seed", range(20))
def test_a_plan_is_one_that_can_happen(seed: int, play: Play) -> None:
    """No fault is about a process that isn't there, nor two at once about the same one."""
    slots = {name: set(mine) for name, mine in slots_at_start(play.groups).items()}
    seen = Counter[str]()
    for faults in plan(seed, 40, play.groups):
        about = [slot for fault in faults for slot in fault.slots]
        assert len(about) == len(set(about))
        assert sum(fault.kind.broker for fault in faults) <= 1
        for fault in faults:
            seen[str(fault.kind)] += 1
            mine = slots.get(fault.kind.group, set())
            if fault.kind.act == "add":
                assert not set().union(*slots.values()) & set(fault.slots)
                mine |= set(fault.slots)
            else:
                assert mine >= set(fault.slots)
            if fault.kind.act == "remove":
                mine -= set(fault.slots)
        for group in play.groups:
            assert group.at_start <= len(slots[group.name]) <= group.most
    assert set(seen) == {str(kind) for kind in kinds(play.groups)}
