"""The partitions that this worker owns: their cores, and all I/O around them but the reading.

Knows nothing of Faust: told which partitions are ours and which records came, it says what to read
next. Cores stay over a rebalance as long as the partition does. A lane in trouble is given up by
this worker, which goes on with the others; where it was the last one, the worker dies.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bandstand.durations import milliseconds
from bandstand.errors import BandstandError, BrokerError, StateError
from bandstand.logs import get_logger
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import wire_from
from bandstand.settings import Settings
from bandstand.streams.dead_letters import DeadLetters, Origin
from bandstand.streams.join_core import JoinCore
from bandstand.streams.join_metrics import (
    DECISIONS,
    DELAYS,
    LANES_GIVEN_UP,
    OUTCOMES,
    REBALANCES,
    REFUSED,
    REWARDS,
)
from bandstand.streams.join_types import (
    Log,
    Output,
    Records,
    Rules,
    parse_tail,
)
from bandstand.streams.leaders import Place
from bandstand.streams.outcomes import GaplessProducer
from bandstand.streams.starts import Starts, broker_time
from bandstand.streams.tail import LogEnds
from bandstand.streams.ticker import BrokerClock, Ticker
from bandstand.web import Health

__all__ = ["Lanes", "OwnPartition"]

_log = get_logger(__name__)
_RETRY_S = 0.5
_MOST_LETTERS_UNDER_WAY = 1_000
_LETTERS_WAIT_S = 5.0
"""How long letters may be under way before reading waits; less than the least `skew`."""
_LOGS: tuple[Log, Log] = ("decisions", "rewards")


class OwnPartition:
    """One partition of one lane: its core and the names around it."""

    def __init__(self, lane: str, partition: int, core: JoinCore, topics: Mapping[str, str]):
        self.lane = lane
        self.partition = partition
        self.core = core
        self.outcomes = topics["outcomes"]
        self.places: dict[Log, Place] = {log: Place(topics[log], partition) for log in _LOGS}
        self.progress_at = time.monotonic()
        self.done = core.position()
        """Where the decision cursor stands, for other threads."""

    def expects(self, log: Log) -> int:
        """Give the next offset that a cursor takes."""
        return self.core.next_decision if log == "decisions" else self.core.next_reward

    def wants(self, log: Log) -> bool:
        """Tell whether a log should be read on."""
        return self.core.wants_decisions if log == "decisions" else self.core.wants_rewards

    def busy(self, log: Log) -> bool:
        """Tell whether a log had a record since its last tick, or a decision waits."""
        last = self.core.last_tick[log]
        return self.core.waiting > 0 or last is None or self.expects(log) != last[1] + 1

    def push(self, log: Log, records: Records) -> Output:
        """Read on in a log."""
        core = self.core
        decisions = log == "decisions"
        output = core.push_decisions(records) if decisions else core.push_rewards(records)
        self.done = core.position()
        return output


class Lanes:
    """All lanes of one worker.

    Parameters
    ----------
    settings
        The settings in force.
    health
        Where readiness is reported.
    die
        Called with an error after which nothing may go on; must not return.
    """

    def __init__(
        self, settings: Settings, health: Health, die: Callable[[BaseException], None]
    ) -> None:
        self._settings = settings
        self._health = health
        self._die = die
        names = TopicNames(settings.topics.prefix)
        self._topics = {
            lane: dict(zip((*_LOGS, "outcomes"), names.lane(lane), strict=True))
            for lane in settings.lanes
        }
        self._of_topic: dict[str, tuple[str, Log]] = {
            topics[log]: (lane, log) for lane, topics in self._topics.items() for log in _LOGS
        }
        self._given_up: set[str] = set()
        self._assigned: set[tuple[str, int]] = set()
        self._own: dict[tuple[str, int], OwnPartition] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._started = False
        health.wait_for("assignment")

    @property
    def topics(self) -> list[str]:
        """Topics to be read: each lane's decisions and rewards."""
        return list(self._of_topic)

    @property
    def own(self) -> list[OwnPartition]:
        """The partitions whose cores are at work."""
        return list(self._own.values())

    @property
    def ticker(self) -> Ticker:
        """The clock that writes ticks into the open logs."""
        return self._ticker

    def start(self) -> None:
        """Connect.

        Raises
        ------
        SchemaError
            If the schema registry refuses an event's schema.
        """
        settings = self._settings
        self._wire = wire_from(settings)
        # One each: a lane that can't be written must not hold up the others.
        self._outcomes = {
            lane: GaplessProducer(settings, partial(self._give_up, lane)) for lane in self._topics
        }
        self._letters = DeadLetters(settings, "join", self._wire)
        self._clock = BrokerClock(settings)
        self._ticker = Ticker(
            settings, self._clock, watched=self._places(), lost=self.lost, die=self._die
        )
        self._ends = LogEnds(settings)
        self._starts = Starts(settings, self._ends, self._clock)
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="opener")
        self._ticker.start()
        self._started = True

    def finish(self) -> None:
        """Write where the cursors stand, and begin nothing more; by the thread that feeds them."""
        self._stopping.set()
        if self._started:
            self._ticker.stop()
            self.hand_over()
            self._opener.shutdown(wait=False, cancel_futures=True)

    def flush(self, timeout: float) -> None:
        """Wait for deliveries, at the end.

        Parameters
        ----------
        timeout
            Seconds to wait for the broker; what isn't delivered then is written by the next owner.
        """
        if not self._started:
            return
        end = time.monotonic() + timeout / 2
        left = sum(
            outcomes.flush(max(end - time.monotonic(), 0)) for outcomes in self._outcomes.values()
        )
        if left:
            _log.warning("stopped with records undelivered; the next owner gives them", count=left)
        try:
            self._letters.flush(timeout / 2)
        except BrokerError as error:
            _log.warning("stopped with letters undelivered; the next owner gives them", why=error)

    def accept_time(self) -> None:
        """Take the broker's time for right, where the brake holds the ticks back."""
        self._ticker.accept()

    def assign(self, logs: Iterable[tuple[str, int]]) -> None:
        """Take over what is new among the assigned logs, and let go what isn't there any more."""
        assigned = self._partitions(logs)
        REBALANCES.inc()
        with self._lock:
            gone, new = self._assigned - assigned, assigned - self._assigned
            self._assigned = assigned
        self._let_go(gone)
        for lane, partition in sorted(new):
            self._opener.submit(self._open, lane, partition)
        _log.info("partitions assigned", new=sorted(new), gone=sorted(gone), all=len(assigned))
        self._tell_readiness()

    def lost(self, place: tuple[str, int], error: BandstandError) -> None:
        """Give up the lane of a log that can't be read or written any more."""
        self._give_up(self._of_topic[place[0]][0], error)

    def hand_over(self) -> None:
        """Write where every decision cursor stands, for whoever reads the outcome's tail next."""
        for own in self.own:
            self._write_progress(own)

    def wanted(self) -> dict[tuple[str, int], int]:
        """Give the next offset of each log that should be read on now."""
        if len(self._letters) > _MOST_LETTERS_UNDER_WAY:
            return {}
        if self._letters.waiting > _LETTERS_WAIT_S:
            return {}  # else a new owner could begin to read behind the records they are about
        full = {lane for lane, outcomes in self._outcomes.items() if outcomes.full}
        return {
            own.places[log]: own.expects(log)
            for own in self.own
            if own.lane not in full
            for log in _LOGS
            if own.wants(log)
        }

    def positions(self) -> dict[tuple[str, int], int]:
        """Give the next offset of each log, for those who look at the group's lag."""
        return {own.places[log]: own.expects(log) for own in self.own for log in _LOGS}

    def take(self, topic: str, partition: int, records: Records) -> None:
        """Feed a batch to its core.

        Parameters
        ----------
        topic, partition
            Where the records come from.
        records
            What was read there.
        """
        lane, log = self._of_topic[topic]
        own = self._own.get((lane, partition))
        if own is None or records.start > own.expects(log):
            return  # read for an owner before: the partition went, or went and came back
        try:
            output = own.push(log, records)
        except BandstandError as error:
            self._give_up(lane, error)
            return
        self._outcomes[lane].send_all(own.outcomes, partition, output.emissions)
        for refusal in output.refusals:
            record = refusal.record
            origin = Origin(topic, partition, record.offset, *record[1:4])
            self._letters.send(origin, refusal.reason, refusal.detail)
        _count(own, output)

    def poll(self) -> None:
        """Notice deliveries, and write progress where it is time; to be called often."""
        for outcomes in self._outcomes.values():
            outcomes.poll()
        self._letters.poll()
        every = self._settings.join.progress.total_seconds()
        for own in self.own:
            if time.monotonic() - own.progress_at >= every:
                self._write_progress(own)

    def _write_progress(self, own: OwnPartition) -> None:
        own.progress_at = time.monotonic()
        progress = own.core.progress()
        if progress is not None:
            self._outcomes[own.lane].send(own.outcomes, own.partition, progress)

    def _give_up(self, lane: str, error: BandstandError) -> None:
        """Do nothing more for a lane; whatever is wrong with it, the others aren't to suffer."""
        with self._lock:
            if lane in self._given_up:
                return
            self._given_up.add(lane)
            last = len(self._given_up) == len(self._topics)
        if last:
            self._die(error)
        self._let_go({key for key in self._assigned if key[0] == lane})
        for place in self._places(lane):
            self._ticker.forget(place)
        _log.critical("lane given up; the others go on", lane=lane, why=str(error))
        LANES_GIVEN_UP.labels(lane).set(1)
        self._health.wait_for(f"lane {lane}", f"given up: {error}")
        self._tell_readiness()

    def _places(self, *lanes: str) -> list[Place]:
        """Give all logs of some lanes, or of all, whoever owns them."""
        return [
            Place(self._topics[lane][log], partition)
            for lane in lanes or self._topics
            for log in _LOGS
            for partition in range(self._settings.lanes[lane].partitions)
        ]

    def _let_go(self, keys: Iterable[tuple[str, int]]) -> None:
        with self._lock:
            let_go = [self._own.pop(key) for key in keys if key in self._own]
        for own in let_go:
            for place in own.places.values():
                self._ticker.close(place)

    def _is_ours(self, lane: str, partition: int) -> bool:
        return (lane, partition) in self._assigned and lane not in self._given_up

    def _partitions(self, logs: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
        found: dict[Log, set[tuple[str, int]]] = {"decisions": set(), "rewards": set()}
        for topic, partition in logs:
            if topic in self._of_topic:
                lane, log = self._of_topic[topic]
                found[log].add((lane, partition))
        odd = found["decisions"] ^ found["rewards"]
        for lane in sorted({lane for lane, _ in odd}):
            error = StateError(
                f"not both logs of partitions {sorted(p for name, p in odd if name == lane)} of "
                f"lane {lane!r} were assigned to this worker; the lane's topics must be there, "
                "with equal partition counts: run 'bandstand topics check'"
            )
            self._give_up(lane, error)
        return found["decisions"] - odd

    def _open(self, lane: str, partition: int) -> None:
        try:
            while self._is_ours(lane, partition) and not self._stopping.is_set():
                try:
                    self._start_core(lane, partition)
                    break
                except BrokerError as error:
                    _log.warning("can't take over yet", lane=lane, partition=partition, why=error)
                    self._stopping.wait(_RETRY_S)
            self._tell_readiness()
        except BandstandError as error:
            self._give_up(lane, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must not go on
            self._die(error)

    def _start_core(self, lane: str, partition: int) -> None:
        topics, rules = self._topics[lane], Rules.from_settings(self._settings.lanes[lane])
        began = time.monotonic()
        last = self._ends.tail(topics["outcomes"], partition)
        tail = None if last is None else parse_tail(last, self._wire)
        decisions, rewards = (Place(topics[log], partition) for log in _LOGS)
        starts = self._starts.find(decisions, rewards, tail, rules)
        core = JoinCore(
            rules,
            self._wire,
            max_outcome_bytes=self._settings.lanes[lane].max_outcome_bytes,
            tail=tail,
            decision_start=starts[0],
            reward_start=starts[1],
        )
        own = OwnPartition(lane, partition, core, topics)
        self._open_logs(own, rules, fresh=tail is None)
        _log.info(
            "took over",
            lane=lane,
            partition=partition,
            tail=tail and tail.source_offset,
            starts=starts,
            seconds=round(time.monotonic() - began, 3),
        )

    def _open_logs(self, own: OwnPartition, rules: Rules, *, fresh: bool) -> None:
        opened = broker_time(self._clock)
        join = self._settings.join
        # A killed worker's logs come over within its session and a rebalance; older ticks will
        # hardly have been heard all the while, so that a log without a younger one may settle.
        look_back = join.pause + join.idle_tick + 2 * join.session_timeout
        since = opened.broker_ms - milliseconds(look_back)
        ticks = {log: self._ends.last_tick(*own.places[log], since) for log in _LOGS}
        with self._lock:
            if not self._is_ours(own.lane, own.partition):
                return
            for log, tick in ticks.items():
                never = None if fresh else -math.inf
                ago = None if tick is None else (opened.broker_ms - tick) / 1_000
                self._ticker.open(
                    own.places[log],
                    header=rules.to_header(),
                    opened=opened.at,
                    ticked=never if ago is None else opened.at - ago,
                    busy=partial(own.busy, log),
                )
            self._own[own.lane, own.partition] = own

    def _tell_readiness(self) -> None:
        with self._lock:
            missing = sum(self._is_ours(*key) for key in self._assigned) - len(self._own)
        if missing:
            self._health.wait_for("assignment", f"{missing} partitions are being taken over")
        else:
            self._health.arrived("assignment")


def _count(own: OwnPartition, output: Output) -> None:
    if output.emissions:
        OUTCOMES.labels(own.lane, own.partition).inc(len(output.emissions))
    for state, count in output.decisions.items():
        DECISIONS.labels(own.lane, own.partition, state).inc(count)
    for state, count in output.rewards.items():
        REWARDS.labels(own.lane, own.partition, state).inc(count)
    for refusal in output.refusals:
        if not refusal.again:
            REFUSED.labels(own.lane, own.partition, refusal.log, refusal.reason).inc()
    if output.delays:
        DELAYS.add(own.lane, own.partition, output.delays)
