"""The settings of a service. Nothing is loaded here: the command line takes its defaults and help from these fields."""

from dataclasses import dataclass, fields
from typing import Any

from gindex.config import PERMISSIONS, ModelConfig, help_of, option
from gindex.errors import ConfigError

_MAY_BE_ZERO = ("window_ms", "rate", "port")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where a service listens, how it batches, and what it refuses."""

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 is open to the network.")
    port: int = option(8080, "Port to listen on; 0 takes a free one.")
    device: str = option("auto", "Device of the passes: auto, cpu, cuda, cuda:0, ...")
    trust_remote_code: bool = option(False, help_of(ModelConfig, "trust_remote_code"))
    allow_pickle: bool = option(False, help_of(ModelConfig, "allow_pickle"))
    batch: int = option(32, "Most queries in one gradient pass and one search.")
    window_ms: float = option(
        2.0,
        "Milliseconds a batch waits for more queries, where the one before was shared; longer where batches take long.",
    )
    queue: int = option(256, "Most queries that wait; one more is answered 429.")
    queue_seconds: float = option(10.0, "Longest wait in the queue.")
    gradient_seconds: float = option(30.0, "Longest gradient pass of a batch.")
    search_seconds: float = option(10.0, "Longest search of a batch.")
    slow_queue: int = option(16, "Most exact searches and explanations that wait; one more is answered 429.")
    slow_queue_seconds: float = option(600.0, "Longest wait of an exact search or explanation.")
    exact_seconds: float = option(
        120.0, "Longest exact re-rank or explanation, without the time in which it stands still for other searches."
    )
    body_seconds: float = option(20.0, "Longest time that a request's headers, and then its body, may take to arrive.")
    max_connections: int = option(
        512, "Most connections at once; beyond, the one that has been idle for longest is closed for a new one."
    )
    max_head: int = option(64 << 10, "Most bytes of a request's headers, its address included.")
    max_headers: int = option(100, "Most headers of a request.")
    reload_seconds: float = option(1.0, "How often the indexes are looked at for a new version.")
    max_body: int = option(16 << 20, "Most bytes of a request's body.")
    max_k: int = option(1000, "Most hits of a query, and most candidates of its stages.")
    max_queries: int = option(64, "Most queries of a request.")
    max_tokens: int = option(2048, "Most tokens of a query.")
    max_documents: int = option(1000, "Most documents added by a request.")
    rate: float = option(0.0, "Requests a second for each key, or each address without keys; 0 sets no limit.")

    @property
    def permissions(self) -> dict[str, Any]:
        """What models may do: arguments of `GradientIndex.open`."""
        return {name: getattr(self, name) for name in PERMISSIONS}

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, str | bool):
                continue
            if not (value >= 0 if each.name in _MAY_BE_ZERO else value > 0) or value == float("inf"):
                low = "from 0 on" if each.name in _MAY_BE_ZERO else "above 0"
                raise ConfigError(field=each.name, expected=f"a number {low}", found=value)
        if self.port > 65535:
            raise ConfigError(field="port", expected="a number from 0 to 65535", found=self.port)
