"""Who takes part: how each is started, what its outcomes look like and what it does not promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.join.java import flink, streams
from benchmarks.join.place import Place
from benchmarks.join.python import bandstand, faust, quix, read_only
from benchmarks.join.tally import Format, bandstand_outcomes, flagged_outcomes
from benchmarks.join.turn import Command

__all__ = ["CONTESTANTS", "Contestant"]


@dataclass(frozen=True)
class Contestant:
    """One way to join.

    Parameters
    ----------
    name
        On the command line and in the results.
    semantics
        What it does, and what it does not promise; one sentence.
    commands
        Gives its processes.
    outcomes
        How its outcomes are read; None: it writes none and prints how far it is.
    in_lane
        Whether it reads logs of its own, with ticks.
    one_in
        It joins only one in so many of the decisions, because it is slow.
    repeats
        It gives a decision with a reward twice, so its run is longer than the decisions are many.
    """

    name: str
    semantics: str
    commands: Callable[[Place], Sequence[Command]]
    outcomes: Format | None = flagged_outcomes
    in_lane: bool = False
    one_in: int = 1
    repeats: bool = False

    def part_of(self, decisions: int) -> int:
        """Give how many of these decisions it joins."""
        return max(1, decisions // self.one_in)


CONTESTANTS = (
    Contestant(
        "bandstand",
        "One worker: one outcome for each decision when its window has closed, in effect once; "
        "checks every event's bytes, times and repeats; input that stops closes too.",
        bandstand(1),
        bandstand_outcomes,
        in_lane=True,
    ),
    Contestant(
        "bandstand-2",
        "The same with two workers, a partition each.",
        bandstand(2),
        bandstand_outcomes,
        in_lane=True,
    ),
    Contestant(
        "read-only",
        "The floor: confluent-kafka reads both logs (`fetch.queue.backoff.ms` 5, not librdkafka's "
        "1000) and does nothing with them.",
        read_only,
        outcomes=None,
    ),
    Contestant(
        "faust",
        "Stock Faust, rewards in a table (in memory, with changelog), each decision looked up "
        "there once, as it is read: a reward that is read later is missed, and acks are of reads, "
        "not of deliveries; a 20th of the decisions, because it is slow.",
        faust,
        one_in=20,
    ),
    Contestant(
        "quix",
        'Quix Streams, `join_interval(how="left")`: a decision without its reward at once, '
        "and again with it when it comes, so two records and no last word; events as text, not "
        "looked into (state is JSON); at least once.",
        quix,
        repeats=True,
    ),
    Contestant(
        "streams-bytes",
        "Kafka Streams, `leftJoin` with grace, one thread, RocksDB: one record for each pair when "
        "the window has closed by the time in the data (input that stops closes nothing); events "
        "as bytes, not looked into; at least once.",
        streams(values="bytes", guarantee="at_least_once", commit_ms="30000"),
    ),
    Contestant(
        "streams-avro",
        "The same, events read and outcomes written as generic Avro records.",
        streams(values="avro", guarantee="at_least_once", commit_ms="30000"),
    ),
    Contestant(
        "streams-eos",
        "The same, exactly once by transactions, a commit a second.",
        streams(values="avro", guarantee="exactly_once_v2", commit_ms="1000"),
    ),
    Contestant(
        "flink-heap",
        "Flink, a keyed co-process function with two slots, state on the heap, a checkpoint each "
        "10 s: one outcome for each decision at the close of its window by the time in the data "
        "(input that stops closes nothing); events as bytes, not looked into; at least once.",
        flink(values="bytes", backend="hashmap", parallelism="2"),
    ),
    Contestant(
        "flink-avro",
        "The same, events read and outcomes written as generic Avro records at the close.",
        flink(values="avro", backend="hashmap", parallelism="2"),
    ),
    Contestant(
        "flink-rocksdb",
        "As flink-heap, state in RocksDB.",
        flink(values="bytes", backend="rocksdb", parallelism="2"),
    ),
)
