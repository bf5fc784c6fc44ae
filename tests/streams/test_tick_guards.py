"""The guards of the join's clock; each is defended by a test that fails without it."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandstand.errors import SettingsError
from bandstand.settings import JoinSettings
from bandstand.streams.tick_guards import Brake, GuardRules, Heard, LogClock, Reading

RULES = GuardRules(
    tick=1.0, idle_tick=10.0, pause=5.0, settle=15.0, brake_ms=5_000, brake_release=600.0
)
EPOCH_MS = 1_700_000_000_000


class Life:
    """A log, its leader and a broker's clock, moved on by hand."""

    def __init__(self, *, settled: bool = True, at: float = 100.0) -> None:
        self.at = at
        self.offset_ms = EPOCH_MS
        self.brake = Brake(RULES)
        self.brake.holds(self.reading())
        self.clock = LogClock(RULES, known=at if settled else None)
        self.ticks: list[int] = []

    def reading(self) -> Reading:
        """Ask the broker for the time."""
        return Reading(self.offset_ms + round(self.at * 1_000), self.at)

    def try_tick(self, *, busy: bool = True, deliver: bool = True) -> str:
        """Do what the ticker does once a tick."""
        reading = self.reading()
        braked = self.brake.holds(reading)
        verdict = self.clock.decide(reading, now=self.at, busy=busy, braked=braked)
        if verdict.tick:
            self.clock.sent(reading)
            if deliver:
                self.clock.delivered()
                self.brake.trust(reading)
                self.ticks.append(reading.broker_ms)
        return verdict.reason

    def live(
        self, seconds: float, *, answers: bool = True, busy: bool = True, writable: bool = True
    ) -> list[str]:
        """Let time pass, a round a second; the leader answers, or doesn't, and refuses ticks."""
        reasons = []
        for _ in range(round(seconds)):
            self.at += 1.0
            if answers:
                self.clock.answered(asked=self.at, now=self.at)
            reasons.append(self.try_tick(busy=busy, deliver=answers and writable))
            if reasons[-1] == "due" and not (answers and writable):
                self.clock.failed()
        return reasons


def test_a_log_that_never_had_a_tick_gets_its_first_at_once() -> None:
    """There is nothing to wait for."""
    assert Life().try_tick() == "due"


def test_a_busy_log_is_ticked_once_a_second() -> None:
    """Every round brings a tick, none brings two."""
    life = Life()
    assert life.live(20) == ["due"] * 20
    assert life.try_tick() == "not_due"


def test_an_idle_log_is_ticked_every_ten_seconds_without_settling() -> None:
    """Its leader answers all the while, so a last tick that is ten seconds old is no pause."""
    life = Life()
    life.live(60, busy=False)
    assert [b - a for a, b in pairwise(life.ticks)] == [10_000] * 5


def test_an_idle_log_that_gets_work_is_ticked_at_once() -> None:
    """The next round brings a tick."""
    life = Life()
    life.live(3, busy=False)
    assert life.live(1, busy=True) == ["due"]


def test_deadline_one_tick_at_most_is_under_way() -> None:
    """Ticks don't pile up behind one that isn't acknowledged; after it failed the next may go."""
    life = Life()
    life.live(1)
    life.at += 1
    assert life.try_tick(deliver=False) == "due"
    life.at += 1
    assert life.try_tick() == "under_way"
    life.clock.failed()
    assert life.try_tick() == "due"


def test_deadline_a_time_that_has_aged_is_not_written() -> None:
    """A process that was stopped between asking and writing asks again."""
    life = Life()
    reading = life.reading()
    life.at += 1.5
    life.clock.answered(asked=life.at, now=life.at)
    verdict = life.clock.decide(reading, now=life.at, busy=True, braked=False)
    assert verdict.reason == "stale_time"


def test_settle_after_an_outage_the_leader_must_have_answered_for_a_while() -> None:
    """What waited in producers' queues lands before the first tick."""
    life = Life()
    life.live(5)
    life.live(60, answers=False)
    back = life.at
    reasons = life.live(30)
    assert set(reasons[:15]) == {"settle"}
    assert reasons[15:] == ["due"] * 15
    first = next(tick for tick in life.ticks if tick > EPOCH_MS + back * 1_000)
    assert first - (EPOCH_MS + (back + 1) * 1_000) == 15_000


