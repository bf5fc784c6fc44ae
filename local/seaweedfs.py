"""SeaweedFS: S3 on this machine, all of it in one process."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bandstand.errors import ServerError
from bandstand.local import parts
from bandstand.local.parts import OnProgress
from bandstand.local.ports import HOST, free_ports
from bandstand.local.server import Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_COMPONENTS = ("s3", "master", "volume", "filer", "admin")
_GRPC_OFFSET = 10_000  # built in: each component's second port
_OPTIONS = (
    f"-ip={HOST}",
    f"-ip.bind={HOST}",
    "-master.telemetry=false",  # it would report to its makers
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.autoCreateBucket=false",
    "-volume.preStopSeconds=0",
)
_SOCKETS = Path("/tmp")  # noqa: S108 - where SeaweedFS puts its sockets, whatever TMPDIR says


class SeaweedFS(Server):
    """An S3 service on 127.0.0.1, with one bucket.

    Parameters
    ----------
    folder
        Where its data and log are.
    bucket
        Made at the start where it is missing.
    access_key_id, secret_access_key
        The only credentials that it lets in; by default new ones, at random.
    ports
        Ports to try first, in the order of an earlier server's ``ports``.
    ready_within
        Seconds until it must answer a real client.
    on_progress
        Called with what takes more than a moment.

    Examples
    --------
    ::

        with SeaweedFS("build/s3", bucket="archive") as s3:
            boto3.client(
                "s3",
                endpoint_url=s3.endpoint_url,
                aws_access_key_id=s3.access_key_id,
                aws_secret_access_key=s3.secret_access_key,
                region_name=s3.region,
            )
    """

    name = "s3"
    region = "us-east-1"

    def __init__(
        self,
        folder: Path | str,
        *,
        bucket: str = "bandstand",
        access_key_id: str = "",
        secret_access_key: str = "",
        ports: Sequence[int] = (),
        ready_within: float = 180.0,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(folder, ports=ports, ready_within=ready_within, on_progress=on_progress)
        self.bucket = bucket
        self.access_key_id = access_key_id or secrets.token_hex(10)
        self.secret_access_key = secret_access_key or secrets.token_hex(20)

    @property
    def endpoint_url(self) -> str:
        """Where clients find it."""
        return f"http://{HOST}:{self.ports[0]}"

    @property
    def address(self) -> str:  # noqa: D102
        return self.endpoint_url

    @property
    def environment(self) -> dict[str, str]:  # noqa: D102
        return {
            "BANDSTAND_S3__ENDPOINT_URL": self.endpoint_url,
            "BANDSTAND_S3__ACCESS_KEY_ID": self.access_key_id,
            "BANDSTAND_S3__SECRET_ACCESS_KEY": self.secret_access_key,
            "BANDSTAND_S3__BUCKET": self.bucket,
        }

    def answers(self) -> bool:  # noqa: D102
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def create_bucket(self, name: str) -> None:
        """Make a bucket; no harm where it is there already.

        Raises
        ------
        ServerError
            The name isn't allowed.
        """
        from botocore.exceptions import ClientError

        try:
            self._client.create_bucket(Bucket=name)
        except self._client.exceptions.BucketAlreadyExists:
            return
        except self._client.exceptions.BucketAlreadyOwnedByYou:
            return
        except ClientError as error:
            raise ServerError(f"bucket {name!r} can't be made: {error}") from error

    @cached_property
    def _client(self) -> S3Client:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=self.region,
            config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
        )

    def _pick_ports(self) -> list[int]:
        return free_ports(len(_COMPONENTS), offsets=(0, _GRPC_OFFSET))

    def _prepare(self) -> None:
        self.__dict__.pop("_client", None)  # the port may be another one
        (self.folder / "data").mkdir(exist_ok=True)

    def _variables(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }

    def _command(self) -> list[str]:
        ports = [f"-{name}.port={p}" for name, p in zip(_COMPONENTS, self.ports, strict=True)]
        return [str(parts.weed()), "mini", f"-dir={self.folder / 'data'}", *_OPTIONS, *ports]

    def _set_up(self) -> None:
        self.create_bucket(self.bucket)

    def _litter(self) -> list[Path]:
        pairs = list(zip(_COMPONENTS, self.ports, strict=True))
        plain = [f"{name}-{port}" for name, port in pairs]
        grpc = [f"{name}-grpc-{port + _GRPC_OFFSET}" for name, port in pairs]
        return [_SOCKETS / f"seaweedfs-{socket}.sock" for socket in plain + grpc]
