"""What an operator may set: one class, read from the environment and from a TOML file.

The environment wins over the file. Names nest with two underscores::

    BANDSTAND_KAFKA__BOOTSTRAP_SERVERS=broker:9092
    BANDSTAND_LANES__CHECKOUT__WINDOW=7d

and the file (``bandstand.toml`` in the working directory, or the path in ``BANDSTAND_CONFIG``) says
the same as::

    [kafka]
    bootstrap_servers = "broker:9092"

    [lanes.checkout]
    window = "7d"
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from bandstand.durations import (
    Duration,
    PositiveDuration,
    format_duration,
)
from bandstand.errors import SettingsError
from bandstand.librdkafka import CONNECTION_PROPERTIES

__all__ = [
    "ArchiveSettings",
    "JoinSettings",
    "KafkaSettings",
    "LaneSettings",
    "LearnSettings",
    "LogSettings",
    "PublishSettings",
    "RegistrySettings",
    "S3Settings",
    "ServeSettings",
    "Settings",
    "TopicSettings",
    "WebSettings",
    "load_settings",
]

_ENV_PREFIX = "BANDSTAND_"
_CONFIG_VARIABLE = "BANDSTAND_CONFIG"
_DEFAULT_FILE = "bandstand.toml"


class _UnknownNameError(ValueError):
    """A name that a section doesn't have."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(_unknown(name, known))
        self.name = name


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """Connection to Kafka.

    Besides the fields below every connection property of librdkafka is accepted, with underscores
    for its dots: ``BANDSTAND_KAFKA__SASL_OAUTHBEARER_METHOD`` sets ``sasl.oauthbearer.method``.
    What Bandstand's promises depend on (acks, idempotence, offsets, partitioners) can't be set.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    bootstrap_servers: str = "127.0.0.1:9092"
    client_id: str = "bandstand"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_ca_location: str | None = None
    ssl_certificate_location: str | None = None
    ssl_key_location: str | None = None
    ssl_key_password: SecretStr | None = None
    ssl_endpoint_identification_algorithm: Literal["https", "none"] = "https"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None

    @model_validator(mode="after")
    def _extra_properties_are_known(self) -> KafkaSettings:
        extra = self.model_extra or {}
        for name, value in extra.items():
            if name not in CONNECTION_PROPERTIES:
                raise _UnknownNameError(name, [*type(self).model_fields, *CONNECTION_PROPERTIES])
            if re.search("secret|password|key_pem|oauthbearer_config", name):
                extra[name] = SecretStr(str(value))
        return self

    def librdkafka(self) -> dict[str, str]:
        """Give the properties that librdkafka understands, secrets in clear."""
        properties: dict[str, str] = {}
        for name, value in self:
            if value is None:
                continue
            clear = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            properties[name.replace("_", ".")] = clear
        return properties


class RegistrySettings(_Section):
    """Schema registry; without a URL, Avro's single-object encoding is written."""

    url: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    ssl_ca_location: str | None = None


class S3Settings(_Section):
    """S3-compatible storage for the archive."""

    endpoint_url: str | None = None
    region: str = "us-east-1"
    bucket: str = "bandstand"
    prefix: str = ""
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None


class TopicSettings(_Section):
    """How topics are named and created."""

    prefix: str = Field("bandstand.", pattern=r"^[a-zA-Z0-9._-]*$")
    replication_factor: int = Field(1, ge=1)
    min_insync_replicas: int = Field(1, ge=1)
    learner_state_partitions: int = Field(6, ge=1, le=10_000)
    retention: PositiveDuration = timedelta(days=14)


class LaneSettings(_Section):
    """One lane: topics that share one attribution window.

    ``window`` and ``grace`` may change while the lane lives; the rest is for good.
    """

    window: PositiveDuration = timedelta(minutes=10)
    grace: Duration = timedelta(seconds=5)
    lateness: Duration = timedelta(hours=1)
    backward: Duration = timedelta(0)
    skew: Duration = timedelta(seconds=60)
    partitions: int = Field(6, ge=1, le=10_000)
    max_outcome_bytes: int = Field(900_000, ge=1_000, le=1_000_000)

    @model_validator(mode="after")
    def _skew_is_large_enough(self) -> LaneSettings:
        if self.skew < timedelta(seconds=10):
            raise ValueError(
                f"skew is {format_duration(self.skew)}; allowed: 10s or more, because clocks of "
                "honest producers differ by seconds"
            )
        return self


_LaneName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]


class JoinSettings(_Section):
    """The join and its clock."""

    group: str = "bandstand.join"
    session_timeout: PositiveDuration = timedelta(seconds=6)
    tick: PositiveDuration = timedelta(seconds=1)
    idle_tick: PositiveDuration = timedelta(seconds=10)
    pause: Duration = timedelta(seconds=5)
    settle: Duration = timedelta(seconds=15)
    brake: Duration = timedelta(seconds=5)
    brake_release: Duration = timedelta(minutes=10)
    progress: PositiveDuration = timedelta(minutes=1)
    accept_deleted: bool = False


class LearnSettings(_Section):
    """The learners."""

    group: str = "bandstand.learn"
    session_timeout: PositiveDuration = timedelta(seconds=6)
    state_interval: PositiveDuration = timedelta(milliseconds=250)


