"""Metrics: what a server tells Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from es4r_toolkit.serving.desk import Desk

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0)


class Metrics:
    """Figures of one server.

    Arguments
    ---------
    desk : Desk

    Example
    -------
    >>> from es4r_toolkit.serving.limits import Limits
    >>> metrics = Metrics(Desk(Limits()))
    >>> metrics.count("POST", "/v1/replies", 503, "busy")
    >>> 'es4r_rejected_total{reason="busy"} 1.0' in metrics.text().decode()
    True
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, desk: Desk):
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        own = {"registry": self._registry}
        self._requests = Counter("es4r_requests", "Requests that were answered.", ["method", "route", "status"], **own)
        self._rejected = Counter("es4r_rejected", "Requests that got no reply, by reason.", ["reason"], **own)
        self.first_audio = Histogram(
            "es4r_first_audio_seconds", "From the whole request to the reply's first sound.", buckets=SECONDS, **own
        )
        self.in_flight = Gauge("es4r_in_flight", "Requests under way.", **own)
        waiting = Gauge("es4r_waiting", "Requests for a reply that wait or send their bodies.", **own)
        waiting.set_function(lambda: desk.waiting)

    def count(self, method: str, route: str, status: int, reason: str | None) -> None:
        """A request that was answered, and why it got nothing where it did not."""
        self._requests.labels(method, route, str(status)).inc()
        if reason is not None:
            self._rejected.labels(reason).inc()

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)
