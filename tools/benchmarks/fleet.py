"""Clients that cost little: many connections in one process, raw sockets, requests made beforehand.

An HTTP library spends more on a request of 123 KB than a service may; here a client is a buffer to send and one to
receive into. Each asks again as soon as it is answered.
"""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BUFFER = 1 << 19


@dataclass
class Answers:
    """What a fleet saw: the seconds of each request within the time that counts, and every status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    processor: float = 0.0


class Client:
    """One connection that asks the same few requests in turn."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        """Connect."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.socket.setblocking(False)
        self._requests, self._turn = requests, 0

    def ask(self) -> None:
        """Begin the next request."""
        self.unsent = memoryview(self._requests[self._turn % len(self._requests)])
        self._turn += 1
        self._received, self._whole = bytearray(), 0
        self.began = time.perf_counter()
        self.send()

    def send(self) -> None:
        """Send what the socket takes."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass

    def receive(self) -> int:
        """Return the status once the answer is whole, 0 before."""
        block = self.socket.recv(BUFFER)
        if not block:
            raise ConnectionError("expected an answer, found the connection closed")
        self._received += block
        if not self._whole:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return 0
            head = bytes(self._received[:end]).lower()
            self._whole = end + 4 + int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(self._received[9:12]) if len(self._received) >= self._whole else 0


def request(path: str, kind: str, body: bytes) -> bytes:
    """Write a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def run(
    port: int, requests: Sequence[Sequence[bytes]], seconds: float, warm: float = 0.5,
    stopped: Callable[[], bool] = lambda: False,
) -> Answers:  # fmt: skip
    """Ask from one client for each list of requests; what begins in the warm-up is not timed."""
    found, spent = Answers(), time.process_time()
    selector = selectors.DefaultSelector()
    begin = time.perf_counter() + warm
    clients = [Client(port, each) for each in requests]
    for client in clients:
        client.ask()
        selector.register(client.socket, _interest(client), client)
    waiting, ending = len(clients), False
    while waiting:
        for key, events in selector.select(30) or _silent():
            client = key.data
            if events & selectors.EVENT_WRITE:
                client.send()
                if not client.unsent:
                    selector.modify(client.socket, selectors.EVENT_READ, client)
            if not events & selectors.EVENT_READ or not (status := client.receive()):
                continue
            now = time.perf_counter()
            found.statuses[status] += 1
            if begin <= client.began and now <= begin + seconds:
                found.seconds.append(now - client.began)
            ending = ending or now > begin + seconds or stopped()
            if ending:
                waiting -= 1
                selector.unregister(client.socket)
                client.socket.close()
                continue
            client.ask()
            if client.unsent:
                selector.modify(client.socket, _interest(client), client)
    found.processor = time.process_time() - spent
    return found


def _interest(client: Client) -> int:
    return selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)


def _silent() -> list[tuple[selectors.SelectorKey, int]]:
    raise TimeoutError("expected an answer within 30 s, found none")
