"""Settings: where they come from, and how a wrong one is named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandstand.durations import format_duration, milliseconds, parse_duration
from bandstand.errors import SettingsError
from bandstand.settings import KafkaSettings, Settings, load_settings


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_file_and_the_environment_together(tmp_path: Path) -> None:
    """The environment wins over the file, the file over the defaults, setting by setting."""
    (tmp_path / "bandstand.toml").write_text(
        '[kafka]\nbootstrap_servers = "file:1"\nclient_id = "file"\n'
        '[lanes.checkout]\nwindow = "7d"\ngrace = "1m"\n'
    )
    settings = load_settings(
        environment={
            "BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": "environment:2",
            "BANDSTAND_LANES__CHECKOUT__GRACE": "2m",
            "BANDSTAND_LANES__SEARCH__PARTITIONS": "3",
            "HOME": "/root",
        }
    )
    assert settings.kafka.bootstrap_servers == "environment:2"
    assert settings.kafka.client_id == "file"
    assert settings.lane("checkout").window == timedelta(days=7)
    assert settings.lane("checkout").grace == timedelta(minutes=2)
    assert settings.lane("search").partitions == 3
    assert settings.web == Settings().web


def test_the_file_is_named_by_argument_or_variable(tmp_path: Path) -> None:
    """A path that is given comes first, then BANDSTAND_CONFIG, then bandstand.toml."""
    for name in ("argument", "variable", "bandstand"):
        (tmp_path / f"{name}.toml").write_text(f'kafka = {{client_id = "{name}"}}\n')
    variable = {"BANDSTAND_CONFIG": "variable.toml"}
    assert load_settings(Path("argument.toml"), variable).kafka.client_id == "argument"
    assert load_settings(None, variable).kafka.client_id == "variable"
    assert load_settings(None, {}).kafka.client_id == "bandstand"


def test_nothing_but_load_settings_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are made in code are what the code says, on any machine."""
    monkeypatch.setenv("BANDSTAND_KAFKA__CLIENT_ID", "world")
    assert Settings().kafka.client_id == "bandstand"
    assert load_settings(environment={}).kafka.client_id == "bandstand"
    assert load_settings().kafka.client_id == "world"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BANDSTAND_WEBB__PORT", "1", "BANDSTAND_WEBB__PORT: unknown setting 'webb'; did you mean"),
        ("BANDSTAND_WEB__PROT", "1", "BANDSTAND_WEB__PROT: web.prot: unknown .* mean 'port'"),
        ("BANDSTAND_WEB", "1", "'web' is a section"),
        ("BANDSTAND_WEB__PORT", "x", "BANDSTAND_WEB__PORT: web.port: 'x' is not allowed"),
        ("BANDSTAND_WEB__PORT", "65536", "less than or equal to 65535"),
        ("BANDSTAND_LOG__LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("BANDSTAND_LANES__A__WINDO", "1s", "BANDSTAND_LANES__A__WINDO: .* mean 'window'"),
        ("BANDSTAND_LANES__A__WINDOW", "1 week", "'1 week' is not a duration; .* 250ms, 10s"),
        ("BANDSTAND_LANES__A__WINDOW", "0s", "0 is not allowed; write 1ms or more"),
        ("BANDSTAND_LANES__A__WINDOW", "9" * 18 + "d", "longer than any duration"),
        ("BANDSTAND_LANES__A__SKEW", "9s", "BANDSTAND_LANES__A__SKEW: .* skew is 9s; .* 10s"),
        ("BANDSTAND_LANES__A B__SKEW", "19s", "'a b' is not allowed"),
        ("BANDSTAND_LANES__A", "1s", "BANDSTAND_LANES__A: lanes.a: '1s' is not allowed"),
        (
            "BANDSTAND_KAFKA__BOOTSTRAP_SERVER",
            "x",
            "KAFKA__BOOTSTRAP_SERVER: kafka.bootstrap_server: .* mean 'bootstrap_servers'",
        ),
        ("BANDSTAND_KAFKA__ACKS", "0", "BANDSTAND_KAFKA__ACKS: .*unknown setting 'acks'"),
        ("BANDSTAND_TOPICS__PREFIX", "a/b", "'a/b' is not allowed"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, message: str) -> None:
    """An error names the variable, its value, and what is allowed or the nearest right name."""
    with pytest.raises(SettingsError, match=message):
        load_settings(environment={variable: value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[webb]\nport = 1\n", "bandstand.toml: webb: unknown setting 'webb'; did you mean 'web'"),
        ("[web]\nport = -1\n", "bandstand.toml: web.port: -1 is not allowed"),
        ('[kafka]\nsasl_user = "x"\n', "kafka.sasl_user: .* did you mean 'sasl_username'"),
        ("[lanes.a]\nwindow = 7\n", "lanes.a.window: 7 is not a duration"),
        ("[lanes]\n", "lanes: .* at least 1"),
        ("[web\n", "is not TOML"),
        ("web = 1\n", "bandstand.toml: web: 1 is not allowed"),
    ],
)
def test_a_wrong_line_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    """An error in the file names the file and the setting."""
    (tmp_path / "bandstand.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings(environment={})


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Two mistakes give two lines."""
    (tmp_path / "bandstand.toml").write_text("[web]\nport = -1\nhots = 'x'\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(environment={})
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_file_is_an_error_only_where_it_was_named() -> None:
    """No bandstand.toml is no mistake; a path that leads nowhere is."""
    load_settings(environment={})
    with pytest.raises(SettingsError, match=r"nowhere.toml can't be read: No such file"):
        load_settings(Path("nowhere.toml"), {})


def test_a_lane_that_is_not_set_up_is_named() -> None:
    """Asking for an unknown lane says which there are and how to add it."""
    with pytest.raises(SettingsError, match=r"'search' is not set up; known: default; add \[lanes"):
        Settings().lane("search")


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    """Passwords stay out of what is printed and out of messages, but reach librdkafka."""
    secrets = {
        "BANDSTAND_KAFKA__SASL_PASSWORD": "geheim",
        "BANDSTAND_KAFKA__SSL_KEY_PASSWORD": "geheim",
        "BANDSTAND_KAFKA__SSL_KEYSTORE_PASSWORD": "geheim",
        "BANDSTAND_KAFKA__SSL_KEY_PEM": "geheim",
        "BANDSTAND_KAFKA__SASL_OAUTHBEARER_CLIENT_SECRET": "geheim",
        "BANDSTAND_REGISTRY__PASSWORD": "geheim",
        "BANDSTAND_S3__SECRET_ACCESS_KEY": "geheim",
    }
    settings = load_settings(environment=secrets)
    shown = settings.model_dump_json() + repr(settings) + str(settings.model_dump())
    assert "geheim" not in shown
    assert settings.kafka.librdkafka()["sasl.oauthbearer.client.secret"] == "geheim"
    (tmp_path / "bandstand.toml").write_text('[s3]\nsecret_access_key = ["geheim"]\n')
    with pytest.raises(SettingsError, match=r"s3.secret_access_key: its value is not") as caught:
        load_settings(environment={})
    assert "geheim" not in str(caught.value)


def test_properties_of_librdkafka_pass_through() -> None:
    """Whatever connects to a broker can be set; whatever the promises depend on can't."""
    kafka = KafkaSettings(security_protocol="SASL_SSL", sasl_oauthbearer_method="oidc")
    properties = kafka.librdkafka()
    assert properties["security.protocol"] == "SASL_SSL"
    assert properties["sasl.oauthbearer.method"] == "oidc"
    assert "ssl.ca.location" not in properties
    for fixed in ("acks", "enable_idempotence", "isolation_level", "partitioner"):
        with pytest.raises(ValueError, match=f"unknown setting '{fixed}'"):
            KafkaSettings.model_validate({fixed: "x"})


@given(st.integers(0, 10**12))
def test_durations_come_back(value_ms: int) -> None:
    """What is written as a duration is read as the same."""
    duration = timedelta(milliseconds=value_ms)
    assert parse_duration(format_duration(duration)) == duration
    assert milliseconds(duration) == value_ms


@pytest.mark.parametrize("value", ["", "10", "1.5s", "-1s", "s", "1s2", "1 w", 10, None, "\u0661s"])
def test_what_is_no_duration_is_refused(value: object) -> None:
    """A number without unit, a fraction, a sign: each is an error, not a guess."""
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(value)
