"""Serving: a decision with the exact probability of each action, against plain Thompson draws."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from bandstand.kafka import producer_config
from bandstand.learners.features import Features
from bandstand.learners.policies import draw, policy_from_snapshot
from bandstand.learners.snapshots import build
from bandstand.learners.statistics import Statistics
from bandstand.local import Kafka
from bandstand.schemas.topics import TopicNames, artifact_key, pointer_key
from bandstand.serving import Client, Decision
from bandstand.settings import Settings
from bandstand.streams.topics import create
from benchmarks.events import ACTIONS, WIRE, context, outcomes, spec
from benchmarks.measure import CPU, P50, P99, Benchmark, Contestant, Figures, Ratio, Size, latencies

CALLS = 5_000
PEER_CALLS = 500
CONTEXTS = 1_000
LEARNED = 8_192

Floats = npt.NDArray[np.float64]
Call = Callable[[int], object]


@contextmanager
def prepare(size: Size) -> Iterator[Benchmark]:
    """Start a broker, and measure on it."""
    with (
        tempfile.TemporaryDirectory(prefix="bandstand-bench-") as folder,
        Kafka(folder) as kafka,
        on_broker(size, kafka.bootstrap_servers, "bench.") as benchmark,
    ):
        yield benchmark


@contextmanager
def on_broker(size: Size, servers: str, prefix: str) -> Iterator[Benchmark]:
    """Publish a snapshot that has learned something, and open a client that follows it."""
    settings = Settings.model_validate(
        {"kafka": {"bootstrap_servers": servers}, "topics": {"prefix": prefix}}
    )
    create(settings)
    learned = Statistics.empty(spec()).update(outcomes(1, size.of(LEARNED))[0])
    snapshot = build(spec(), learned, 0, "", {})
    _publish(settings, snapshot)
    with Client(settings) as client:
        client.wait_ready(spec().bandit, timeout=30)
        yield _benchmark(size, snapshot, client)


def _benchmark(size: Size, snapshot: dict[str, Any], client: Client) -> Benchmark:
    random = Random(4)
    contexts = [context(random) for _ in range(CONTEXTS)]
    calls, peer_calls = size.of(CALLS), size.of(PEER_CALLS)
    alone, whole = "policy and draw", "Client.decide"
    naive, kept = "numpy multivariate_normal", "numpy, factors kept"
    fresh, ready = _peers(snapshot, contexts)
    return Benchmark(
        "serving",
        "One decision of linear Thompson, 20 features, ten actions. Policy and draw: attributes to "
        "vector, the exact probability of each action, a draw from them. Client.decide: that, the "
        "event's Avro, and its hand-over to librdkafka, which sends it to a real broker meanwhile; "
        "calls come without a pause. The peers draw weights for each action, take the best, and "
        "know no propensity; they get the finished vector and log nothing. numpy "
        "multivariate_normal factors the covariance for each draw; numpy, factors kept, has that "
        "done beforehand.",
        "decision",
        {"calls a turn": calls, "features": len(snapshot["features"]), "actions": len(ACTIONS)},
        [
            Contestant(alone, lambda: latencies(_alone(snapshot, contexts), calls)),
            Contestant(whole, lambda: _whole(client, contexts, calls)),
            Contestant(naive, lambda: latencies(fresh, peer_calls)),
            Contestant(kept, lambda: latencies(ready, calls)),
        ],
        [
            Ratio(P50, naive, alone),
            Ratio(P50, naive, whole),
            Ratio(P50, alone, kept),
            Ratio(P50, whole, alone),
            Ratio(P99, naive, whole),
            Ratio(CPU, naive, whole),
        ],
    )


def _alone(snapshot: dict[str, Any], contexts: Sequence[dict[str, float]]) -> Call:
    policy = policy_from_snapshot(snapshot)

    def decide(number: int) -> int:
        choice = policy.decide(contexts[number % CONTEXTS], ACTIONS)
        return draw(choice.probabilities, number)

    return decide


def _whole(client: Client, contexts: Sequence[dict[str, float]], calls: int) -> Figures:
    made: list[Decision] = []

    def decide(number: int) -> None:
        made.append(client.decide("bench", "user-17", contexts[number % CONTEXTS]))

    figures = latencies(decide, calls)
    assert client.flush(30) == 0
    assert all(decision.logged and decision.version for decision in made)
    return figures


def _peers(snapshot: dict[str, Any], contexts: Sequence[dict[str, float]]) -> tuple[Call, Call]:
    """Give Thompson sampling as most write it, on the posterior of the same snapshot."""
    generator = np.random.default_rng(5)
    features = Features(spec())
    vectors = [features.vector(each).astype(np.float64) for each in contexts]
    mean, factor = _posterior(snapshot)
    covariance = [each.T @ each for each in factor]

    def fresh(number: int) -> int:
        x = vectors[number % CONTEXTS]
        drawn = [
            generator.multivariate_normal(centre, spread) @ x
            for centre, spread in zip(mean, covariance, strict=True)
        ]
        return int(np.argmax(drawn))

    def ready(number: int) -> int:
        normal = generator.standard_normal(mean.shape)
        weights = mean + np.einsum("kji,kj->ki", factor, normal)
        return int(np.argmax(weights @ vectors[number % CONTEXTS]))

    return fresh, ready


def _posterior(snapshot: dict[str, Any]) -> tuple[Floats, Floats]:
    """Give each action's mean, and F with covariance F'F."""
    arrays = {
        array["name"]: np.frombuffer(array["data"], "<f8").reshape(array["shape"])
        for array in snapshot["arrays"]
    }
    mean = arrays["mean"]
    count, dimension = mean.shape
    rows, at = np.tril_indices(dimension)
    factor = np.zeros((count, dimension, dimension))
    factor[:, rows, at] = arrays["factor"] * snapshot["parameters"]["exploration"]
    return mean, factor


def _publish(settings: Settings, snapshot: dict[str, Any]) -> None:
    topic = TopicNames(settings.topics.prefix).snapshots
    bandit, version = snapshot["bandit"], snapshot["version"]
    pointer = {"bandit": bandit, "version": version, "reason": "published"}
    producer = Producer(
        {**producer_config(settings), "log_level": 0}
    )  # a new broker makes it retry
    artifact = WIRE.dumps("snapshot", snapshot)
    producer.produce(topic, artifact, artifact_key(bandit, version), partition=0)
    producer.produce(
        topic, WIRE.dumps("snapshot_pointer", pointer), pointer_key(bandit), partition=0
    )
    assert producer.flush(30) == 0
