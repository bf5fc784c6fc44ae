"""The commands ``bandstand dead-letters``: what was refused, and what may be brought back."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandstand.cli_options import Json, given
from bandstand.errors import BandstandError
from bandstand.output import Output, clock, iso, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandstand.settings import Settings
    from bandstand.streams.letter_types import Letter
    from bandstand.streams.redrive_core import Verdict

__all__ = ["dead_letters_app"]

dead_letters_app = typer.Typer(
    help="Look at records that were refused, and bring them back.", no_args_is_help=True
)

_SHOWN_BYTES = 200

Reason = Annotated[str | None, typer.Option(help="Only letters with this reason, e.g. clock.")]
Topic = Annotated[str | None, typer.Option(help="Only of records of this topic, full name.")]
OfBandit = Annotated[
    str | None, typer.Option("--bandit", help="Only of this bandit's, where the bytes tell it.")
]


@dead_letters_app.command("list")
def list_letters(
    reason: Reason = None,
    topic: Topic = None,
    bandit: OfBandit = None,
    by_bandit: Annotated[
        bool, typer.Option("--by-bandit", help="Count by bandit, too, where it is known.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count the letters by reason and origin topic, each refused record once."""
    from bandstand.streams.letter_summary import Group, LetterSummary
    from bandstand.streams.letter_types import REDRIVEN, bandit_of, event_names
    from bandstand.streams.letters import LetterReader

    settings = given.settings()
    names, summary = event_names(settings), LetterSummary()
    with progress_bar() as report:
        reader = LetterReader(settings, report)
        for letters in reader.read():
            for letter in letters:
                said = letter.said if letter.reason == REDRIVEN else None
                if letter.is_mark and said is None:
                    continue
                whose = None
                if bandit is not None or by_bandit:
                    whose = said["bandit"] if said else bandit_of(letter, names, reader.wire)
                was = said["was"] if said else letter.reason
                if not _fits((was, letter.topic, whose), (reason, topic, bandit)):
                    continue
                group = Group(was, letter.topic, whose if by_bandit else None)
                if said:
                    summary.mark_redriven(group)
                else:
                    summary.add(group, letter.place, letter.written, letter.role)
    rows = [_row(row, by_bandit, iso if as_json else clock) for row in summary.rows()]
    out = Output(as_json=as_json)
    out.rows(rows, "dead letters")
    if reader.unreadable:
        out.say(f"{reader.unreadable} records of {reader.topic} are no letters")


def _fits(has: tuple[str | None, ...], wanted: tuple[str | None, ...]) -> bool:
    return all(want is None or have == want for have, want in zip(has, wanted, strict=True))


def _row(row: dict[str, Any], by_bandit: bool, write: Callable[[int], str]) -> dict[str, Any]:
    times = {name: None if row[name] is None else write(row[name]) for name in ("first", "last")}
    return {name: v for name, v in {**row, **times}.items() if by_bandit or name != "bandit"}


Origin = Annotated[str, typer.Argument(help="topic/partition/offset of the refused record.")]


@dead_letters_app.command("show")
def show_letter(origin: Origin, as_json: Json = False) -> None:
    """Show why one record was refused, and what it holds."""
    from bandstand.streams.letter_types import decode_value, event_names
    from bandstand.streams.letters import LetterReader

    settings = given.settings()
    with progress_bar() as report:
        reader = LetterReader(settings, report)
        letters, redriven = reader.find(origin)
    letter = letters[0]
    event = decode_value(letter, event_names(settings), reader.wire)
    value = letter.value or b""
    shown = value if as_json else value[:_SHOWN_BYTES]
    document = {
        "origin": letter.origin,
        "reason": letter.reason,
        "detail": letter.detail,
        "role": letter.role,
        "written": iso(letter.written),
        "repeats": len(letters) - 1,
        "redriven_to": redriven and redriven.said["to"],
        "timestamp": iso(letter.ts) if 0 <= letter.ts < 2**47 else str(letter.ts),
        "key": None if letter.key is None else letter.key.decode(errors="backslashreplace"),
        "value_bytes": None if letter.value is None else len(value),
        "value": event,
        "value_hex": shown.hex() if event is None else None,
    }
    Output(as_json=as_json).record(
        document if as_json else {k: v for k, v in document.items() if v is not None},
        "dead letter",
    )


@dead_letters_app.command("redrive")
def redrive_letters(
    origin: Annotated[
        str | None, typer.Argument(help="Only this record: topic/partition/offset.")
    ] = None,
    reason: Reason = None,
    topic: Topic = None,
    bandit: OfBandit = None,
    repair: Annotated[
        Path | None,
        typer.Option(help="The one record as it should be: JSON or Avro with header; - is stdin."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; publish nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Publish refused records again, each once, where today's checks take them.

    Records that were refused for their time stay, as do those whose time is over by now: replay
    them into a lane of their own.
    """
    from bandstand.streams.letter_types import parse_origin
    from bandstand.streams.redrive import redrive

    if repair is not None and origin is None:
        raise typer.BadParameter("--repair needs the one record that it repairs: its origin")
    settings = given.settings()
    place = None if origin is None else parse_origin(origin)
    repaired = None if repair is None else _read_repair(repair)
    choose = _choice(settings, place, (reason, topic, bandit), repaired)
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], Verdict] = {}

    def tell(verdict: Verdict) -> None:
        group = (verdict.word, verdict.letter.reason, verdict.letter.topic)
        counts[group] += 1
        examples.setdefault(group, verdict)

    with progress_bar() as report:
        result = redrive(settings, choose, tell, dry_run=dry_run, on_progress=report)
    rows = [
        {
            "verdict": _done(group[0], dry_run),
            "reason": group[1],
            "topic": group[2],
            "letters": count,
            "why": f"{verdict.letter.origin}: {verdict.why}",
        }
        for (group, count), verdict in zip(counts.items(), examples.values(), strict=True)
    ]
    out = Output(as_json=as_json)
    out.rows(rows, "letters tried")
    did = "would be published" if dry_run else "published"
    out.say(f"{did}: {result.published}; published before: {result.before}")
    if place is not None and not counts and not result.before:
        raise BandstandError(f"no dead letter of {origin} that fits; see 'dead-letters show'")


def _done(word: str, dry_run: bool) -> str:
    return "redriven" if word == "readable" and not dry_run else word


def _choice(
    settings: Settings,
    place: tuple[str, int, int] | None,
    wanted: tuple[str | None, str | None, str | None],
    repaired: bytes | dict[str, Any] | None,
) -> Callable[[Letter], Letter | None]:
    from bandstand.schemas.wire import wire_from
    from bandstand.streams.letter_types import bandit_of, event_names, repair

    names, wire = event_names(settings), wire_from(settings)

    def choose(letter: Letter) -> Letter | None:
        if letter.is_mark or (place is not None and letter.place != place):
            return None
        whose = None if wanted[2] is None else bandit_of(letter, names, wire)
        if not _fits((letter.reason, letter.topic, whose), wanted):
            return None
        return letter if repaired is None else repair(letter, repaired, names, wire)

    return choose


def _read_repair(path: Path) -> bytes | dict[str, Any]:
    """Read a repaired record: JSON where it looks like it, else the bytes as they are."""
    try:
        value = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise BandstandError(f"the repaired record {path} can't be read: {error}") from None
    if not value.lstrip().startswith(b"{"):
        return value
    try:
        record: dict[str, Any] = json.loads(value)
    except ValueError as error:
        raise BandstandError(f"the repaired record {path} isn't JSON: {error}") from None
    return record
