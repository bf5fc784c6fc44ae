"""What is in an outcome topic: how many outcomes, of how many decisions, whether they are right.

Two formats are known: Bandstand's own outcomes, read as its readers must, and the peers', whose
first byte tells whether there was a reward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from bandstand.kafka import TopicReader
from bandstand.schemas.columns import columns
from bandstand.settings import Settings
from benchmarks.events import WIRE
from benchmarks.join.workload import CLOSING, Workload

__all__ = [
    "Format",
    "Outcome",
    "Tally",
    "account",
    "bandstand_outcomes",
    "flagged_outcomes",
    "tally",
]

_READ_S = 120.0
_CHUNK = 10_000


class Outcome(NamedTuple):
    """What counts of one outcome."""

    key: bytes
    joined: bool


class _Record(NamedTuple):
    partition: int
    key: bytes
    value: bytes


Format = Callable[[Sequence[_Record]], Iterator[Outcome]]
"""Reads records in the order of their partitions."""


class Tally(NamedTuple):
    """The accounts of one run."""

    outcomes: int
    """Records, repeats included."""
    joined: int
    """Those with a reward."""
    missing: int
    """Decisions without any outcome."""
    repeated: int
    """Outcomes beyond the first of their decision."""
    wrong: int
    """Decisions whose outcome, one of them at least, says other than the truth about a reward."""

    @property
    def right(self) -> bool:
        """Whether each decision has one outcome, and the right one."""
        return not (self.missing or self.repeated or self.wrong)


def tally(settings: Settings, topic: str, read: Format, workload: Workload) -> Tally:
    """Count what is in an outcome topic, and compare it with what there should be."""
    return account(read(_records(settings, topic)), workload)


def account(outcomes: Iterable[Outcome], workload: Workload) -> Tally:
    """Compare outcomes with what there should be."""
    found = [outcome for outcome in outcomes if not outcome.key.startswith(CLOSING)]
    rewarded = {workload.key(n) for n in workload.rewarded}
    all_keys = {workload.key(n) for n in range(workload.count)}
    seen = {outcome.key for outcome in found}
    wrong = {outcome.key for outcome in found if outcome.joined != (outcome.key in rewarded)}
    assert seen <= all_keys, f"outcomes of decisions that nobody made: {list(seen - all_keys)[:3]}"
    return Tally(
        outcomes=len(found),
        joined=sum(outcome.joined for outcome in found),
        missing=len(all_keys - seen),
        repeated=len(found) - len(seen),
        wrong=len(wrong),
    )


def _records(settings: Settings, topic: str) -> list[_Record]:
    reader = TopicReader(settings, topic)
    try:
        return [
            _Record(message.partition() or 0, message.key() or b"", value)
            for message in reader.read_to_end(_READ_S)
            if (value := message.value()) is not None
        ]
    finally:
        reader.close()


def flagged_outcomes(records: Sequence[_Record]) -> Iterator[Outcome]:
    """Read outcomes whose first byte is 1 with a reward and 0 without."""
    return (Outcome(record.key, record.value[0] == 1) for record in records)


def bandstand_outcomes(records: Sequence[_Record]) -> Iterator[Outcome]:
    """Read Bandstand's, dropping what doesn't increase the source offset of its partition."""
    last: dict[int, int] = {}
    for start in range(0, len(records), _CHUNK):
        chunk = records[start : start + _CHUNK]
        batch = columns("outcome", [record.value for record in chunk], WIRE)
        assert not batch.bad, batch.bad[:1]
        sources, states = batch.table["source_offset"].to_pylist(), batch.table["state"].to_pylist()
        for record, source, state in zip(chunk, sources, states, strict=True):
            if source > last.get(record.partition, -1):
                last[record.partition] = source
                yield Outcome(record.key, state == "joined")
