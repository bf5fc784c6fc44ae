from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import pytest

from bandstand.errors import BrokerError, EventError, SpecError
from bandstand.schemas.spec import Spec
from bandstand.schemas.topics import TopicNames
from bandstand.serving import RewardProducer
from bandstand.settings import Settings
from bandstand.streams.specs import apply_spec
from tests.serving.given import NOWHERE, WIRE, read_all, settings_for
from tests.waiting import PATIENCE_S

ID = "019ab697-e800-7000-8000-000000000000"
ALONE = settings_for(NOWHERE, "alone.")


def test_a_reward_reaches_its_lane_under_its_decision(
    settings: Settings, own_homepage: Spec, own_shop: Spec
) -> None:
    """The lane comes from the spec; key, timestamp and bytes agree."""
    apply_spec(settings, own_homepage)
    apply_spec(settings, own_shop)
    before = int(time.time() * 1000)
    with RewardProducer(own_shop.bandit, settings) as rewards:
        assert rewards.lane == "default"
        first = rewards.reward(ID, "purchase", 49.9, metadata={"order": "17"})
        second = rewards.reward(ID, "click", ts=before - 5_000, reward_id="click-1")
        assert rewards.flush(PATIENCE_S) == 0
    messages = read_all(settings, TopicNames(settings.topics.prefix).rewards("default"))
    assert [message.key() for message in messages] == [ID.encode()] * 2
    purchase, click = (WIRE.loads("reward", message.value()) for message in messages)
    assert [message.timestamp()[1] for message in messages] == [purchase["ts"], click["ts"]]
    assert before <= purchase.pop("ts") <= time.time() * 1000
    shared = {"bandit": own_shop.bandit, "decision_id": ID}
    assert purchase == shared | {
        "reward_id": first,
        "name": "purchase",
        "value": 49.9,
        "metadata": {"order": "17"},
    }
    assert click == shared | {
        "reward_id": second,
        "name": "click",
        "value": 1.0,
        "ts": before - 5_000,
        "metadata": {},
    }
    assert second == "click-1"


def test_a_bandit_without_a_spec_is_named_with_the_known_ones(
    settings: Settings, own_homepage: Spec
) -> None:
    """A misspelt bandit is an error at the start, not a log of unmatched rewards."""
    apply_spec(settings, own_homepage)
    known = rf"'homepag' has no spec .*known: .*{own_homepage.bandit}.*; .*lane="
    with pytest.raises(SpecError, match=known):
        RewardProducer("homepag", settings)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"value": math.nan}, "value is nan; allowed: a finite number"),
        ({"value": -math.inf}, "value is -inf"),
        ({"value": "1"}, "value is '1'"),
        ({"name": ""}, "name is ''; allowed: a string, not empty"),
        ({"decision_id": ""}, "decision_id is ''"),
        ({"decision_id": None}, "decision_id is None"),
        ({"ts": 1_764_000_000}, "ts is 1764000000; allowed: whole milliseconds"),
        ({"ts": 1_764_000_000_000.0}, "ts is 1764000000000.0; allowed: whole milliseconds"),
        ({"ts": 2**45}, "ahead of this machine's clock; allowed in lane 'default': up to 1m"),
        ({"metadata": {"a": 1}}, "this can't be a reward: .*metadata"),
    ],
)
def test_a_reward_that_no_reader_could_use_is_refused(reward: dict[str, Any], message: str) -> None:
    """The mistake is named where it is made, and nothing is sent."""
    rewards = RewardProducer("homepage", ALONE, lane="default")
    with pytest.raises(EventError, match=message):
        rewards.reward(**{"decision_id": ID, "name": "click"} | reward)
    assert rewards.flush(0) == 0
    rewards.close()


def test_a_full_queue_is_an_error_and_what_is_lost_is_handed_back() -> None:
    """Nothing vanishes silently: the caller hears of the one, its callback of the other."""
    small = settings_for(NOWHERE, "small.", serve={"queue_max_messages": 3})
    lost: list[Mapping[str, object]] = []
    rewards = RewardProducer(
        "homepage", small, lane="default", on_failure=lambda reward, _: lost.append(reward)
    )
    sent = [rewards.reward(ID, "click", reward_id=f"r{i}") for i in range(3)]
    with pytest.raises(BrokerError, match=r"reward r3 of decision .* was not taken: .*full"):
        rewards.reward(ID, "click", reward_id="r3")
    rewards.close(timeout=0)
    assert [reward["reward_id"] for reward in lost] == sent == ["r0", "r1", "r2"]
    with pytest.raises(BrokerError, match="it is closed"):
        rewards.reward(ID, "click")
