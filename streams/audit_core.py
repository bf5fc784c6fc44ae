"""Outcomes as they must be beside outcomes as they are, of one partition; pure.

The expected ones come from the join's core, in the order of their source offsets; the found ones
from the outcome topic, in the order of that log. Both come in pieces, and nothing is kept but what
one side is ahead of the other, and digests of the last outcomes, for those that come again.

A reader keeps a found outcome if it increases the source offset; what it keeps must be the expected
stream, byte for byte. What it drops must have been there before. A progress record says that all
outcomes up to an offset are there.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

from bandstand.errors import EventError, StateError
from bandstand.schemas.wire import Wire
from bandstand.streams.join_types import Emission, Record, parse_tail
from bandstand.streams.splice import source_offset

__all__ = ["FAULTS", "NOTICES", "OF_EXPECTED", "OF_FOUND", "Comparison", "Difference"]

FAULTS = ("missing", "altered", "out_of_order", "foreign", "repeat_altered")
"""Kinds of difference that no honest writer can make."""

NOTICES = ("repeated", "truncated", "pending")
"""Kinds that are worth a word, but no fault: zombies, retention and a join that runs behind."""

OF_EXPECTED = ("equal", "altered", "missing", "out_of_order", "truncated", "pending")
"""What can become of an expected outcome: each ends in exactly one of these."""

OF_FOUND = (
    "equal",
    "altered",
    "out_of_order",
    "foreign",
    "repeated",
    "repeat_altered",
    "unjudged",
    "progress",
)
"""What a found record can be: each is exactly one of these."""

_REMEMBERED = 20_000
"""Outcomes whose repeats can be told from strangers, at least."""


class Difference(NamedTuple):
    """One place at which the outcome topic isn't what it must be, or is worth a word."""

    kind: str
    offset: int | None
    """In the outcome topic: of the record, or of the one before which something is missing."""
    source_offset: int | None
    expected: str
    found: str


class _Expected(NamedTuple):
    source: int
    emission: Emission


class _Found(NamedTuple):
    record: Record
    source: int | None
    """Source offset of an outcome, position of a progress record; None where it has none."""


class _Memory:
    """The digests of the last outcomes by source offset, which ascends; drops old ones whole."""

    def __init__(self) -> None:
        self.since = -1
        """Source offset from which on nothing was dropped."""
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def put(self, source: int, digest: int) -> None:
        if len(self._young) >= _REMEMBERED:
            if self._old:
                self.since = next(iter(self._young))
            self._old, self._young = self._young, {}
        self._young[source] = digest

    def get(self, source: int) -> int | None:
        digest = self._young.get(source)
        return self._old.get(source) if digest is None else digest

    def pop(self, source: int) -> int | None:
        digest = self._young.pop(source, None)
        return self._old.pop(source, None) if digest is None else digest


