"""HTTP/1.1 on a connection, with bounds that hold before the client is known.

The parser keeps a header of any length, and takes longer for each piece of it. So it gets its bytes piece by piece:
when a whole limit of them has brought neither the end of the headers nor a piece of a body, the connection ends.
"""

import asyncio
import re
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gindex.serve.config import ServeConfig
from gindex.serve.problems import RETRY_SECONDS, problem

TARGET = "gindex.target"
"""Key of the scope under which a request's target is, as it was sent."""

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)

_TOO_LARGE, _TOO_MANY = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, HTTPStatus.SERVICE_UNAVAILABLE


class _RefusedHeadError(Exception):
    """Ends the parser's work."""


class HttpProtocol(HttpToolsProtocol):
    """One connection. Subclasses name the settings."""

    settings: ServeConfig
    idle: "dict[HttpProtocol, None]"
    """Connections without a request whose headers are complete, the longest idle first."""

    _timer: asyncio.TimerHandle | None = None
    _refusal: tuple[int, str] | None = None
    _since_step = 0  # bytes since the end of the last headers or piece of a body
    _discarded = 0  # bytes of a body after its answer; much ends the connection, unless the body ends first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; where there are too many, close the one that has been idle for longest."""
        super().connection_made(transport)
        self.idle[self] = None
        self._expect()
        if len(self.connections) > self.settings.max_connections and not self._make_room():
            self._refuse(_TOO_MANY, f"expected at most {self.settings.max_connections} connections; try again")

    def data_received(self, data: bytes) -> None:
        """Give the parser the received bytes, one limit's worth at a time."""
        most = self.settings.max_head
        while data and not self.transport.is_closing():
            piece, data = data[: most - self._since_step], data[most - self._since_step :]
            self._since_step += len(piece)
            super().data_received(piece)
            if self._discarded > self.settings.max_body:
                self.transport.close()
            if self._since_step >= most and not self.transport.is_closing():
                self._refuse(_TOO_LARGE, f"expected at most {most} bytes of headers, found more")

    def on_message_begin(self) -> None:
        """Expect the headers in time."""
        super().on_message_begin()
        if not self._answering:
            self.idle.setdefault(self)
        self._discarded = 0
        self._expect()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(name, value)
        if len(self.headers) > self.settings.max_headers:
            self._refusal = _TOO_LARGE, f"expected at most {self.settings.max_headers} headers, found more"
            raise _RefusedHeadError

    def on_headers_complete(self) -> None:
        """Begin to answer a request."""
        self._expect_nothing()
        self._since_step = 0
        self.idle.pop(self, None)
        if b"#" in self.url:  # the parser would cut it off with what follows, and another document would be the answer
            self._refusal = HTTPStatus.BAD_REQUEST, "expected # in an address as %23, found it as it is"
            raise _RefusedHeadError
        cast(dict[str, Any], self.scope)[TARGET] = self.url
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; what comes after the answer is dropped."""
        self._since_step = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._discarded += len(body)

    def on_message_complete(self) -> None:
        """End a request, whose answer may be under way; the connection is kept, whatever was dropped."""
        self._since_step = self._discarded = 0
        super().on_message_complete()
        self._expect_nothing()
        if not self._answering:
            self.idle.setdefault(self)

    def on_response_complete(self) -> None:
        """Expect the rest of a body that was answered before its end, in time."""
        super().on_response_complete()
        if self._answering or self.transport.is_closing():
            return
        self.idle.setdefault(self)
        if self.cycle.more_body:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.idle.pop(self, None)
        self._expect_nothing()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, or a request that was refused while it was read."""
        self._answer(
            *(self._refusal or (HTTPStatus.BAD_REQUEST, "expected a request of HTTP/1.1, found something else"))
        )

    @property
    def _answering(self) -> bool:
        """Whether the last request whose headers are complete is still to be answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest; False where that is this one."""
        longest = next(iter(self.idle))
        if longest is not self:
            del self.idle[longest]
            longest.transport.abort()
        return longest is not self

    def _refuse(self, status: int, detail: str) -> None:
        if self._answering:
            self.transport.close()
        else:
            self._answer(status, detail)

    def _answer(self, status: int, detail: str) -> None:
        retry = {"Retry-After": str(RETRY_SECONDS)} if status == _TOO_MANY else {}
        name = "OverloadedError" if status == _TOO_MANY else "RequestError"
        response = problem(int(status), name, detail, {"Connection": "close"} | retry)
        head = [f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}".encode()]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()

    def _expect(self) -> None:
        self._expect_nothing()
        self._timer = self.loop.call_later(self.settings.body_seconds, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """Split a request's target into its host with the port, None where it begins with the path, and the rest.

    A target in absolute form, as in `GET http://host/path HTTP/1.1`, is what clients send to a proxy, and a server has
    to take it too (RFC 9112, section 3.2.2).
    """
    match = _ABSOLUTE.fullmatch(target)
    return (None, target) if match is None else (match[1], match[2])


def protocol_of(settings: ServeConfig) -> type[HttpProtocol]:
    """Return the protocol with its settings, as uvicorn takes it."""
    return type("HttpProtocol", (HttpProtocol,), {"settings": settings, "idle": {}})
