"""Learning what came before: a spec that is new here, taught by the outcomes still retained.

The live core goes on meanwhile. A second core reads the partition from where the first of the new
specs begins, for these only, and is adopted at the moment in which both stand at the same offset.
"""

from __future__ import annotations

from bandstand.kafka import TopicReader
from bandstand.schemas.wire import Wire
from bandstand.settings import Settings
from bandstand.streams import learn_metrics
from bandstand.streams.join_types import Record
from bandstand.streams.learn_core import LearnCore
from bandstand.streams.learner_records import Position
from bandstand.streams.records import record_of

__all__ = ["Rebuild"]

_BATCH = 5_000


class Rebuild:
    """Builds the sums that a live core is missing.

    Parameters
    ----------
    settings
        Where the broker is.
    wire
        How outcomes are framed.
    topic
        The outcome topic.
    live
        The core whose `missing` is to be built.
    """

    def __init__(self, settings: Settings, wire: Wire, topic: str, live: LearnCore) -> None:
        self._wire = wire
        self._specs = live.missing
        start = min(one.start(live.partition).outcome for one in self._specs.values())
        self._reader = TopicReader(settings, topic, starts={live.partition: start})
        self._core: LearnCore | None = None
        self._ahead: list[Record] = []

    def step(self, live: LearnCore) -> bool:
        """Read on without waiting; True once the live core has adopted the sums."""
        if not self._ahead:
            self._ahead = [record_of(message) for message in self._reader.poll(0, _BATCH)]
            learn_metrics.REREAD.inc(len(self._ahead))
        core = self._core = self._core or self._begin(live)
        if core is None:
            return False
        bound = live.position.next_offset
        core.learn([record for record in self._ahead if record.offset < bound])
        self._ahead = [record for record in self._ahead if record.offset >= bound]
        if core.position.next_offset != bound:
            return False
        live.adopt(core)
        return True

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _begin(self, live: LearnCore) -> LearnCore | None:
        if self._ahead:
            start = self._ahead[0].offset
        elif self._reader.caught_up:
            start = self._reader.position(live.partition)
        else:
            return None
        core = LearnCore(live.lane, live.partition, self._wire, Position(start))
        core.follow(self._specs)
        core.open()
        return core
