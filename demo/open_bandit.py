"""Logs that others made: ten thousand rounds of a fashion shop's random policy, with clicks."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import KafkaError, Message, Producer

from bandstand.errors import BrokerError
from bandstand.kafka import producer_config
from bandstand.schemas.columns import arrow_schema, encode_columns
from bandstand.schemas.topics import TopicNames
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings

__all__ = ["Event", "Published", "broken_events", "events", "publish", "rounds"]

_ITEMS = [str(item) for item in range(80)]
_NOTHING: dict[str, dict[str, float]] = {"numeric": {}, "categorical": {}}
_LOG_SPAN_MS = 30 * 60_000
_WINDOW_SHARE = (0.05, 0.8)
_FLUSH_S = 30.0


@dataclass(frozen=True)
class Event:
    """One record to publish.

    Parameters
    ----------
    log
        ``decisions`` or ``rewards``.
    key
        Record key.
    value
        Record value.
    ts
        Kafka timestamp, milliseconds.
    reason
        Why the pipeline must refuse it; empty for a good one.
    """

    log: str
    key: bytes | None
    value: bytes | None
    ts: int
    reason: str = ""


@dataclass
class Published:
    """What the broker acknowledged.

    Parameters
    ----------
    good
        Number of good events.
    broken
        The broken ones: (topic, partition, offset) to the reason they must be refused for.
    """

    good: int = 0
    broken: dict[tuple[str, int, int], str] = field(default_factory=dict)


def rounds() -> pa.Table:
    """Give the 10,000 rounds of policy ``random``, campaign ``all``, in the order of time."""
    with as_file(files("bandstand.demo") / "data" / "open_bandit_sample.parquet") as path:
        table = pq.read_table(path)
    mine = pc.and_(
        pc.equal(table["policy"].cast(pa.string()), "random"),
        pc.equal(table["campaign"].cast(pa.string()), "all"),
    )
    return table.filter(mine).sort_by("timestamp")


def events(table: pa.Table, bandit: str, window_ms: int, now: int, wire: Wire) -> list[Event]:
    """Turn the rounds into decisions that end now and rewards that follow them.

    Parameters
    ----------
    table
        What `rounds` gives.
    bandit
        Name of the bandit.
    window_ms
        Attribution window; each click comes after a random part of it.
    now
        Where the log ends, milliseconds since the epoch.
    wire
        How events are framed.
    """
    times = pc.cast(table["timestamp"], pa.int64()).to_numpy()
    first, last = int(times[0]), int(times[-1])
    stretched = now - _LOG_SPAN_MS + (times - first) * _LOG_SPAN_MS // (last - first)
    decisions = _decisions(bandit, table.to_pylist(), stretched.tolist(), wire)
    delay = random.Random(20191124)
    out: list[Event] = []
    for decision, clicked in zip(decisions, table["click"].to_pylist(), strict=True):
        out.append(decision)
        if clicked:
            wait = int(window_ms * delay.uniform(*_WINDOW_SHARE))
            assert decision.key is not None
            out.append(_reward(bandit, decision.key.decode(), decision.ts + wait, wire))
    return out


def _decisions(
    bandit: str, rows: list[dict[str, Any]], times: list[int], wire: Wire
) -> list[Event]:
    """Write the rounds' decisions, all in one batch."""
    ids = [f"{bandit}-{number:05d}" for number in range(len(rows))]
    records = [
        {
            "bandit": bandit,
            "decision_id": decision_id,
            "subject": row["user_feature_0"],
            "ts": ts,
            "snapshot_version": "",
            "policy": row["policy"],
            "action": str(row["item_id"]),
            "propensity": row["propensity"],
            "features_hash": "",
            "features": [],
            "subject_numeric": {"position": float(row["position"])},
            "subject_categorical": {
                f"user_feature_{i}": row[f"user_feature_{i}"] for i in range(4)
            },
            "actions": [],
            "fallback": "",
            "metadata": {},
        }
        for decision_id, row, ts in zip(ids, rows, times, strict=True)
    ]
    schema = arrow_schema("decision")
    column = schema.get_field_index("actions")
    items = [{"action": item, "probability": 1 / len(_ITEMS), **_NOTHING} for item in _ITEMS]
    eligible = pa.array([items], schema.field(column).type).take(pa.array([0] * len(rows)))
    batch = pa.RecordBatch.from_pylist(records, schema=schema)
    bodies = encode_columns("decision", batch.set_column(column, schema.field(column), eligible))
    header = wire.header("decision")
    return [
        Event("decisions", decision_id.encode(), header + body, ts)
        for decision_id, body, ts in zip(ids, bodies, times, strict=True)
    ]


