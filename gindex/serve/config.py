"""The settings of a service, with their defaults and help, of which the command line makes its options."""

from dataclasses import dataclass
from typing import Any

from gindex.config import PERMISSIONS, ModelConfig
from gindex.options import Settings, as_in, option

ADDRESS, BATCHES, LIMITS = "address", "batches and waits", "limits of a request"
MODEL = "model and device"
"""Headings that options are shown under."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig(Settings):
    """Where a service listens, how it batches, and what it refuses."""

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 is open to the network.", group=ADDRESS)
    port: int = option(8080, "Port to listen on; 0 takes a free one.", group=ADDRESS, least=0, most=65535)
    device: str = as_in(ModelConfig, "device", group=MODEL)
    trust_remote_code: bool = as_in(ModelConfig, "trust_remote_code", group=MODEL)
    allow_pickle: bool = as_in(ModelConfig, "allow_pickle", group=MODEL)
    batch: int = option(
        32, "Most queries of a batch, which has one gradient pass and one search.", group=BATCHES, least=1
    )
    window_ms: float = option(
        2.0,
        "Milliseconds that a batch waits for more queries while several clients ask; longer if batches take long.",
        group=BATCHES,
        least=0,
    )
    queue: int = option(
        256, "Most queries that wait; further ones are answered with status 429.", group=BATCHES, least=1
    )
    queue_seconds: float = option(10.0, "Longest wait of a query in the queue.", group=BATCHES, above=0)
    gradient_seconds: float = option(30.0, "Longest gradient pass of a batch.", group=BATCHES, above=0)
    search_seconds: float = option(10.0, "Longest search of a batch.", group=BATCHES, above=0)
    slow_queue: int = option(
        16,
        "Most exact searches, searches that score all documents, and explanations that wait; further ones are answered "
        "with status 429.",
        group=BATCHES,
        least=1,
    )
    slow_queue_seconds: float = option(600.0, "Longest wait of an exact search or explanation.", group=BATCHES, above=0)
    exact_seconds: float = option(
        120.0,
        "Longest exact re-rank or explanation, without the time in which it pauses for other searches.",
        group=BATCHES,
        above=0,
    )
    body_seconds: float = option(
        20.0,
        "Longest time that a request's headers, and then its body, may take to arrive.",
        group=LIMITS,
        above=0,
    )
    max_connections: int = option(
        512,
        "Most connections at once; a further one takes the place of the one that has been idle for longest.",
        group=LIMITS,
        least=1,
    )
    max_head: int = option(64 << 10, "Most bytes of a request's headers, the address included.", group=LIMITS, least=1)
    max_headers: int = option(100, "Most headers of a request.", group=LIMITS, least=1)
    reload_seconds: float = option(
        1.0, "Time between two checks of the indexes for a new version.", group=BATCHES, above=0
    )
    max_body: int = option(16 << 20, "Most bytes of a request's body.", group=LIMITS, least=1)
    max_k: int = option(1000, "Most hits of a query, and most candidates of each of its stages.", group=LIMITS, least=1)
    max_queries: int = option(
        64,
        "Most queries of a request, each of a set and each contrast counted.",
        group=LIMITS,
        least=1,
    )
    max_tokens: int = option(2048, "Most tokens of a text of a query.", group=LIMITS, least=1)
    max_documents: int = option(1000, "Most documents added by a request.", group=LIMITS, least=1)
    rate: float | None = option(
        None,
        "Requests a second of each key, or of each address where there are no keys.",
        group=LIMITS,
        above=0,
        unset="no limit",
    )

    @property
    def permissions(self) -> dict[str, Any]:
        """The permissions of models, as arguments of `GradientIndex.open`."""
        return {name: getattr(self, name) for name in PERMISSIONS}
