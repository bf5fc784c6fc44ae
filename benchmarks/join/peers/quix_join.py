"""Quix Streams' own interval join, how="left", as its documentation shows it."""

from __future__ import annotations

import sys

from quixstreams import Application
from quixstreams.dataframe import StreamingDataFrame


def main(
    servers: str, decisions: str, rewards: str, outcomes: str, group: str, window: str, grace: str
) -> None:
    app = Application(
        servers,
        consumer_group=group,
        auto_offset_reset="earliest",
        loglevel="WARNING",
        state_dir="state",
        consumer_extra_config={"fetch.queue.backoff.ms": 5, "queued.min.messages": 100_000},
        producer_extra_config={"linger.ms": 100, "compression.type": "lz4"},
    )
    window_ms, grace_ms = int(window), int(grace)
    (
        _read(app, decisions)
        .join_interval(
            _read(app, rewards),
            how="left",
            on_merge=_outcome,
            grace_ms=window_ms + grace_ms,
            forward_ms=window_ms,
        )
        .apply(_bytes)
        .to_topic(app.topic(outcomes, key_serializer="bytes", value_serializer="bytes"))
    )
    app.run()


def _read(app: Application, topic: str) -> StreamingDataFrame:
    # Its state is JSON, so an event's bytes go through it as text, unread.
    bytes_topic = app.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
    return app.dataframe(bytes_topic).apply(_text)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _outcome(decision: str, reward: str | None) -> str:
    return f"\0{decision}" if reward is None else f"\1{chr(len(reward))}{reward}{decision}"


def _bytes(outcome: str) -> bytes:
    return outcome.encode("latin-1")


if __name__ == "__main__":
    main(*sys.argv[1:8])