def test_settle_starts_anew_when_the_leader_falls_silent_again() -> None:
    """Fifteen seconds mean fifteen in a row."""
    life = Life()
    life.live(5)
    life.live(60, answers=False)
    life.live(10)
    life.live(6, answers=False)
    assert set(life.live(15)) == {"settle"}
    assert life.live(1) == ["due"]


def test_settle_a_leader_that_answers_and_refuses_ticks_is_no_live_one() -> None:
    """Answers don't count while ticks fail; when they count again, they must do so for a while."""
    life = Life()
    life.live(5)
    refused = life.live(80, writable=False)
    assert refused[:5] == ["due"] * 5
    tries = [i for i, reason in enumerate(refused[6:]) if reason == "due"]
    assert [b - a for a, b in pairwise(tries)] == [16] * 3


def test_settle_a_tick_that_fails_after_settling_shows_that_the_answers_were_wrong() -> None:
    """Whoever has settled by answers alone begins anew at the first refusal."""
    life = Life(settled=False)
    life.live(15)
    assert life.live(1, writable=False) == ["due"]
    assert set(life.live(15)) == {"settle"}
    assert life.live(1) == ["due"]


def test_settle_is_needed_by_a_new_owner_whose_first_tick_is_refused() -> None:
    """It can't know for how long the log was refused before."""
    life = Life()
    assert life.live(1, writable=False) == ["due"]
    assert set(life.live(15)) == {"settle"}


def test_a_tick_that_is_refused_once_needs_no_settling() -> None:
    """An election takes a moment; the next round makes up for it, and answers count again."""
    life = Life()
    life.live(5)
    assert life.live(3, writable=False) == ["due"] * 3
    assert life.live(60, busy=False).count("due") == 6


def test_settle_is_needed_by_a_new_owner_after_a_long_time_without_ticks() -> None:
    """Nobody knows whether the brokers or only the workers were away."""
    life = Life(settled=False)
    assert set(life.live(15)) == {"settle"}
    assert life.live(1) == ["due"]


def _heard(*times: float) -> Heard:
    heard = Heard(RULES)
    for at in times:
        heard.answered(asked=at, now=at)
    return heard


def test_a_new_owner_that_heard_the_leader_since_the_last_tick_goes_on() -> None:
    """Its predecessor was killed, the leader wasn't away: known up to the last answer."""
    heard = _heard(*range(100, 161, 4))
    assert heard.known(ticked=120.0, now=161.0) == 160.0


def test_a_new_owner_that_heard_the_leader_be_silent_settles() -> None:
    """The broker was away since the last tick, for longer than a pause; before it matters not."""
    heard = _heard(100, 104, 110, 114, 118)
    assert heard.known(ticked=104.5, now=119.0) is None
    assert heard.known(ticked=111.0, now=119.0) == 118.0


def test_a_new_owner_that_hears_nobody_now_settles() -> None:
    """What was heard up to a pause ago says nothing of the time since."""
    assert _heard(100, 104, 108).known(ticked=101.0, now=113.5) is None


def test_a_new_process_goes_on_for_a_pause_after_the_last_tick() -> None:
    """It has heard nobody, but a tick is an answer, too."""
    assert _heard().known(ticked=100.0, now=104.9) == 100.0
    assert _heard().known(ticked=100.0, now=105.1) is None
    assert _heard(103.0).known(ticked=100.0, now=105.1) is None


def test_a_short_failure_needs_no_settling() -> None:
    """A tick that was missed once is made up for in the next round."""
    life = Life()
    life.live(5)
    life.live(4, answers=False)
    assert life.live(1) == ["due"]


def test_a_stopped_process_settles_first() -> None:
    """Stopped for a minute, a worker knows nothing about that minute."""
    life = Life()
    life.live(5)
    life.at += 60
    assert life.try_tick() == "settle"


