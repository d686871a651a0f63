"""Prometheus metrics of the front door, per model and version, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tunesmith_serving.reply import Answered

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds: upper ends of the histogram's buckets."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Examples of a pass."""
WHICH = ("model", "version")


class Metrics:
    """What is counted. A model's name stands only where there is such a model, so that strangers make no labels."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("tunesmith_requests", "Requests answered", ("route", "status", *WHICH), registry=self.registry)
        self.latency = Histogram(
            "tunesmith_request_seconds",
            "From a request's first byte to its answer",
            ("route", *WHICH),
            buckets=LATENCY,
            registry=self.registry,
        )
        self.examples = Counter("tunesmith_examples", "Examples answered", WHICH, registry=self.registry)
        self.batch = Histogram(
            "tunesmith_batch_size",
            "Examples of the passes that answered a request",
            WHICH,
            buckets=SIZES,
            registry=self.registry,
        )
        self.forward = Histogram(
            "tunesmith_forward_seconds",
            "Passes of the model that answered a request",
            WHICH,
            buckets=LATENCY,
            registry=self.registry,
        )
        self.waited = Histogram(
            "tunesmith_queue_seconds", "From an encoded request to its pass", WHICH, buckets=LATENCY, registry=self.registry
        )
        self.open = Gauge("tunesmith_queue", "Requests that are read, wait or are answered now", WHICH, registry=self.registry)
        self.refused = Counter(
            "tunesmith_refused", "Requests refused because the queue was full", WHICH, registry=self.registry
        )
        self.mirrored = Counter(
            "tunesmith_mirrored", "Requests that a version heard after another had answered", WHICH, registry=self.registry
        )
        self.mirror_dropped = Counter(
            "tunesmith_mirror_dropped", "Requests not mirrored: too many were under way", WHICH, registry=self.registry
        )
        self.mirror_failed = Counter(
            "tunesmith_mirror_failed", "Mirrored requests without an answer in time", WHICH, registry=self.registry
        )
        self.pairs = Counter(
            "tunesmith_pairs", "Examples that a new version and the old one answered", WHICH, registry=self.registry
        )
        self.agreements = Counter("tunesmith_agreements", "Those of them with the same answer", WHICH, registry=self.registry)

    def watch(self, model: str, version: str, depth: Callable[[], int]) -> None:
        """Show how many requests are open for a model, asked when it is looked at."""
        self.open.labels(model, version).set_function(depth)

    def forget(self, model: str, version: str) -> None:
        """Show no queue of a version that is not served any more; what it has done stays."""
        self.open.remove(model, version)

    def paired(self, model: str, version: str, examples: int, agreed: int) -> None:
        """Examples that both versions have answered; ``version`` is the new one."""
        self.pairs.labels(model, version).inc(examples)
        self.agreements.labels(model, version).inc(agreed)

    def answered(self, model: str, version: str, count: int, told: Answered) -> None:
        """One request's examples have their answers."""
        self.examples.labels(model, version).inc(count)
        self.waited.labels(model, version).observe(told.waited)
        for size, seconds in told.passes:
            self.batch.labels(model, version).observe(size)
            self.forward.labels(model, version).observe(seconds)

    def finished(self, route: str, status: int, model: str, version: str, seconds: float) -> None:
        """One request is over."""
        self.requests.labels(route, str(status), model, version).inc()
        self.latency.labels(route, model, version).observe(seconds)

    def text(self, shown: Callable[[str], bool] = lambda model: True) -> tuple[bytes, str]:
        """What Prometheus reads, and its content type; of the models that are ``shown``, and of requests for none."""
        return generate_latest(_Part(self.registry, shown)), CONTENT_TYPE_LATEST


class _Part(CollectorRegistry):
    """The registry without the models that are not shown."""

    def __init__(self, whole: CollectorRegistry, shown: Callable[[str], bool]) -> None:
        super().__init__()
        self._whole, self._shown = whole, shown

    def collect(self) -> Iterator[Metric]:
        """Each metric with the samples that are left of it."""
        for metric in self._whole.collect():
            metric.samples = [one for one in metric.samples if not one.labels.get("model") or self._shown(one.labels["model"])]
            yield metric
