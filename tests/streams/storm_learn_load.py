"""The join and the operator of the learners' storm: outcomes of every kind, and specs that change.

`Tally` counts what each bandit must learn, record by record, without looking at any sums.
"""

from __future__ import annotations

import bisect
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Message, Producer

from bandstand.errors import BandstandError, EventError
from bandstand.kafka import producer_config
from bandstand.schemas.spec import Spec, parse_spec
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams.in_force import InForce
from bandstand.streams.join_types import Record
from bandstand.streams.specs import apply_spec
from tests.streams.outcomes import START_MS, outcome, outcome_record, progress_record
from tests.streams.storm_scene import at_work

__all__ = ["BANDITS", "GUESTS", "Load", "Tally", "spec_of"]

LANE = "default"
BANDITS = ("linear", "counts", "weighted", "chained", "wide")
"""Those that have a spec from the beginning."""
GUESTS = tuple(f"guest{number}" for number in range(6))
"""Those that get one while the storm lasts; until then their outcomes are a stranger's."""

_WIRE = Wire.single_object()
_PAUSE_S = 0.012
_DECISIONS_AHEAD = 10
_DELIVERED_S = 60.0
_RECENT = 40
_APPLIED_S = 300.0
_MOVES_WITHIN_S = 2.5
_ACTIONS = ("a", "b", "c", "d", "e", "f", "g", "h")
_VARIANTS = 3
_POLICIES = {
    "linear": "{{name: linear_thompson, noise_variance: 0.{variant}5}}",
    "counts": "{{name: beta_thompson, prior_failures: {variant}.5}}",
    "weighted": "{{name: exp3, gamma: 0.{variant}5}}",
    "chained": "{{name: logistic_thompson, prior_precision: {variant}.5}}",
    "wide": "{{name: linear_thompson, noise_variance: 0.{variant}5}}",
    "guest": "{{name: lin_ucb, alpha: 0.{variant}5}}",
}
_FEATURES = {
    "linear": [
        "{name: age, kind: numeric, low: 0, high: 100}",
        "{name: plan, kind: categorical, values: [free, paid]}",
    ],
    "chained": ["{name: age, kind: numeric, low: 0, high: 90}"],
    # So wide that its sums come in two parts.
    "wide": ["{name: page, kind: hashed, buckets: 110}"],
    "guest": ["{name: age, kind: numeric, low: 10, high: 60}"],
}


def spec_of(bandit: str, variant: int) -> Spec:
    """Give a bandit's spec; variant 0 to 2, of which the last lacks an action."""
    kind = bandit.rstrip("0123456789")
    actions = _ACTIONS if kind == "wide" else _ACTIONS[:3]
    return parse_spec(
        f"""
        bandit: {bandit}
        lane: {LANE}
        actions: [{", ".join(actions[: len(actions) - (variant == _VARIANTS - 1)])}]
        features: [{", ".join(_FEATURES.get(kind, []))}]
        policy: {_POLICIES[kind].format(variant=variant + 1)}
        reward: {{name: click}}
        """,
        f"{bandit}.yaml",
    )


class Tally:
    """What was sent, and who must have learned how much from what is there."""

    def __init__(self) -> None:
        self.sent = 0
        self.errors: list[str] = []
        self.epochs: dict[str, int] = {}
        """Offsets of the specs records in force, by bandit."""
        self.ends: dict[int, int] = {}
        """Offsets after the last outcome that was delivered, by partition."""
        self._largest: dict[int, int] = {}
        self._learnable: dict[tuple[str, str, bool, int], list[int]] = {}
        """By bandit, action, whether it was drawn, and partition: source offsets, ascending."""

    def read(self, partition: int, record: Record) -> None:
        """Count an outcome as it lies in its topic."""
        if record.value is None:
            return
        try:
            fields = _WIRE.loads("outcome", record.value)
        except EventError:
            return
        if fields["source_offset"] <= self._largest.get(partition, -1):
            return
        self._largest[partition] = fields["source_offset"]
        decision = fields["decision"]
        if decision is None or any(r["value"] != r["value"] for r in fields["rewards"]):
            return
        drawn = 0 < decision["propensity"] <= 1
        place = decision["bandit"], decision["action"], drawn, partition
        self._learnable.setdefault(place, []).append(fields["source_offset"])

    def outcomes(self, in_force: InForce) -> int:
        """Give how many outcomes a bandit has learned under a spec, once it has learned all."""
        spec = in_force.spec
        return sum(
            len(offsets) - bisect.bisect_left(offsets, in_force.start(partition).decision)
            for (bandit, action, drawn, partition), offsets in self._learnable.items()
            if bandit == spec.bandit and action in spec.actions
            if drawn or not spec.policy.needs_propensity
        )