def _reward(bandit: str, decision_id: str, ts: int, wire: Wire) -> Event:
    record = {
        "bandit": bandit,
        "decision_id": decision_id,
        "reward_id": f"{decision_id}-click",
        "name": "click",
        "value": 1.0,
        "ts": ts,
    }
    return Event("rewards", decision_id.encode(), wire.dumps("reward", record), ts)


def broken_events(bandit: str, now: int, wire: Wire) -> list[Event]:
    """Give twenty records that the pipeline must refuse, each for one reason."""
    noise = random.Random(7)
    key = f"{bandit}-00000"
    row = {
        **{f"user_feature_{i}": "u" for i in range(4)},
        "policy": "random",
        "item_id": 1,
        "propensity": 0.5,
        "position": 1,
    }
    [decision] = _decisions(bandit, [row], [now], wire)
    [old] = _decisions(bandit, [row], [now - 10 * 86_400_000], wire)
    reward = _reward(bandit, key, now, wire)
    assert decision.value is not None
    assert reward.value is not None
    good, header = decision.value, wire.header("decision")
    name, raw = key.encode(), good[len(header) :]
    nan = {**wire.loads("reward", reward.value), "value": float("nan")}
    values: list[tuple[str, bytes | None, bytes | None, str]] = [
        ("decisions", name, json.dumps(row).encode(), "magic"),
        ("decisions", name, b"\x01" + good[1:], "magic"),
        ("decisions", name, b"\xc3\x02" + good[2:], "magic"),
        ("decisions", name, b"\xff" + noise.randbytes(900_000), "magic"),
        ("decisions", name, header[:2] + noise.randbytes(8) + raw, "schema"),
        ("decisions", name, b"\x00\x00\x00\x00\x07" + raw, "schema"),
        ("decisions", name, reward.value, "schema"),
        ("decisions", name, good[:-1], "truncated"),
        ("decisions", name, good[: len(header) + 9], "truncated"),
        ("decisions", name, header[:6], "truncated"),
        ("decisions", name, b"", "empty"),
        ("decisions", name, None, "empty"),
        ("decisions", name, good + b"more", "trailing"),
        ("decisions", name, good.replace(b"random", b"r\xffndom"), "invalid"),
        ("decisions", b"another-key", good, "key"),
        ("decisions", None, good, "key"),
        ("rewards", b"another-key", reward.value, "key"),
        ("rewards", name, wire.dumps("reward", nan), "value"),
    ]
    return [
        *(Event(log, key, value, now, reason) for log, key, value, reason in values),
        Event("decisions", name, good, now - 1, "timestamp"),
        Event("decisions", name, old.value, old.ts, "clock"),
    ]


def publish(
    settings: Settings, lane: str, stream: list[Event], tell: Callable[[int], None]
) -> Published:
    """Publish events in their order; a reward no sooner than its time.

    Parameters
    ----------
    settings
        Where the broker is.
    lane
        The lane.
    stream
        Good and broken events.
    tell
        Called with the number of events published so far.

    Raises
    ------
    BrokerError
        If the broker refuses one.
    """
    names = TopicNames(settings.topics.prefix)
    topics = {"decisions": names.decisions(lane), "rewards": names.rewards(lane)}
    producer = Producer(producer_config(settings))
    done = Published()
    problems: list[KafkaError] = []

    def report(event: Event) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                problems.append(error)
            elif event.reason:
                place = (
                    str(message.topic()),
                    int(message.partition() or 0),
                    int(message.offset() or 0),
                )
                done.broken[place] = event.reason
            else:
                done.good += 1

        return delivered

    for number, event in enumerate(_in_real_time(stream), 1):
        producer.produce(
            topics[event.log], event.value, event.key, timestamp=event.ts, on_delivery=report(event)
        )
        producer.poll(0)
        tell(number)
    if producer.flush(_FLUSH_S) or problems:
        raise BrokerError(f"events were not delivered: {problems[:1] or 'the broker is slow'}")
    return done


def _in_real_time(stream: list[Event]) -> Iterator[Event]:
    """Give what lies in the past first, then the rest, each when its time has come."""
    now = time.time() * 1_000
    yield from (event for event in stream if event.ts <= now)
    for event in sorted((event for event in stream if event.ts > now), key=lambda e: e.ts):
        time.sleep(max(0.0, event.ts / 1_000 - time.time()))
        yield event
