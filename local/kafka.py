"""Apache Kafka: one node, KRaft, broker and controller in one process; others may join it."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bandstand.errors import ServerError
from bandstand.local import parts
from bandstand.local.parts import OnProgress, Progress
from bandstand.local.ports import HOST, free_ports
from bandstand.local.server import Server

_FORMAT_S = 120.0
_ANSWER_S = 5.0
_RECORD_S = 120.0
_CACHE_SINCE_JAVA = 25
_JAVA_OPTIONS = (
    "-XX:+UseSerialGC",
    "-Xlog:disable",  # what it says of its own cache
    "-Xlog:all=error:stderr",
)
_FIRST = 1
_DEFAULTS = {
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One node: one replica of everything, and no waiting for others.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # So that a test may see a dead consumer's partitions move at once.
    "group.min.session.timeout.ms": "500",
    # After a crash the node is let in again only when its old session is over: soon.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.retention.hours": "168",
    # Small: a laptop has many topics and few records.
    "log.index.size.max.bytes": "1048576",
    "log.cleaner.dedupe.buffer.size": "8388608",
}
_LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.target = SYSTEM_OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n%ex
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.group.name = org.apache.kafka.coordinator.group
logger.group.level = info
"""


class Kafka(Server):
    """A broker on 127.0.0.1.

    Parameters
    ----------
    folder
        Where its data, settings and log are.
    properties
        Server properties beside the built-in ones, or instead of them.
    joins
        The first node of the cluster that this one joins, as a broker without a controller; it
        must be running. None: this is the first node.
    node_id
        The number of a node that joins, unlike all others' in its cluster; the first one's is 1.
    heap_mb
        Limit of Java's heap, in MiB.
    ports
        Ports to try first: of the broker, of the controller.
    ready_within
        Seconds until it must answer a real client.
    on_progress
        Called with what takes more than a moment.

    Examples
    --------
    ::

        with Kafka("build/kafka", properties={"message.max.bytes": "2097152"}) as kafka:
            AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics(timeout=5)
    """

    name = "kafka"

    def __init__(
        self,
        folder: Path | str,
        *,
        properties: Mapping[str, str] | None = None,
        joins: Kafka | None = None,
        node_id: int = _FIRST,
        heap_mb: int = 512,
        ports: Sequence[int] = (),
        ready_within: float = 180.0,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(folder, ports=ports, ready_within=ready_within, on_progress=on_progress)
        if (joins is None) != (node_id == _FIRST):
            raise ServerError(
                f"a Kafka node's number is {node_id}; allowed: {_FIRST} for the first node, any "
                "other for each that joins it"
            )
        self._properties = dict(properties or {})
        self._first = joins
        self._node_id = node_id
        self._heap_mb = heap_mb
        self._data = self.folder / "data"

    @property
    def bootstrap_servers(self) -> str:
        """Host and port, as ``bootstrap.servers`` of any client wants it."""
        return f"{HOST}:{self.ports[0]}"

    @property
    def address(self) -> str:  # noqa: D102
        return self.bootstrap_servers

    @property
    def environment(self) -> dict[str, str]:  # noqa: D102
        return {"BANDSTAND_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers}

    def answers(self) -> bool:  # noqa: D102
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        settings: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap_servers,
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 50,
            "log_level": 0,
        }
        try:
            metadata = AdminClient(settings).list_topics(timeout=_ANSWER_S)
        except KafkaException:
            return False
        return bool(metadata.cluster_id == self._cluster_id())

    def delete_topics(self, prefix: str) -> None:
        """Delete the topics whose names begin so; those that can't be now are left.

        Examples
        --------
        ::

            kafka.delete_topics("t3f9a1c2.")
        """
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        with suppress(KafkaException, TimeoutError):
            topics = client.list_topics(timeout=_ANSWER_S).topics
            found = [topic for topic in topics if topic.startswith(prefix)]
            for future in client.delete_topics(found).values() if found else ():
                future.result(_ANSWER_S)

    def _pick_ports(self) -> list[int]:
        return free_ports(2 if self._first is None else 1)

    def _prepare(self) -> None:
        (self.folder / "log4j2.properties").write_text(_LOG4J)
        properties = {**_DEFAULTS, **self._placement(), **self._properties}
        lines = [f"{key}={value}\n" for key, value in properties.items()]
        (self.folder / "server.properties").write_text("".join(lines))
        if not self._cluster_id():
            self._format()

    def _placement(self) -> dict[str, str]:
        first = self._first or self
        broker, controller = f"PLAINTEXT://{HOST}:{self.ports[0]}", f"{HOST}:{first.ports[1]}"
        alone = first is self
        return {
            "process.roles": "broker,controller" if alone else "broker",
            "node.id": str(self._node_id),
            "listeners": f"{broker},CONTROLLER://{controller}" if alone else broker,
            "advertised.listeners": broker,
            "controller.quorum.voters": f"{_FIRST}@{controller}",
            "log.dirs": str(self._data),
        }

    def _cluster_id(self) -> str:
        """Read the id that the folder was formatted with; empty where it wasn't."""
        try:
            lines = (self._data / "meta.properties").read_text().splitlines()
        except FileNotFoundError:
            return ""
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        return found.get("cluster.id", "")

    def _format(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)  # half formatted
        cluster_id = _new_cluster_id() if self._first is None else self._first._cluster_id()
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config"]
        done = subprocess.run(
            [*self._java(), *tool, str(self.folder / "server.properties")],
            capture_output=True,
            text=True,
            timeout=_FORMAT_S,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(
                f"Kafka's folder {self._data} can't be formatted:\n{done.stdout}{done.stderr}"
            )

    def _start_up_options(self) -> list[str]:
        cache = _start_up_cache(self._on_progress)
        return [f"-XX:AOTCache={cache}"] if cache else []

    def _java(self) -> list[str]:
        jars = parts.kafka_jars(self._on_progress)
        return [
            str(parts.java()),
            *self._start_up_options(),
            *_JAVA_OPTIONS,
            f"-Xmx{self._heap_mb}m",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            ":".join(map(str, jars)),
        ]

    def _command(self) -> list[str]:
        return [*self._java(), "kafka.Kafka", str(self.folder / "server.properties")]


def _new_cluster_id() -> str:
    # Shifted, so that it never begins with a dash: the tool would take it for an option.
    number = (uuid.uuid4().int >> 1).to_bytes(16)
    return base64.urlsafe_b64encode(number).decode().rstrip("=")


class _Recording(Kafka):
    """A broker whose Java writes down, at its end, what it loaded."""

    def _start_up_options(self) -> list[str]:
        # The tool that formats the folder comes first, and must not leave its own cache.
        return [f"-XX:AOTCacheOutput={self.folder / 'kafka.aot'}"] if self._cluster_id() else []


def _start_up_cache(on_progress: OnProgress | None) -> Path | None:
    """Find Java's cache of Kafka's classes, linked and ready; made once, None where Java can't.

    It takes a start from 5 seconds of computing to 2.
    """
    if int(parts.java_version().partition(".")[0]) < _CACHE_SINCE_JAVA:
        return None
    folder = parts.kafka_jars(on_progress)[0].parent
    path = folder.with_name(f"{folder.name}-java-{parts.java_version()}.aot")
    if not path.exists():
        with parts.locked(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                _record(path, on_progress or (lambda _: None))
    return path if path.stat().st_size else None


def _record(path: Path, on_progress: OnProgress) -> None:
    task = "Preparing Kafka's quick start"
    on_progress(Progress(task, 0, 1))
    parts.remove_halves(path)
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / "kafka.aot"
        try:
            _Recording(folder).start().stop(grace=_RECORD_S)
        except ServerError:
            made.unlink(missing_ok=True)
        made.touch()  # empty: this Java can't, and needn't try again
        made.replace(path)
    on_progress(Progress(task, 1, 1))
