"""Apicurio: a schema registry that speaks Confluent's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bandstand.errors import ServerError
from bandstand.local import parts
from bandstand.local.parts import OnProgress
from bandstand.local.ports import HOST, free_ports
from bandstand.local.server import Server

_ANSWER_S = 10.0


class Apicurio(Server):
    """A schema registry on 127.0.0.1, whose subjects outlive a restart.

    Parameters
    ----------
    folder
        Where its data and log are.
    compatibility
        Rule for all subjects that have none of their own, by Confluent's names.
    heap_mb
        Limit of Java's heap, in MiB.
    ports
        Port to try first.
    ready_within
        Seconds until it must answer a real client.
    on_progress
        Called with what takes more than a moment.

    Examples
    --------
    ::

        with Apicurio("build/registry", compatibility="BACKWARD") as registry:
            SchemaRegistryClient({"url": registry.url}).get_subjects()
    """

    name = "registry"

    def __init__(
        self,
        folder: Path | str,
        *,
        compatibility: str = "FULL",
        heap_mb: int = 256,
        ports: Sequence[int] = (),
        ready_within: float = 180.0,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(folder, ports=ports, ready_within=ready_within, on_progress=on_progress)
        self._compatibility = compatibility
        self._heap_mb = heap_mb

    @property
    def url(self) -> str:
        """Root of the Confluent-compatible interface."""
        return f"http://{HOST}:{self.ports[0]}/apis/ccompat/v7"

    @property
    def address(self) -> str:  # noqa: D102
        return self.url

    @property
    def environment(self) -> dict[str, str]:  # noqa: D102
        return {"BANDSTAND_REGISTRY__URL": self.url}

    def answers(self) -> bool:  # noqa: D102
        import requests

        try:
            return requests.get(f"{self.url}/subjects", timeout=_ANSWER_S).ok
        except requests.RequestException:
            return False

    def _is_ours(self, log: str) -> bool:
        return f"Listening on: http://{HOST}:{self.ports[0]}" in log

    def _pick_ports(self) -> list[int]:
        return free_ports(1)

    def _prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def _variables(self) -> dict[str, str]:
        # By itself it keeps everything in memory only.
        return {"REGISTRY_DATASOURCE_URL": f"jdbc:h2:file:{self.folder / 'data' / 'registry'}"}

    def _command(self) -> list[str]:
        return [
            str(parts.java()),
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # it starts in 60 % of the time, and serves few calls
            f"-Dquarkus.http.host={HOST}",
            f"-Dquarkus.http.port={self.ports[0]}",
            "-jar",
            str(parts.apicurio_jar(self._on_progress)),
        ]

    def _set_up(self) -> None:
        import requests

        rule = {"compatibility": self._compatibility}
        answer = requests.put(f"{self.url}/config", json=rule, timeout=_ANSWER_S)
        if not answer.ok:
            raise ServerError(f"compatibility {self._compatibility!r} is refused: {answer.text}")
