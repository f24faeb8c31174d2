"""What Prometheus reads of the service."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pirn_jax.report.schema import Document

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Measures:
    """Counters and histograms of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._verdicts = Counter(
            "pirn_verdicts", "Parts judged, by outcome.", ["outcome"], registry=self._registry
        )
        self._refused = Counter(
            "pirn_refused", "Requests refused, by HTTP status.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "pirn_request_seconds",
            "From the queue to the verdict on disk.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._call = Histogram(
            "pirn_judge_seconds", "A call of the judge.", buckets=_SECONDS, registry=self._registry
        )
        self._size = Histogram(
            "pirn_batch_size", "Parts a call.", buckets=(1, 2, 4, 8, 16), registry=self._registry
        )

    def watch(self, waiting: Callable[[], int], undelivered: Callable[[], dict[str, int]]) -> None:
        """Ask these whenever somebody reads."""

        class Gauges(Collector):
            def collect(self):
                queue = GaugeMetricFamily("pirn_queue_parts", "Parts that wait to be judged.")
                queue.add_metric([], waiting())
                behind = GaugeMetricFamily(
                    "pirn_undelivered", "Records that a sink has not taken yet.", labels=["sink"]
                )
                for sink, count in undelivered().items():
                    behind.add_metric([sink], count)
                return [queue, behind]

        self._registry.register(Gauges())

    def judged(self, parts: int, seconds: float) -> None:
        """A call of the judge."""
        self._size.observe(parts)
        self._call.observe(seconds)

    def finished(self, record: Document, seconds: float) -> None:
        """A part has its record."""
        outcome = {None: "unjudged", 0: "ok", 1: "not_ok"}[record.get("label")]
        self._verdicts.labels("error" if "error" in record else outcome).inc()
        self._seconds.observe(seconds)

    def refused(self, status: int) -> None:
        """A request was not accepted."""
        self._refused.labels(str(status)).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self._registry)
