"""A crash at any point, and a worker that doesn't know it was replaced: no gap, no duplicate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandstand.archive import parquet, writer
from bandstand.archive.columns import records
from bandstand.archive.objects import Buffer, Cut, object_name, parse_name
from bandstand.errors import StateError, StorageError
from bandstand.streams.join_types import Record
from tests.archive.given import WIRE
from tests.archive.test_objects import logs

TOPIC = "t"


class _Store:
    """Objects in memory; the next call may fail, before or after it has done its work."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.trouble = ""

    def put_if_absent(self, name: str, body: bytes) -> bool:
        trouble, self.trouble = self.trouble, ""
        if trouble == "before":
            raise StorageError("not stored")
        absent = name not in self.objects
        self.objects.setdefault(name, body)
        if trouble == "after":
            raise StorageError("stored, but who knows")
        return absent

    def get(self, name: str) -> bytes:
        return self.objects[name]


class _Worker:
    """What one process holds of the partition; the group's memory is shared by all."""

    def __init__(self, log: list[Record], store: _Store, group: dict[str, object]) -> None:
        self._log, self._store, self._group = log, store, group
        start = group.get("offset")
        self.buffer = Buffer(start, max_rows=5, max_bytes=60)  # type: ignore[arg-type]
        self._name = group.get("name", "")
        self._read = next((i for i, r in enumerate(log) if r.offset >= (start or 0)), len(log))  # type: ignore[operator]

    def poll(self, count: int) -> None:
        self.buffer.add(self._log[self._read : self._read + count], now=0.0)
        self._read += count

    def write(self, cut: Cut, crash: str, *, zombie: bool = False) -> None:
        """Do as the role does; a zombie's commits are refused by the broker."""
        name = str(self._name or object_name(TOPIC, 0, cut))
        if not zombie:
            self._group.update(offset=cut.start, name=name)
        if crash == "begun":
            raise StorageError("crash")
        self._store.trouble = crash
        file = writer.build(("snapshot_pointer",), TOPIC, 0, cut, name, WIRE)
        written = writer.store(file, self._store)
        if crash == "stored":
            raise StorageError("crash")
        self.buffer.settle(written.next_offset)
        self._name = ""
        if not zombie:
            self._group.update(offset=written.next_offset, name="")


@settings(max_examples=40, deadline=None)
@given(logs(), st.data())
def test_the_files_are_the_log_whatever_happens(log: list[Record], data: st.DataObject) -> None:
    """Workers poll, age, crash at every step, and go on as zombies; each record is there once."""
    store = _Store()
    group: dict[str, object] = {}
    worker, zombie = _Worker(log, store, group), None
    for _ in range(data.draw(st.integers(0, 25))):
        acting = data.draw(st.sampled_from([worker, zombie or worker]))
        acting.poll(data.draw(st.integers(0, 8)))
        cut = data.draw(st.sampled_from([acting.buffer.full(), acting.buffer.rest()]))
        crash = data.draw(
            st.sampled_from(["", "", "begun", "before", "after", "stored", "replaced"])
        )
        if crash == "replaced" and zombie is None:
            worker, zombie = _Worker(log, store, group), worker
        elif cut is not None:
            try:
                acting.write(cut, crash, zombie=acting is zombie)
            except StorageError:
                if acting is zombie:
                    zombie = None
                else:
                    worker = _Worker(log, store, group)
    worker.poll(len(log))
    while cut := worker.buffer.rest():
        worker.write(cut, "")
    assert archived(store) == log


def archived(store: _Store) -> list[Record]:
    """Give what the store holds, in the order of the names' offsets."""
    found: list[Record] = []
    end = None
    for name in sorted(store.objects, key=lambda name: parse_name(name).start):
        table = parquet.from_bytes(name, store.objects[name])
        covered = parquet.span(name, table)
        assert covered.start == parse_name(name).start
        assert end in (None, covered.start)
        end = covered.end
        found += records(table)
    return found


def test_an_object_with_other_records_is_not_adopted() -> None:
    """A topic created anew under its old name doesn't hide behind its old files."""
    store = _Store()
    old, new = (
        writer.build(
            ("snapshot_pointer",), TOPIC, 0, Cut(0, [Record(0, 1, b"k", value, ())]), "n", WIRE
        )
        for value in (b"old", b"new")
    )
    assert writer.store(old, store) == (1, False)
    assert writer.store(old, store) == (1, True)
    with pytest.raises(StateError, match=r"holds other records.*s3\.prefix"):
        writer.store(new, store)


def test_a_file_of_a_compacted_topic_is_adopted_with_what_is_gone_since() -> None:
    """Records that compaction removed after the upload stay in the file."""
    store = _Store()
    log = [Record(offset, 1, b"k", bytes([offset]), ()) for offset in range(4)]
    full = writer.build(("snapshot_pointer",), TOPIC, 0, Cut(0, log), "n", WIRE)
    left = writer.build(("snapshot_pointer",), TOPIC, 0, Cut(0, log[2:3]), "n", WIRE)
    assert writer.store(full, store) == (4, False)
    assert writer.store(left, store) == (4, True)