class PublishSettings(_Section):
    """The publisher."""

    group: str = "bandstand.publish"
    session_timeout: PositiveDuration = timedelta(seconds=6)
    interval: PositiveDuration = timedelta(milliseconds=250)
    least_outcomes: int = Field(1, ge=1)
    keep_artifacts: int = Field(20, ge=1)


class ArchiveSettings(_Section):
    """The archive: a file ends at the first of its limits, counted on the records as they came."""

    group: str = "bandstand.archive"
    session_timeout: PositiveDuration = timedelta(seconds=6)
    max_rows: int = Field(100_000, ge=1, le=10_000_000)
    max_bytes: int = Field(64_000_000, ge=1_000, le=1_000_000_000)
    max_age: PositiveDuration = timedelta(minutes=5)
    max_buffered_bytes: int = Field(256_000_000, ge=1_000)
    request_timeout: PositiveDuration = timedelta(seconds=10)


class ServeSettings(_Section):
    """The serving library."""

    queue_max_messages: int = Field(100_000, ge=1)
    stale_after: Duration = timedelta(minutes=10)


class LogSettings(_Section):
    """Logs of all roles."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class WebSettings(_Section):
    """Where a role answers ``/metrics``, ``/healthz`` and ``/readyz``; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535)


class Settings(BaseSettings):
    """All settings in force."""

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    s3: S3Settings = S3Settings()
    topics: TopicSettings = TopicSettings()
    lanes: dict[_LaneName, LaneSettings] = Field(
        default_factory=lambda: {"default": LaneSettings()}, min_length=1
    )
    join: JoinSettings = JoinSettings()
    learn: LearnSettings = LearnSettings()
    publish: PublishSettings = PublishSettings()
    archive: ArchiveSettings = ArchiveSettings()
    serve: ServeSettings = ServeSettings()
    log: LogSettings = LogSettings()
    web: WebSettings = WebSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given, and nothing from the world: `load_settings` reads that."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    def lane(self, name: str) -> LaneSettings:
        """Give the settings of a lane.

        Raises
        ------
        SettingsError
            If no lane has this name.
        """
        if name not in self.lanes:
            raise SettingsError(
                f"lane {name!r} is not set up; known: {', '.join(sorted(self.lanes))}; add "
                f"[lanes.{name}] to {_DEFAULT_FILE} or set BANDSTAND_LANES__{name.upper()}__WINDOW"
            )
        return self.lanes[name]


def load_settings(
    path: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings in force.

    Parameters
    ----------
    path
        The TOML file; by default the one named by ``BANDSTAND_CONFIG``, else ``bandstand.toml`` in
        the working directory where there is one.
    environment
        Variables; by default this process's.

    Raises
    ------
    SettingsError
        If a setting is wrong or unknown; names it, its value and what is allowed.
    """
    environment = os.environ if environment is None else environment
    _refuse_unknown_variables(environment)
    source, values = _read_file(path, environment)
    try:
        return Settings(**_merged(values, _Environment(environment)()))
    except ValidationError as error:
        raise SettingsError("\n".join(_problems(error, source, environment))) from None


class _Environment(EnvSettingsSource):
    """Settings from variables that are given, not from this process's."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environment.items()}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            merged[name] = _merged(below[name], above[name])
    return merged


def _read_file(path: Path | None, environment: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    named = path or (
        Path(environment[_CONFIG_VARIABLE]) if _CONFIG_VARIABLE in environment else None
    )
    file = named or Path(_DEFAULT_FILE)
    if named is None and not file.exists():
        return _DEFAULT_FILE, {}
    try:
        return str(file), tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"settings file {file} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from None


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    sections = list(Settings.model_fields)
    for variable in environment:
        if not variable.startswith(_ENV_PREFIX) or variable == _CONFIG_VARIABLE:
            continue
        section, _, rest = variable.removeprefix(_ENV_PREFIX).lower().partition("__")
        if section not in sections:
            raise SettingsError(f"environment variable {variable}: {_unknown(section, sections)}")
        if not rest:
            raise SettingsError(
                f"environment variable {variable}: {section!r} is a section; name one of its "
                f"settings after two underscores: {variable}__NAME"
            )


def _problems(error: ValidationError, source: str, environment: Mapping[str, str]) -> Iterable[str]:
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, _UnknownNameError):
            path.append(cause.name)
        variable = _ENV_PREFIX + "__".join(path).upper()
        place = _place(variable, source, environment)
        if problem["type"] == "extra_forbidden":
            message = _unknown(path[-1], _siblings(path))
        elif problem["type"] == "value_error":
            message = str(cause)
        else:
            secret = re.search("secret|password", path[-1])
            shown = "its value" if secret else repr(problem["input"])
            message = f"{shown} is not allowed: {problem['msg']}"
        yield f"{place}: {'.'.join(path)}: {message}"


def _place(variable: str, source: str, environment: Mapping[str, str]) -> str:
    parts = sorted(name for name in environment if name.startswith(f"{variable}__"))
    if variable in environment:
        parts = [variable]
    return f"environment variable {', '.join(parts)}" if parts else source


def _siblings(path: list[str]) -> list[str]:
    model: Any = Settings
    for part in path[:-1]:
        field = model.model_fields.get(part)
        if field is None:
            break
        model = LaneSettings if part == "lanes" else field.annotation
        if part == "lanes":
            break
    return list(model.model_fields)


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    return f"unknown setting {name!r}; {hint}"
