"""The command line: one command a job, one line for a user's mistake.

Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 an expected
failure (one line says what), 2 wrong usage, 70 a role that stopped itself to protect its data.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandstand import __version__
from bandstand.cli_audit import audit
from bandstand.cli_dead_letters import dead_letters_app
from bandstand.cli_lanes import lanes_app
from bandstand.cli_options import Json, given
from bandstand.cli_priors import Strength, warm_start
from bandstand.cli_simulate import simulate
from bandstand.errors import BandstandError, SpecError
from bandstand.kafka import LIBRARY_LOGGER
from bandstand.output import Output, iso, progress_bar, stderr
from bandstand.settings import Settings
from bandstand.supervisor import ROLES, Supervisor, stop_with_parent

if TYPE_CHECKING:
    from bandstand.local.dev import DevState

__all__ = ["app", "main"]

app = typer.Typer(
    name="bandstand",
    help="A streaming learning pipeline for contextual bandits on Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
topics_app = typer.Typer(help="Create and check the topics.", no_args_is_help=True)
snapshot_app = typer.Typer(help="Look at published snapshots.", no_args_is_help=True)
dev_app = typer.Typer(help="Real servers on this machine.", no_args_is_help=True)
app.add_typer(dev_app, name="dev")
app.add_typer(topics_app, name="topics")
app.add_typer(lanes_app, name="lanes")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(snapshot_app, name="snapshot")
app.command()(audit)
app.command()(simulate)
app.command("warm-start")(warm_start)

_OF_THE_DEMO = ("duckdb", "matplotlib", "plotext", "sklearn")

Supervised = Annotated[
    bool, typer.Option("--supervised", hidden=True, help="End when standard input is closed.")
]


def main() -> None:
    """Run the command line; turns expected errors into one line and exit code 1."""
    try:
        app(prog_name="bandstand")
    except BandstandError as error:
        if given.debug:
            raise
        stderr.print(f"error: {error}", markup=False, emoji=False, soft_wrap=True)
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bandstand {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file; default: BANDSTAND_CONFIG or ./bandstand.toml."),
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    del version
    given.config, given.debug = config, debug
    if not debug:
        logging.getLogger(LIBRARY_LOGGER).addHandler(logging.NullHandler())


@app.command()
def settings(as_json: Json = False) -> None:
    """Print the settings in force, secrets masked."""
    Output(as_json=as_json).record(_flat(given.settings(), as_json), "settings in force")


def _flat(settings: Settings, nested: bool) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(settings.model_dump_json())
    if nested:
        return document
    flat: dict[str, Any] = {}
    pending = list(document.items())
    while pending:
        name, value = pending.pop(0)
        if isinstance(value, dict):
            pending[:0] = [(f"{name}.{key}", part) for key, part in value.items()]
        else:
            flat[name] = value
    return flat


@topics_app.command("create")
def topics_create(as_json: Json = False) -> None:
    """Create the topics that are missing, set up so that nothing is lost."""
    from bandstand.streams.topics import create

    out = Output(as_json=as_json)
    with stderr.status("creating topics"):
        created = create(given.settings())
    out.rows([{"topic": name} for name in created], "topics created")


@topics_app.command("check")
def topics_check(as_json: Json = False) -> None:
    """Compare the topics with what the pipeline's promises need; exit 1 on a finding."""
    from bandstand.streams.topics import check

    out = Output(as_json=as_json)
    with stderr.status("checking topics"):
        findings = check(given.settings())
    out.rows([{"finding": str(finding)} for finding in findings], "findings")
    if findings:
        raise typer.Exit(1)
    out.say("topics are as they must be")


