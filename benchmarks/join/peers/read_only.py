"""Read both logs as fast as librdkafka gives them and do nothing; print decisions read so far."""

from __future__ import annotations

import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

PRINT_S = 0.02


def main(servers: str, decisions: str, rewards: str) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "read-only",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 5,  # its default of 1000 makes it ten times slower
            "queued.min.messages": 200_000,
        }
    )
    count = len(consumer.list_topics(decisions).topics[decisions].partitions)
    ours = [TopicPartition(decisions, p, OFFSET_BEGINNING) for p in range(count)]
    theirs = [TopicPartition(rewards, p, OFFSET_BEGINNING) for p in range(count)]
    consumer.assign(ours + theirs)
    printed = 0.0
    while True:
        messages = consumer.consume(10_000, 0.05)
        now = time.monotonic()
        if not messages or now - printed > PRINT_S:
            print(sum(max(0, place.offset) for place in consumer.position(ours)), flush=True)
            printed = now


if __name__ == "__main__":
    main(*sys.argv[1:4])
