"""Running a service: its socket, its signals, its end."""

import logging
import os
import resource
import socket
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gindex.errors import ConfigError
from gindex.serve.config import ServeConfig
from gindex.serve.protocol import protocol_of
from gindex.serve.service import Service

logger = logging.getLogger("gindex.serve")

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
            field="host and port",
            expected="a free port",
            found=f"{error.strerror or error} at {config.host}:{config.port}",
            remedy="choose another one",
        ) from error
    return listening


def _within_files(config: ServeConfig) -> ServeConfig:
    """Leave half of the files that the process may open to the indexes: connections are files too."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or config.max_connections <= most // 2:
        return config
    logger.warning("max_connections: %d, half of the files that the process may open (ulimit -n)", most // 2)
    return replace(config, max_connections=most // 2)


class Server(uvicorn.Server):
    """A server that drains at the first signal and ends at the second."""

    def __init__(self, service: Service, app: FastAPI) -> None:
        """Prepare to run an application."""
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol_of(_within_files(service.config)),
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