@app.command()
def apply(
    specs: Annotated[list[Path], typer.Argument(help="YAML files, one bandit each, or folders.")],
    prior_from: Annotated[
        str | None,
        typer.Option(
            metavar="BANDIT[@VERSION]",
            help="Start from what this other bandit has learned, or from a snapshot of it.",
        ),
    ] = None,
    strength: Strength = None,
    retained: Annotated[
        bool,
        typer.Option("--retained", help="Learn from decisions before the bandit came, too."),
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    author: Annotated[str, typer.Option(help="Who; default: the user's name.")] = "",
    as_json: Json = False,
) -> None:
    """Publish bandits' specs, all or none; every running role follows."""
    from bandstand.schemas.spec import load_spec
    from bandstand.streams.in_force import Wanted
    from bandstand.streams.priors import from_bandit
    from bandstand.streams.specs import SpecFollower
    from bandstand.streams.specs import apply as apply_all

    settings = given.settings()
    loaded = [load_spec(path) for path in _files(specs)]
    for spec in loaded:
        if not spec.evaluable:
            stderr.print(
                f"bandit {spec.bandit!r}: {spec.policy.name} takes one action for sure and its"
                " floor is 0, so no other policy can be evaluated on its logs; give it a floor,"
                " such as 0.01"
            )
    with stderr.status("applying specs"), SpecFollower(settings, "apply") as follower:
        follower.look()
        wanted = [Wanted(spec, reason, retained=retained) for spec in loaded]
        if prior_from is not None:
            found = from_bandit(settings, follower.current, loaded, prior_from)
            wanted = [
                one._replace(evidence=evidence.at_most(strength))
                for one, evidence in zip(wanted, found, strict=True)
            ]
        for one in wanted:
            if lost := one.loses(follower.current):
                stderr.print(
                    f"bandit {one.spec.bandit!r}: what it knew from {lost.origin} doesn't fit"
                    " the new spec and is left out; give it anew"
                )
        epochs = apply_all(settings, follower, wanted, author or getpass.getuser())
    rows = [
        {"bandit": spec.bandit, "epoch": epoch, "spec_hash": spec.hash[:16]}
        for spec, epoch in zip(loaded, epochs, strict=True)
    ]
    Output(as_json=as_json).rows(rows, "specs in force")


def _files(paths: list[Path]) -> Iterator[Path]:
    """Give files as they are, and those that are in folders by name."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
        if not files:
            raise SpecError(f"{path}: no spec is there; allowed: files ending in .yaml or .yml")
        yield from files


def _role(run: Callable[[Settings], None], supervised: bool) -> None:
    if supervised:
        stop_with_parent()
    run(given.settings())


@app.command()
def join(supervised: Supervised = False) -> None:
    """Join rewards to decisions."""
    from bandstand.streams.join import run

    _role(run, supervised)


@app.command()
def learn(supervised: Supervised = False) -> None:
    """Learn from outcomes."""
    from bandstand.streams.learn import run

    _role(run, supervised)


@app.command()
def publish(supervised: Supervised = False) -> None:
    """Publish snapshots."""
    from bandstand.streams.publish import run

    _role(run, supervised)


@app.command()
def archive(supervised: Supervised = False) -> None:
    """Archive all topics to Parquet."""
    from bandstand.archive.role import run

    _role(run, supervised)


@app.command("run")
def run_all(
    roles: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(ROLES)}.")] = None,
    supervised: Supervised = False,
) -> None:
    """Run roles (default: all) as child processes; when one ends, all end."""
    from bandstand.logs import configure_logs

    chosen = roles or list(ROLES)
    unknown = [role for role in chosen if role not in ROLES]
    if unknown:
        raise typer.BadParameter(f"unknown role {unknown[0]!r}; allowed: {', '.join(ROLES)}")
    if supervised:
        stop_with_parent()
    settings = given.settings()
    configure_logs(settings.log)
    environment = dict(os.environ)
    if given.config is not None:
        environment["BANDSTAND_CONFIG"] = str(given.config)
    Supervisor(settings, chosen, environment).run()


Bandit = Annotated[str, typer.Argument(help="Name of the bandit.")]


@snapshot_app.command("list")
def snapshot_list(
    bandit: Annotated[str | None, typer.Argument(help="Only this one's.")] = None,
    as_json: Json = False,
) -> None:
    """List the snapshots that are kept, by bandit, the oldest first."""
    from bandstand.streams.snapshots import list_snapshots

    with stderr.status("reading snapshots"):
        found = list_snapshots(given.settings(), bandit)
    rows = [{**info._asdict(), "published": iso(info.published)} for info in found]
    Output(as_json=as_json).rows(rows, "snapshots")


@snapshot_app.command("show")
def snapshot_show(
    bandit: Bandit,
    version: Annotated[str | None, typer.Argument(help="Default: the current one.")] = None,
    as_json: Json = False,
) -> None:
    """Show one snapshot: where it comes from, and what it holds."""
    from bandstand.streams.snapshots import load_snapshot

    with stderr.status("reading snapshots"):
        snapshot = load_snapshot(given.settings(), bandit, version)
    described = {
        **_described(snapshot),
        "carried": snapshot["carried"] and _described(snapshot["carried"]),
        "earlier": [_described(part) for part in snapshot["earlier"]],
    }
    Output(as_json=as_json).record(described, f"snapshot of {bandit}")


def _described(solution: Mapping[str, Any]) -> dict[str, Any]:
    """Give a snapshot, or a part of one, for people: shapes for arrays, dates for times."""
    described = {**solution}
    if "arrays" in solution:
        described["arrays"] = {array["name"]: array["shape"] for array in solution["arrays"]}
        described["spec"] = json.loads(solution["spec"])
    if solution["newest"] is not None:
        described["newest"] = iso(solution["newest"])
    return described


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where summary.json and report.png go.")] = Path(
        "build/demo"
    ),
    digits_seconds: Annotated[float, typer.Option(help="Time limit of the digits.")] = 50.0,
) -> None:
    """Run the main job on real input and real local servers; leaves nothing running."""
    try:
        from bandstand.demo.run import run
    except ModuleNotFoundError as error:
        if error.name in _OF_THE_DEMO:
            raise BandstandError(
                f"the demo needs the package {error.name}: pip install 'bandstand[demo]'"
            ) from None
        raise
    run(folder, digits_seconds)


Folder = Annotated[Path, typer.Option(help="Where the servers' data is.")]


@dev_app.command("up")
def dev_up(
    folder: Folder = Path(".bandstand"),
    registry: Annotated[bool, typer.Option("--registry", help="A schema registry, too.")] = False,
    as_json: Json = False,
) -> None:
    """Start Kafka and S3; they stay until `dev down`."""
    from bandstand.local import dev

    out = Output(as_json=as_json)
    with progress_bar() as report:
        state = dev.up(folder, registry=registry, on_progress=report)
    if as_json:
        out.record(_dev_document(state))
        return
    out.rows(_dev_rows(state), "servers")
    out.say('for this shell: eval "$(bandstand dev env)"')


@dev_app.command("env")
def dev_env(folder: Folder = Path(".bandstand")) -> None:
    """Print what a shell must export to talk to the servers."""
    from bandstand.local import dev

    for name, value in dev.status(folder).environment.items():
        typer.echo(f"export {name}={value}")


@dev_app.command("down")
def dev_down(
    folder: Folder = Path(".bandstand"),
    delete_data: Annotated[bool, typer.Option("--delete-data", help="Data, too.")] = False,
    as_json: Json = False,
) -> None:
    """Stop what `dev up` started."""
    from bandstand.local import dev

    with stderr.status("stopping servers"):
        stopped = dev.down(folder, delete_data=delete_data)
    Output(as_json=as_json).rows([{"stopped": name} for name in stopped], "servers stopped")


@dev_app.command("status")
def dev_status(folder: Folder = Path(".bandstand"), as_json: Json = False) -> None:
    """Show which servers run and answer; exit 1 if one doesn't."""
    from bandstand.local import dev

    state = dev.status(folder)
    out = Output(as_json=as_json)
    if as_json:
        out.record(_dev_document(state))
    else:
        out.rows(_dev_rows(state), "servers")
    if not all(server.answering for server in state.servers):
        raise typer.Exit(1)


def _dev_rows(state: DevState) -> list[dict[str, object]]:
    return [
        {
            "server": server.name,
            "address": server.address,
            "pid": server.pid,
            "state": "answers" if server.answering else "silent" if server.alive else "ended",
        }
        for server in state.servers
    ]


def _dev_document(state: DevState) -> dict[str, object]:
    return {"servers": _dev_rows(state), "environment": state.environment}
