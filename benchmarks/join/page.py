"""Where figures go: files under build/bench, and docs/benchmarks.md between marks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["FOLDER", "PICTURES", "put", "where_and_when"]

_ROOT = Path(__file__).resolve().parents[2]
FOLDER: Final = _ROOT / "build" / "bench"
PICTURES: Final = _ROOT / "docs"
_PAGE = PICTURES / "benchmarks.md"


def put(name: str, text: str) -> None:
    """Put a text between the marks of this name in docs/benchmarks.md, for what is there."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    between = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.S)
    page, changed = between.subn(lambda _: text, _PAGE.read_text())
    assert changed == 1, f"{_PAGE} has no place for {name!r}"
    _PAGE.write_text(page)


def where_and_when(facts: Mapping[str, Any], beside: str = "the broker") -> str:
    """Say on which day and machine figures were taken, and how busy that was."""
    where = facts["machine"]
    return (
        f"{facts['date']}: {where['processor']}, {where['cores']} cores shared with "
        f"{beside}, load {where['load_1_5_15_minutes'][2]:.1f} over the last 15 minutes of it, "
        f"Python {where['python']}"
    )
