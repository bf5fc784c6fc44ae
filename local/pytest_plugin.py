"""Fixtures for tests on real servers, for Bandstand's own tests and its users'.

Each server is started for the first test that asks for it, once a test session. Tests keep apart by
``bandstand_prefix``. pytest loads this module whenever Bandstand is installed, so it imports
nothing heavy.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bandstand.local import Apicurio, Kafka, SeaweedFS


_OF_TESTS = {
    # What is deleted is gone soon, and takes no time when a broker is started again.
    "log.segment.delete.delay.ms": "1000",
    # Records of long ago, which tests write, aren't taken by retention in their midst.
    "log.retention.check.interval.ms": "86400000",
}


@contextmanager
def _one_line_errors() -> Iterator[None]:
    from bandstand.errors import ServerError

    try:
        yield
    except ServerError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def bandstand_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One Kafka broker for the whole session."""
    from bandstand.local import Kafka

    kafka = Kafka(tmp_path_factory.mktemp("kafka"), properties=_OF_TESTS)
    with _one_line_errors():
        kafka.start()
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session")
def bandstand_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One S3 service, with a bucket, for the whole session."""
    from bandstand.local import SeaweedFS

    s3 = SeaweedFS(tmp_path_factory.mktemp("s3"))
    with _one_line_errors():
        s3.start()
    yield s3
    s3.stop()


@pytest.fixture(scope="session")
def bandstand_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    """One schema registry for the whole session."""
    from bandstand.local import Apicurio

    registry = Apicurio(tmp_path_factory.mktemp("registry"))
    with _one_line_errors():
        registry.start()
    yield registry
    registry.stop()


@pytest.fixture
def bandstand_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """Make a prefix for the topics of one test, such as ``t3f9a1c2.``.

    They are deleted after it: a broker with a thousand partitions takes half a minute to recover
    when a later test kills it.
    """
    prefix = f"t{uuid.uuid4().hex[:7]}."
    yield prefix
    if "bandstand_kafka" in request.fixturenames:
        kafka: Kafka = request.getfixturevalue("bandstand_kafka")
        kafka.delete_topics(prefix)
