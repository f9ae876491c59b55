"""The gateway's metrics for Prometheus: requests by route and status, and what is under way."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from processors.metrics import PREFIX

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class ApiMetrics:
    """What one gateway counts; labels are routes' patterns, never paths."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            f"{PREFIX}_http_requests",
            "requests answered",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            f"{PREFIX}_http_request_seconds",
            "time from a request to the end of its answer",
            ("method", "route"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.waiting = Gauge(
            f"{PREFIX}_http_commands_waiting",
            "commands whose outcomes are waited for",
            registry=self._registry,
        )
        self.reading = Gauge(
            f"{PREFIX}_http_reads",
            "reads under way and waiting for a connection",
            registry=self._registry,
        )

        self.sockets = Gauge(
            f"{PREFIX}_websockets", "WebSockets that are open", registry=self._registry
        )
        self._closed = Counter(
            f"{PREFIX}_websockets_closed",
            "WebSockets that ended, by close code; 0 is the other side",
            ("code",),
            registry=self._registry,
        )

    def closed(self, code: int) -> None:
        """One WebSocket less."""
        self._closed.labels(str(code)).inc()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request more."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self._registry)
