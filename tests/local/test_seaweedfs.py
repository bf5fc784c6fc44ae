from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ClientError

from bandstand.errors import ServerError
from bandstand.local import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def _client(s3: SeaweedFS, *, secret: str = "") -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=secret or s3.secret_access_key,
        region_name=s3.region,
    )


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def test_object_is_written_and_read(bandstand_s3: SeaweedFS, bandstand_prefix: str) -> None:
    """The bucket that is there from the start takes objects and gives them back."""
    key = f"{bandstand_prefix}key"
    _client(bandstand_s3).put_object(Bucket=bandstand_s3.bucket, Key=key, Body=b"value")
    found = _client(bandstand_s3).get_object(Bucket=bandstand_s3.bucket, Key=key)
    assert found["Body"].read() == b"value"


def test_wrong_secret_is_refused(bandstand_s3: SeaweedFS) -> None:
    """Only the holder of the secret gets in."""
    with pytest.raises(ClientError) as refused:
        _client(bandstand_s3, secret="wrong").list_buckets()
    assert _code(refused.value) == "SignatureDoesNotMatch"


def test_if_none_match_is_honoured(bandstand_s3: SeaweedFS, bandstand_prefix: str) -> None:
    """An object that is there isn't replaced where the writer forbids it."""
    s3, bucket, key = _client(bandstand_s3), bandstand_s3.bucket, f"{bandstand_prefix}once"
    s3.put_object(Bucket=bucket, Key=key, Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key=key, Body=b"second", IfNoneMatch="*")
    assert _code(refused.value) == "PreconditionFailed"
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"first"


def test_bucket_is_made_once(bandstand_s3: SeaweedFS) -> None:
    """Making a bucket again does no harm; a name that S3 forbids is an error that has it."""
    bandstand_s3.create_bucket("twice")
    bandstand_s3.create_bucket("twice")
    with pytest.raises(ServerError, match="'No'"):
        bandstand_s3.create_bucket("No")


def test_taken_port_is_avoided_and_data_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that somebody takes at the last moment is replaced; a later run has the old data."""
    ports = SeaweedFS(tmp_path)._pick_ports()
    with socket.create_server(("127.0.0.1", ports[1])), monkeypatch.context() as patch:
        patch.setattr("bandstand.local.server.are_free", lambda _: True)
        s3 = SeaweedFS(tmp_path, ports=ports).start()
    with s3:
        assert s3.ports != ports
        _client(s3).put_object(Bucket=s3.bucket, Key="kept", Body=b"value")
        _client(s3.restart()).head_object(Bucket=s3.bucket, Key="kept")
