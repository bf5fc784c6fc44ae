"""Files on their way to the store, beside the loop that must go on polling.

A file is tried until it is stored; while the store is down (or the schema registry, where a schema
is new) its thread waits, longer each time, and says so. The threads are daemons: a role that must
end doesn't wait for a store that is down. What they then leave behind is in the log still, and in
the store at most as a whole file.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue

from bandstand.archive import metrics
from bandstand.archive.objects import Cut
from bandstand.archive.writer import File, Objects, Written, store
from bandstand.errors import BrokerError, StorageError
from bandstand.logs import get_logger
from bandstand.web import Health

__all__ = ["Upload", "Uploads"]

_log = get_logger(__name__)
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


@dataclass
class Upload:
    """One file on its way."""

    topic: str
    partition: int
    cut: Cut
    name: str
    done: Future[Written] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for it any more: then it isn't tried again."""


class Uploads:
    """Threads that store files.

    Parameters
    ----------
    build
        Makes the file of an upload.
    objects
        The store.
    health
        Told while the store is down.
    threads
        Files under way at one time, at least 1.
    """

    def __init__(
        self, build: Callable[[Upload], File], objects: Objects, health: Health, threads: int
    ) -> None:
        self._build = build
        self._objects = objects
        self._health = health
        self._queue: SimpleQueue[Upload] = SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"upload-{number}", daemon=True).start()

    def submit(self, upload: Upload) -> None:
        """Begin to store a file; its `done` tells the result."""
        self._queue.put(upload)

    def _work(self) -> None:
        while True:
            upload = self._queue.get()
            try:
                upload.done.set_result(self._store(upload))
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                upload.done.set_exception(error)

    def _store(self, upload: Upload) -> Written:
        begin = time.monotonic()
        file: File | None = None
        pause = _FIRST_PAUSE_S
        while True:
            try:
                file = file or self._build(upload)
                written = store(file, self._objects)
            except (StorageError, BrokerError) as error:
                self._down(upload, error)
                if upload.cancelled.wait(pause * random.uniform(0.5, 1)):
                    raise
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                self._up()
                _count(file, written, time.monotonic() - begin)
                return written

    def _down(self, upload: Upload, error: StorageError | BrokerError) -> None:
        metrics.STORAGE_DOWN.set(1)
        self._health.wait_for("storage", str(error))
        _log.warning("storage is down, archive waits", object=upload.name, error=str(error))

    def _up(self) -> None:
        metrics.STORAGE_DOWN.set(0)
        self._health.arrived("storage")


def _count(file: File, written: Written, seconds: float) -> None:
    topic = file.span.topic
    metrics.UPLOAD_SECONDS.observe(seconds)
    if written.adopted:
        metrics.ADOPTED.labels(topic).inc()
        return
    metrics.FILES.labels(topic).inc()
    metrics.ROWS.labels(topic).inc(file.table.num_rows)
    metrics.BYTES.labels(topic).inc(len(file.body))
    errors = file.table["_error"]
    metrics.UNREADABLE.labels(topic).inc(len(errors) - errors.null_count)