def test_brake_time_that_ran_ahead_is_not_written() -> None:
    """A broker's clock that jumps an hour closes nobody's window, and is released in the end."""
    life = Life()
    life.live(5)
    life.offset_ms += 3_600_000
    assert life.live(599) == ["brake"] * 599
    assert life.brake.engaged
    life.live(2)
    assert life.ticks[-1] > EPOCH_MS + 3_600_000
    assert not life.brake.engaged


def test_brake_is_released_by_an_operator() -> None:
    """Whoever says that the clock is right gets ticks at once."""
    life = Life()
    life.live(5)
    life.offset_ms += 3_600_000
    life.live(3)
    life.brake.accept(life.reading())
    assert life.live(1) == ["due"]


def test_brake_lets_go_when_the_clock_comes_back() -> None:
    """A clock that was set right again needs nobody."""
    life = Life()
    life.live(5)
    life.offset_ms += 3_600_000
    life.live(3)
    life.offset_ms -= 3_600_000
    assert life.live(1) == ["due"]
    assert not life.brake.engaged


def test_a_clock_that_went_back_and_forth_is_not_braked() -> None:
    """What counts is how far time runs ahead of the largest tick."""
    life = Life()
    life.live(5)
    life.offset_ms -= 3_600_000
    assert life.live(10) == ["due"] * 10
    life.offset_ms += 3_600_000
    assert life.live(10) == ["due"] * 10


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 30), st.booleans(), st.booleans(), st.integers(-10_000_000, 10_000_000)
        ),
        max_size=60,
    )
)
def test_time_in_the_log_never_runs_ahead(
    steps: list[tuple[float, bool, bool, int]],
) -> None:
    """Whatever fails and whichever clock jumps: no tick is more than the brake ahead of its log."""
    life = Life()
    largest, largest_at = life.reading().broker_ms, life.at
    for seconds, answers, busy, jump in steps:
        life.at += seconds
        life.offset_ms += jump
        if answers:
            life.clock.answered(asked=life.at, now=life.at)
        reading = life.reading()
        if life.try_tick(busy=busy) != "due" or not life.ticks:
            continue
        if life.at - largest_at < RULES.brake_release:
            passed_ms = (life.at - largest_at) * 1_000
            assert reading.broker_ms - largest - passed_ms <= RULES.brake_ms + 1
        if reading.broker_ms >= largest:
            largest, largest_at = reading.broker_ms, life.at


@given(st.lists(st.tuples(st.floats(0.01, 20), st.booleans()), min_size=1, max_size=80))
def test_no_tick_follows_silence_without_settling(steps: list[tuple[float, bool]]) -> None:
    """Between a silence longer than a pause and the next tick lie answers for `settle` in a row."""
    life = Life(at=0.0)
    heard = [0.0]
    for seconds, answers in steps:
        life.at += seconds
        if answers:
            life.clock.answered(asked=life.at, now=life.at)
            heard.append(life.at)
        if life.try_tick() == "due":
            if heard[-1] != life.at:
                heard.append(life.at)
            gaps = [b for a, b in pairwise(heard) if b - a > RULES.pause]
            assert not gaps or life.at - gaps[-1] >= RULES.settle


def test_rules_come_from_the_settings() -> None:
    """The guards' numbers are those of the settings, in seconds."""
    assert GuardRules.from_settings(JoinSettings()) == RULES


def test_ticks_too_far_apart_are_refused() -> None:
    """A pause shorter than three ticks would never end."""
    with pytest.raises(SettingsError, match=r"join\.pause is 2s; allowed: three ticks \(3s\)"):
        GuardRules.from_settings(JoinSettings(pause=timedelta(seconds=2)))


@pytest.mark.parametrize("age", [0.0, 0.9])
def test_a_fresh_time_is_written(age: float) -> None:
    """The deadline leaves room for an answer that takes a moment."""
    life = Life()
    reading = life.reading()
    life.at += age
    verdict = life.clock.decide(reading, now=life.at, busy=True, braked=False)
    assert verdict.reason == "due"
