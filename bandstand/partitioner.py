"""Which partition a key belongs to: the same one as by Kafka's Java clients."""

from __future__ import annotations

__all__ = ["murmur2", "partition_for"]


def murmur2(data: bytes) -> int:
    """Hash a key as Kafka's Java clients do; unsigned, 32 bits.

    Examples
    --------
    >>> murmur2(b"21") == (-973932308) % 2**32
    True
    """
    length, mask, m = len(data), 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ length
    whole = length - length % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if whole != length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def partition_for(key: bytes, partitions: int) -> int:
    """Give the partition that a key belongs to.

    Parameters
    ----------
    key
        The record's key.
    partitions
        Partition count of the topic, at least 1.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions
