"""Metrics of a service, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


class Metrics:
    """Counters of one service."""

    def __init__(self) -> None:
        """Start from zero."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gindex_requests", "Requests by route, method and status.", ["route", "method", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "gindex_stage_seconds", "Time of each stage of a request.", ["stage"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "gindex_batch_queries", "Queries of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=self.registry
        )
        self.dropped = Counter("gindex_dropped", "Queries that were not answered.", ["reason"], registry=self.registry)
        self.depth = Gauge("gindex_queue_depth", "Queries that wait.", registry=self.registry)
        self.slow_depth = Gauge(
            "gindex_slow_queue_depth", "Exact searches and explanations that wait.", registry=self.registry
        )
        self.version = Gauge("gindex_index_version", "Version served.", ["index"], registry=self.registry)
        self.ready = Gauge("gindex_index_ready", "1 where the index answers.", ["index"], registry=self.registry)
        self.recall = Gauge(
            "gindex_index_recall", "Recall of the search index, recorded at its build.", ["index", "at"],
            registry=self.registry,
        )  # fmt: skip
        self.reloads = Counter("gindex_reloads", "Versions switched to.", ["index"], registry=self.registry)

    def text(self) -> bytes:
        """Return all of them as Prometheus reads them."""
        return generate_latest(self.registry)
