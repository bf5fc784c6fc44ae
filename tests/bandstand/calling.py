"""What the fixture `call` gives: a command run in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]
