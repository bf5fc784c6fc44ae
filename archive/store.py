"""The object store: the only place that knows S3's client.

Nothing is retried here, so that whoever waits decides how long; a failed call costs at most
``archive.request_timeout``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bandstand.errors import StorageError
from bandstand.settings import S3Settings, Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Store"]

_CONNECT_TIMEOUT_S = 2.0
_CONNECTIONS = 16
_TAKEN = 412
_FOR_GOOD = (301, 400, 401, 403, 404)


class Store:
    """The objects of the archive; thread-safe.

    Parameters
    ----------
    settings
        Endpoint, bucket, prefix and credentials; without credentials the usual chain of AWS's
        clients looks for them. Names given to the methods leave out ``s3.prefix``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.s3
        self._bucket = settings.s3.bucket
        self._prefix = settings.s3.prefix
        self._client = _client(settings.s3, settings.archive.request_timeout.total_seconds())

    def check(self) -> bool:
        """Tell whether the store can be used now; False: it can't be reached, or is in trouble.

        Raises
        ------
        StorageError
            If the bucket is missing, or refuses us: waiting would not help.
        """
        try:
            with self._errors("looking for the bucket"):
                self._client.head_bucket(Bucket=self._bucket)
        except StorageError as error:
            if _status(error.__cause__) in _FOR_GOOD:
                raise
            return False
        return True

    def put_if_absent(self, name: str, body: bytes) -> bool:
        """Store an object unless there is one of that name; False: there was one.

        Raises
        ------
        StorageError
            If the store can't be reached or refuses; then it may or may not have stored it.
        """
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        try:
            with self._errors(f"storing {name!r}"):
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + name,
                    Body=body,
                    ContentMD5=base64.b64encode(digest).decode(),
                    ContentType="application/vnd.apache.parquet",
                    IfNoneMatch="*",
                )
        except StorageError as error:
            if _status(error.__cause__) == _TAKEN:
                return False
            raise
        return True

    def get(self, name: str) -> bytes:
        """Give an object's bytes.

        Raises
        ------
        StorageError
            If there is none, or the store can't be reached or refuses.
        """
        with self._errors(f"reading {name!r}"):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            return answer["Body"].read()

    def list(self, prefix: str) -> Iterator[str]:
        """Give the names that begin with a prefix, in their order.

        Raises
        ------
        StorageError
            If the store can't be reached or refuses.
        """
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        with self._errors(f"listing {prefix!r}"):
            for page in pages:
                for item in page.get("Contents", ()):
                    yield item["Key"].removeprefix(self._prefix)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        where = f"bucket {self._bucket!r} at {self._settings.endpoint_url or 'AWS'}"
        try:
            yield
        except ClientError as error:
            advice = _ADVICE.get(error.response["Error"]["Code"], "")
            raise StorageError(f"{doing} in {where}: {error}{advice}") from error
        except (BotoCoreError, OSError) as error:
            raise StorageError(f"{doing} in {where}: {error}") from error


_ADVICE = {
    "404": "; create the bucket, or set BANDSTAND_S3__BUCKET to another one",
    "NoSuchBucket": "; create the bucket, or set BANDSTAND_S3__BUCKET to another one",
    "403": "; check the credentials in BANDSTAND_S3__ACCESS_KEY_ID and the bucket's policy",
    "AccessDenied": "; check the bucket's policy",
    "InvalidAccessKeyId": "; check BANDSTAND_S3__ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "; check BANDSTAND_S3__SECRET_ACCESS_KEY",
}


def _status(error: BaseException | None) -> int | None:
    if not isinstance(error, ClientError):
        return None
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def _client(settings: S3Settings, timeout: float) -> S3Client:
    secret = settings.secret_access_key
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=timeout,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=_CONNECTIONS,
            s3={"addressing_style": "path" if settings.endpoint_url else "auto"},
            # Not every S3-compatible store knows the newer checksums; Content-MD5 they all do.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
