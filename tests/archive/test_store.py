"""The object store, on a real one."""

from __future__ import annotations

import pytest

from bandstand.archive.store import Store
from bandstand.errors import StorageError
from bandstand.local import SeaweedFS
from bandstand.settings import S3Settings, Settings


def store_of(s3: SeaweedFS, **changes: object) -> Store:
    """Give a store in the session's bucket."""
    values = {
        "endpoint_url": s3.endpoint_url,
        "bucket": s3.bucket,
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
        **changes,
    }
    return Store(Settings(s3=S3Settings.model_validate(values)))


def test_an_object_is_stored_once(bandstand_s3: SeaweedFS, bandstand_prefix: str) -> None:
    """A second object under a name is refused, and the first one stays; all come back in order."""
    store = store_of(bandstand_s3, prefix=f"{bandstand_prefix}/")
    assert store.check()
    names = [f"t/dt=2025-01-01/hour=0{hour}/t+0+{hour}.parquet" for hour in range(3)]
    for name in reversed(names):
        assert store.put_if_absent(name, name.encode())
    assert not store.put_if_absent(names[0], b"another")
    assert store.get(names[0]) == names[0].encode()
    assert list(store.list("t/")) == names
    assert list(store.list("u/")) == []


def test_what_waiting_would_not_mend_is_refused_at_once(bandstand_s3: SeaweedFS) -> None:
    """A missing bucket and wrong credentials say which setting to look at."""
    with pytest.raises(StorageError, match=r"'elsewhere'.*create the bucket"):
        store_of(bandstand_s3, bucket="elsewhere").check()
    with pytest.raises(StorageError, match="BANDSTAND_S3__ACCESS_KEY_ID"):
        store_of(bandstand_s3, secret_access_key="wrong").check()
    with pytest.raises(StorageError, match="reading 'nothing'"):
        store_of(bandstand_s3).get("nothing")


def test_a_store_that_is_not_there_is_waited_for(bandstand_s3: SeaweedFS) -> None:
    """No connection is no refusal."""
    nobody = store_of(bandstand_s3, endpoint_url="http://127.0.0.1:9")
    assert not nobody.check()
    with pytest.raises(StorageError, match=r"storing 'x' in bucket .* at http://127\.0\.0\.1:9"):
        nobody.put_if_absent("x", b"")
