"""Stock Faust as a user would write it: rewards go into a table, decisions look them up there.

Faust has no other way: its joins of streams raise NotImplementedError.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import faust


def main(servers: str, decisions: str, rewards: str, outcomes: str, group: str, count: str) -> None:
    app = faust.App(
        group,
        broker=f"kafka://{servers}",
        store="memory://",
        datadir=Path("state"),
        web_enabled=False,
        topic_disable_leader=True,
        topic_partitions=int(count),
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        producer_compression_type="lz4",
        producer_linger=0.1,
    )
    rewarded = app.Table("rewarded", key_type=bytes, value_type=bytes, partitions=int(count))
    joined = app.topic(outcomes, key_type=bytes, value_type=bytes)

    @app.agent(app.topic(rewards, key_type=bytes, value_type=bytes))
    async def keep(stream: Any) -> None:
        async for decision_id, reward in stream.items():
            rewarded[decision_id] = reward

    @app.agent(app.topic(decisions, key_type=bytes, value_type=bytes))
    async def join(stream: Any) -> None:
        async for decision_id, decision in stream.items():
            reward = rewarded.get(decision_id)
            outcome = b"\0" + decision if reward is None else b"\1" + reward + decision
            await joined.send(key=decision_id, value=outcome)

    faust.Worker(app, loglevel=logging.WARNING, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:7])
