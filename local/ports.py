"""Free ports of 127.0.0.1, in a range that no outgoing connection is given."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

from bandstand.errors import ServerError

HOST = "127.0.0.1"
_RANGE = range(12_000, 22_000)
_TRIES = 500
_RANDOM = random.SystemRandom()  # a test that seeds the shared one mustn't get the same ports twice


def free_ports(count: int, *, offsets: Sequence[int] = (0,)) -> list[int]:
    """Pick ports that nobody listens on right now.

    Another process may take one before it is used: whoever starts a server on it must be ready to
    pick again. Picked at random, so that this is rare.

    Parameters
    ----------
    count
        How many.
    offsets
        A port is picked only where all of ``port + offset`` are free; each up to 10,000.

    Raises
    ------
    ServerError
        There aren't enough.
    """
    found: list[int] = []
    for _ in range(_TRIES):
        if len(found) == count:
            return found
        port = _RANDOM.choice(_RANGE)
        if port not in found and are_free([port + offset for offset in offsets]):
            found.append(port)
    raise ServerError(f"no {count} free ports on {HOST} between {_RANGE.start} and {_RANGE.stop}")


def are_free(ports: Sequence[int]) -> bool:
    """Whether nobody listens on any of these ports of 127.0.0.1 right now."""
    return all(_is_free(port) for port in ports)


def is_open(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections that linger after a server's end don't block its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
