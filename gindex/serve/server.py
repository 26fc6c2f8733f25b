"""Running a service: its socket, its signals, its end."""

import asyncio
import ipaddress
import os
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gindex.errors import ConfigError
from gindex.serve.config import ServeConfig
from gindex.serve.service import Service

DRAIN_SECONDS = 30
_FORCED = 1


def bind(config: ServeConfig) -> socket.socket:
    """Return a socket that listens where the settings say.

    Raises:
        ConfigError: The address is unknown, or the port is in use.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named, for asyncio turns TCP_NODELAY on only then; without it an answer can wait 40 ms for an acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((config.host, config.port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"--host and --port: expected a free port, found {error.strerror or error} at {config.host}:{config.port}; "
            "choose another one"
        ) from error
    return listening


def is_open(host: str) -> bool:
    """Say whether others than this machine can reach an address."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


class _Protocol(HttpToolsProtocol):
    """Closes a connection on which no request begins, or its headers do not end, in time."""

    seconds: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        self._expect_nothing()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._expect_nothing()
        self._timer = self.loop.call_later(self.seconds, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Server(uvicorn.Server):
    """A server that drains at the first signal and ends at the second."""

    def __init__(self, service: Service, app: FastAPI) -> None:
        """Prepare to run an application."""
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Protocol", (_Protocol,), {"seconds": service.config.body_seconds}),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=DRAIN_SECONDS,
                lifespan="on",
            )
        )
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain: not ready, no new connections, what was asked is answered. The second time: end at once."""
        if self.should_exit:
            os._exit(_FORCED)
        self._service.draining = self.should_exit = True  # uvicorn's own would raise the signal again at the end
