"""What commands print: tables and lines for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

__all__ = ["Output", "clock", "iso", "progress_bar", "stderr"]

stderr = Console(stderr=True, highlight=False)


class Output:
    """Where a command's results go: data to standard output, the rest to standard error.

    Parameters
    ----------
    as_json
        Print one JSON document instead of tables.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())

    def rows(self, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
        """Print rows that have the same columns."""
        if self._as_json:
            self.document(list(rows))
        elif rows:
            self._console.print(_table(rows, title))
        else:
            stderr.print(f"{title or 'result'}: nothing")

    @contextmanager
    def redrawn(self) -> Iterator[Callable[[Sequence[Mapping[str, Any]], str], None]]:
        """Draw rows again and again in one place."""
        with Live(console=self._console, auto_refresh=False) as live:
            yield lambda rows, title: live.update(_table(rows, title), refresh=True)

    def record(self, record: Mapping[str, Any], title: str = "") -> None:
        """Print one record, a line a field."""
        if self._as_json:
            self.document(record)
            return
        table = Table(title=title or None, title_justify="left", show_header=False)
        for name, value in record.items():
            table.add_row(_text(name), _text(value))
        self._console.print(table)

    def say(self, text: str) -> None:
        """Tell a person what happened; nothing for a program."""
        if not self._as_json:
            stderr.print(text, markup=False, emoji=False)

    def document(self, value: object) -> None:
        """Print one JSON document."""
        sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def _table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    return table


def _text(value: object) -> Text:
    """Write a value as it is: brackets in it are no markup."""
    if isinstance(value, dict | list):
        return Text(json.dumps(value, default=str))
    if value is None:
        return Text("-")
    return Text(f"{value:,.4g}" if isinstance(value, float) else str(value))


def clock(milliseconds: int) -> str:
    """Write a time for a narrow table: UTC, to the second.

    Parameters
    ----------
    milliseconds
        Since 1970, UTC.

    Examples
    --------
    >>> clock(1_700_000_000_123)
    '2023-11-14 22:13:20'
    """
    return f"{datetime.fromtimestamp(milliseconds / 1_000, UTC):%Y-%m-%d %H:%M:%S}"


def iso(milliseconds: int) -> str:
    """Write a time as people and programs read it.

    Parameters
    ----------
    milliseconds
        Since 1970, UTC.

    Examples
    --------
    >>> iso(1_700_000_000_123)
    '2023-11-14T22:13:20.123+00:00'
    """
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(timespec="milliseconds")


class _Step(Protocol):
    """A job's progress, as whoever does it reports it."""

    @property
    def task(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...


@contextmanager
def progress_bar() -> Iterator[Callable[[_Step], None]]:
    """Show jobs on standard error while they are reported; nothing where none is."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=stderr,
    )
    tasks: dict[str, TaskID] = {}

    def report(step: _Step) -> None:
        if step.task not in tasks:
            tasks[step.task] = bar.add_task(step.task, total=None)
        bar.update(tasks[step.task], completed=step.done, total=step.total or None)

    with bar:
        yield report