class Comparison:
    """Compares the expected outcomes of one partition with the found ones.

    Parameters
    ----------
    wire
        How outcomes are framed.
    complete
        Whether the inputs hold every decision of which an outcome was found; False where they may
        come later, as to an archive: what has no decision yet is ``unjudged`` then, not
        ``foreign``.
    deleted
        Whether the beginning of the outcome topic is gone: what is expected before the first found
        record is then ``truncated``, not ``missing``.
    most
        Differences of one kind that are kept with all they say; the others are only counted.

    Examples
    --------
    >>> comparison = Comparison(Wire.single_object())
    >>> comparison.judge_from = 0
    >>> header = [("progress", b'{"source_offset":7,"before":5}')]
    >>> comparison.take([Record(0, 5, b"bandstand.progress", None, header)])
    >>> comparison.expect([], done=9)
    >>> comparison.counts
    Counter({'found': 1, 'progress': 1})
    """

    def __init__(
        self, wire: Wire, *, complete: bool = True, deleted: bool = False, most: int = 20
    ) -> None:
        self.judge_from: int | None = None
        """Source offset of the first outcome that is judged; None: not known yet."""
        self.judge_until: int | None = None
        """Source offset of the first outcome that isn't judged any more; None: there is no end."""
        self.limit: int | None = None
        """Where the decision log ends; None: not known."""
        self.reached = -1
        """Largest source offset found so far: what doesn't exceed it, readers drop."""
        self.counts: Counter[str] = Counter()
        """What became of those ``expected`` and ``found``; see `OF_EXPECTED`, `OF_FOUND`."""
        self.differences: list[Difference] = []
        self._wire = wire
        self._header = wire.header("outcome")
        self._complete = complete
        self._deleted = deleted
        self._most = most
        self._reached_at: int | None = None
        self._done = -1
        self._ended = False
        self._kept: Counter[str] = Counter()
        self._expected: deque[_Expected] = deque()
        self._found: deque[_Found] = deque()
        self._seen = _Memory()
        self._skipped = _Memory()

    @property
    def waiting(self) -> int:
        """Expected outcomes that nothing was compared with yet."""
        return len(self._expected)

    @property
    def judged_to(self) -> int:
        """Source offset up to which everything that is expected was judged."""
        return self._expected[0].source - 1 if self._expected else self._done

    @property
    def blocked(self) -> int:
        """Found records that wait until the core has come as far."""
        return len(self._found)

    @property
    def faults(self) -> int:
        """Differences that no honest writer can make."""
        return sum(self.counts[kind] for kind in FAULTS)

    @property
    def closes(self) -> bool:
        """Whether every expected and every found outcome became exactly one thing."""
        expected = sum(self.counts[kind] for kind in OF_EXPECTED) + self.waiting
        found = sum(self.counts[kind] for kind in OF_FOUND) + self.blocked
        return (expected, found) == (self.counts["expected"], self.counts["found"])

    def expect(self, emissions: Iterable[Emission], done: int) -> None:
        """Say which outcomes must come next.

        Parameters
        ----------
        emissions
            As the core gave them, in order.
        done
            Source offset up to which the core has given all outcomes.
        """
        for emission in emissions:
            assert emission.value is not None
            source = source_offset(emission.value, len(self._header))
            if not self._is_judged(source):
                continue
            self.counts["expected"] += 1
            expected = _Expected(source, emission)
            if source <= self.reached:
                self._miss(expected, self._reached_at)
            else:
                self._expected.append(expected)
        self._done = max(self._done, done)
        self._compare()
        if self._ended:
            self._leave_pending()

    def take(self, records: Sequence[Record]) -> None:
        """Read on in the outcome topic."""
        for record in records:
            self.counts["found"] += 1
            if self._expected and not self._found and _same(record, self._expected[0].emission):
                self.counts["equal"] += 1
                self._match(record, self._expected.popleft())
            else:
                self._found.append(self._read(record))
                self._compare()

    def judge_rest(self) -> None:
        """Judge the found records that the core hasn't come to, and won't."""
        while self._found:
            found = self._found.popleft()
            if self._complete and (found.source is None or self._is_judged(found.source)):
                self._foreign(found)
            else:
                self.counts["unjudged"] += 1

    def end(self) -> None:
        """Say that nothing more will be found: whatever is still expected is ``pending``."""
        self._ended = True
        self._leave_pending()

    def _leave_pending(self) -> None:
        while self._expected and not self._found:
            source, emission = self._expected.popleft()
            self._tell("pending", None, source, emission)

    def _is_judged(self, source: int) -> bool:
        if self.judge_from is None or source < self.judge_from:
            return False
        return self.judge_until is None or source < self.judge_until

    def _read(self, record: Record) -> _Found:
        try:
            if record.value is None:
                return _Found(record, parse_tail(record, self._wire).source_offset)
            if record.value.startswith(self._header):
                return _Found(record, source_offset(record.value, len(self._header)))
            return _Found(record, self._wire.loads("outcome", record.value)["source_offset"])
        except (EventError, StateError):
            return _Found(record, None)

    def _compare(self) -> None:
        while self._found:
            record, source = self._found[0]
            lies = record.value is None and self._is_beyond(source)
            if source is not None and source > self.reached and not lies:
                # Whatever it turns out to be, what is expected before it comes too late from now.
                self._skip(source if record.value is None else source - 1, record.offset)
            if not self._knows(source):
                return
            self._judge(self._found.popleft())

    def _is_beyond(self, source: int | None) -> bool:
        """Tell whether a source offset lies where there is no decision, nor will one be read."""
        return source is None or bool(
            self._complete and self.limit is not None and source >= self.limit
        )

    def _knows(self, source: int | None) -> bool:
        """Tell whether it is known what is expected at a source offset."""
        if source is None or source <= self._done:
            return True
        if self._expected and source <= self._expected[-1].source:
            return True
        ends = (self.limit, self.judge_until)
        return any(end is not None and source >= end for end in ends)

    def _is_to_come(self, source: int) -> bool:
        """Tell whether the decision may still come to the inputs."""
        return self.limit is not None and source >= self.limit

    def _judge(self, found: _Found) -> None:
        record, source = found
        if source is None or self._is_beyond(source):
            self._foreign(found)
        elif record.value is None:
            self.counts["progress"] += 1
            self._reach(source, record)
        elif not self._is_judged(source) or self._is_to_come(source):
            self.counts["unjudged"] += 1
            self._reach(source, record)
        elif source <= self.reached:
            self._judge_dropped(found, source)
        elif self._expected and self._expected[0].source == source:
            self._judge_kept(record, self._expected.popleft())
        else:
            self._foreign(found)

    def _judge_kept(self, record: Record, expected: _Expected) -> None:
        if _same(record, expected.emission) or self._says_the_same(record, expected.emission):
            self.counts["equal"] += 1
        else:
            self._tell("altered", record, expected.source, expected.emission)
        self._match(record, expected)

    def _judge_dropped(self, found: _Found, source: int) -> None:
        """Judge an outcome that readers drop: it must have been there before."""
        record = found.record
        assert record.value is not None
        if self._skipped.pop(source) is not None:
            self._forgive(source)
            self._tell("out_of_order", record, source, None)
            return
        digest = self._seen.get(source)
        if digest is None and source >= self._seen.since:
            self._foreign(found)
        elif digest in (None, hash(record.value)) or not record.value.startswith(self._header):
            self._tell("repeated", record, source, None)
        else:
            self._tell("repeat_altered", record, source, None)

    def _match(self, record: Record, expected: _Expected) -> None:
        self._reach(expected.source, record)
        self._seen.put(expected.source, hash(expected.emission.value))

    def _reach(self, source: int, record: Record) -> None:
        if self._deleted:
            self._deleted = False
            self._seen.since = source
        if source > self.reached:
            self.reached, self._reached_at = source, record.offset

    def _skip(self, up_to: int, offset: int) -> None:
        """Pass over what is expected up to a source offset: it isn't there, but what follows is."""
        while self._expected and self._expected[0].source <= up_to:
            self._miss(self._expected.popleft(), offset)

    def _miss(self, expected: _Expected, offset: int | None) -> None:
        source, emission = expected
        self._tell("truncated" if self._deleted else "missing", offset, source, emission)
        if not self._deleted:
            self._skipped.put(source, hash(emission.value))

    def _forgive(self, source: int) -> None:
        """Take back that an outcome is missing: it came, but too late."""
        self.counts["missing"] -= 1
        for difference in self.differences:
            if (difference.kind, difference.source_offset) == ("missing", source):
                self.differences.remove(difference)
                self._kept["missing"] -= 1
                return

    def _foreign(self, found: _Found) -> None:
        self._tell("foreign", found.record, found.source, None)
        if found.source is not None and found.record.value is not None:
            self._reach(found.source, found.record)

    def _says_the_same(self, record: Record, emission: Emission) -> bool:
        """Compare what another schema version or wire format has written, field by field."""
        assert record.value is not None
        assert emission.value is not None
        if record.value.startswith(self._header):
            return False
        try:
            found = self._wire.loads("outcome", record.value)
        except EventError:
            return False
        same = found == self._wire.loads("outcome", emission.value)
        return same and (record.key, record.timestamp) == emission[:2]

    def _tell(
        self, kind: str, place: Record | int | None, source: int | None, expected: Emission | None
    ) -> None:
        self.counts[kind] += 1
        if self._kept[kind] >= self._most:
            return
        self._kept[kind] += 1
        must = _NOTHING[kind] if expected is None else self._describe(*expected[:3])
        if isinstance(place, Record):
            found = self._describe(place.key, place.timestamp, place.value)
            self.differences.append(Difference(kind, place.offset, source, must, found))
        else:
            self.differences.append(Difference(kind, place, source, must, "nothing"))

    def _describe(self, key: bytes | None, timestamp: int, value: bytes | None) -> str:
        about = f"key {(key or b'')[:100].decode(errors='replace')}, time {timestamp}"
        if value is None:
            return f"a progress record, {about}"
        about = f"{len(value)} bytes, CRC-32 {crc32(value):08x}, {about}"
        try:
            outcome = self._wire.loads("outcome", value)
        except EventError as error:
            return f"unreadable ({error}), {about}"
        return f"{outcome['state']}, {len(outcome['rewards'])} rewards, {about}"


_NOTHING = {
    "out_of_order": "the same, before any later source offset",
    "repeated": "nothing: it was there already, and readers drop it",
    "repeat_altered": "the bytes that were there already",
    "foreign": "nothing: no decision gives this",
}


def _same(record: Record, emission: Emission) -> bool:
    return (record.value, record.key, record.timestamp) == (
        emission.value,
        emission.key,
        emission.timestamp,
    )
