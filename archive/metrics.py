"""What the archive counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ADOPTED",
    "BUFFERED",
    "BYTES",
    "FILES",
    "LAG",
    "MISSING",
    "ROWS",
    "STORAGE_DOWN",
    "UNREADABLE",
    "UPLOAD_SECONDS",
]

ROWS = Counter("bandstand_archive_rows", "Records stored.", ["topic"])
BYTES = Counter("bandstand_archive_bytes", "Bytes of Parquet stored.", ["topic"])
FILES = Counter("bandstand_archive_files", "Files stored.", ["topic"])
ADOPTED = Counter(
    "bandstand_archive_adopted_files", "Files found in the store, left by a crash.", ["topic"]
)
UNREADABLE = Counter(
    "bandstand_archive_unreadable_rows", "Records stored with their bytes only.", ["topic"]
)
MISSING = Counter(
    "bandstand_archive_missing_offsets",
    "Offsets without a record: compacted, aborted, or the marks of transactions.",
    ["topic"],
)
UPLOAD_SECONDS = Histogram(
    "bandstand_archive_upload_seconds", "Time from a file's records to its being stored."
)
LAG = Gauge("bandstand_archive_lag_records", "Offsets not stored yet.", ["topic", "partition"])
BUFFERED = Gauge("bandstand_archive_buffered_bytes", "Bytes of records that aren't stored yet.")
STORAGE_DOWN = Gauge("bandstand_archive_storage_down", "1 while the store can't be used.")