class Load:
    """One writer of outcomes and one operator, each a thread.

    Parameters
    ----------
    settings
        Where the broker is.
    tally
        Where it is noted what must come of it.
    seed
        Of the random numbers.
    """

    def __init__(self, settings: Settings, tally: Tally, seed: int) -> None:
        self._writer = _Writer(settings, tally, random.Random(f"{seed}/writer"))
        self._operator = _Operator(settings, tally, random.Random(f"{seed}/operator"))
        self._tally = tally

    @property
    def specs_applied(self) -> Counter[str]:
        """How often the operator did what."""
        return self._operator.done

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write while the block runs; at its end all is delivered and applied."""
        with at_work(self._writer.run, self._operator.run):
            yield
        self._writer.flush()
        assert not self._tally.errors, self._tally.errors[0]


class _Writer:
    """Writes outcomes as a join does: source offsets grow, and what a zombie repeats is dropped."""

    def __init__(self, settings: Settings, tally: Tally, draw: random.Random) -> None:
        names = TopicNames(settings.topics.prefix)
        self._topic, self._decisions = names.outcomes(LANE), names.decisions(LANE)
        self._partitions = settings.lanes[LANE].partitions
        self._tally = tally
        self._draw = draw
        self._next = [0] * self._partitions
        self._decided = [0] * self._partitions
        self._delivered_decisions = [0] * self._partitions
        self._recent: list[deque[Record]] = [deque(maxlen=_RECENT) for _ in self._next]
        self._producer = Producer(
            producer_config(
                settings, linger_ms=2, message_timeout_ms=0, enable_gapless_guarantee=True
            )
        )

    def run(self, stop: threading.Event) -> None:
        """Write until told to stop."""
        while not stop.is_set():
            for _ in range(self._draw.randrange(8)):
                self._write()
            self._producer.poll(0)
            time.sleep(_PAUSE_S * self._draw.uniform(0.5, 1.5))

    def flush(self) -> None:
        """Wait until everything is delivered."""
        left = self._producer.flush(_DELIVERED_S)
        assert not left, f"{left} outcomes not delivered in {_DELIVERED_S:g} s"

    def _write(self) -> None:
        partition = self._draw.randrange(self._partitions)
        [kind] = self._draw.choices(
            ("outcome", "odd", "oversize", "again", "progress", "bad"), (87, 5, 2, 3, 2, 1)
        )
        match kind:
            case "again":
                recent = list(self._recent[partition])
                for record in recent[self._draw.randrange(len(recent) + 1) :][:8]:
                    self._send(partition, record)
            case "progress":
                source_offset = self._next[partition] - 1
                self._send(partition, progress_record(0, source_offset, START_MS + source_offset))
            case "bad":
                self._send(partition, self._bad(self._next[partition]))
            case _:
                self._fresh(partition, kind)

    def _fresh(self, partition: int, kind: str) -> None:
        self._decide(partition)
        source_offset = self._next[partition]
        if source_offset >= self._delivered_decisions[partition]:
            return  # its decision is still under way
        self._next[partition] += self._draw.choice((1, 1, 1, 2))  # as after a refused decision
        fields = self._outcome(source_offset, kind)
        record = outcome_record(0, fields, _WIRE)
        self._recent[partition].append(record)
        self._send(partition, record)

    def _decide(self, partition: int) -> None:
        """Keep a few decisions ahead of their outcomes; what is in them matters to nobody here."""
        while self._decided[partition] < self._next[partition] + _DECISIONS_AHEAD:
            self._decided[partition] += 1
            self._producer.produce(
                self._decisions, None, b"decision", partition, on_delivery=self._delivered_decision
            )

    def _delivered_decision(self, error: object, message: Message) -> None:
        if error is not None:
            self._tally.errors.append(f"a decision was not delivered: {error}")
            return
        self._delivered_decisions[message.partition() or 0] = (message.offset() or 0) + 1

    def _outcome(self, source_offset: int, kind: str) -> dict[str, Any]:
        [bandit] = self._draw.choices(
            (*BANDITS, *GUESTS), (*(20, 20, 20, 20, 1), *[20 / len(GUESTS)] * len(GUESTS))
        )
        fields: dict[str, Any] = outcome(
            source_offset,
            bandit=bandit,
            action=self._draw.choice(_ACTIONS if bandit == "wide" else _ACTIONS[:3]),
            age=self._draw.uniform(0, 100),
            plan=self._draw.choice(("free", "paid")),
            clicks=self._draw.choice((0, 0, 1, 2)),
            oversize=kind == "oversize",
        )
        decision = fields["decision"]
        if decision is None:
            return fields
        decision["subject_categorical"]["page"] = f"page{self._draw.randrange(400)}"
        decision["propensity"] = self._draw.uniform(0.1, 1)
        if kind == "odd":
            match self._draw.randrange(3):
                case 0:
                    decision["action"] = "unknown"
                case 1:
                    decision["propensity"] = 0.0
                case _:
                    reward = {"reward_id": "r", "name": "click", "ts": START_MS, "offset": 0}
                    fields["rewards"] = [{**reward, "value": float("nan")}]
        return fields

    def _bad(self, source_offset: int) -> Record:
        good = outcome_record(0, outcome(source_offset), _WIRE)
        assert good.value is not None
        match self._draw.randrange(4):
            case 0:
                return good._replace(value=b"{}")
            case 1:
                return good._replace(value=good.value[:-3])
            case 2:
                return good._replace(value=good.value + b"\x00")
            case _:
                return progress_record(0, 0, 0)._replace(
                    headers=[("other", json.dumps(1).encode())]
                )

    def _send(self, partition: int, record: Record) -> None:
        self._tally.sent += 1
        self._producer.produce(
            self._topic,
            record.value,
            record.key,
            partition,
            timestamp=record.timestamp,
            headers=list(record.headers),
            on_delivery=self._delivered,
        )

    def _delivered(self, error: object, message: Message) -> None:
        if error is not None:
            self._tally.errors.append(f"an outcome was not delivered: {error}")
            return
        partition, end = message.partition() or 0, (message.offset() or 0) + 1
        self._tally.ends[partition] = max(end, self._tally.ends.get(partition, 0))


class _Operator:
    """Applies specs: those of the beginning at once, then a new or another one in some rounds."""

    def __init__(self, settings: Settings, tally: Tally, draw: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._settings = settings
        self._tally = tally
        self._draw = draw
        self._variants: dict[str, int] = {}
        for bandit in BANDITS:
            self._apply(bandit, 0)

    def run(self, stop: threading.Event) -> None:
        """Do what this round asks of the operator, or nothing; also when told to stop."""
        del stop
        act = self._draw.choice((self._invite, self._change, self._change, None))
        time.sleep(self._draw.uniform(0, _MOVES_WITHIN_S))
        if act is not None:
            try:
                act()
            except BandstandError as error:
                self._tally.errors.append(f"the operator failed: {error!r}")

    def _invite(self) -> None:
        guests = [guest for guest in GUESTS if guest not in self._variants]
        if guests:
            self._apply(guests[0], 0, retained=self._draw.random() < 0.5)
            self.done["new"] += 1

    def _change(self) -> None:
        bandit = self._draw.choice(list(self._variants))
        step = self._draw.randrange(1, _VARIANTS)
        self._apply(bandit, (self._variants[bandit] + step) % _VARIANTS)
        self.done["changed"] += 1

    def _apply(self, bandit: str, variant: int, *, retained: bool = False) -> None:
        self._variants[bandit] = variant
        spec = spec_of(bandit, variant)
        self._tally.epochs[bandit] = _persist(
            lambda: apply_spec(self._settings, spec, retained=retained)
        )


def _persist(act: Callable[[], int]) -> int:
    """Do something again until the broker is there for it."""
    deadline = time.monotonic() + _APPLIED_S
    while True:
        try:
            return act()
        except BandstandError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
