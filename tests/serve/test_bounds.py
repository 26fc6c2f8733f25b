"""What callers may do to a service before it knows them, and that none of it keeps others from being answered."""

import json
import socket
import time

import httpx2
import pytest

from gindex.client import Client
from gindex.errors import ConfigError, FilterError
from gindex.http.loopback import is_loopback
from gindex.serve.hosts import Hosts
from gindex.serve.indexes import is_shortage
from gindex.serve.problems import RefusedError

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/indexes/index/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = {"prompt": "the compiler race", "k": 3}


@pytest.fixture(scope="module")
def small(start, built):
    """A service with small limits."""
    return start(f"index={built}", prompts=False, max_head=4096, max_headers=20, max_connections=8, body_seconds=2.0)


def connected(running) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", running.port))
    client.settimeout(30)
    return client


def received(client: socket.socket) -> bytes:
    """Everything until the other end closes; a reset is an end too."""
    found = b""
    try:
        while block := client.recv(65536):
            found += block
    except ConnectionError:
        pass
    return found


def answer(client: socket.socket) -> bytes:
    """The next answer, byte by byte, so that nothing of the one behind it is lost."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        block = client.recv(1)
        assert block, head
        head += block
    length, body = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]), b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return head + body


def pushed(client: socket.socket, block: bytes, most: int) -> int:
    """Send blocks until the other end has closed, or `most` bytes; return how many were taken."""
    sent = 0
    try:
        while sent < most:
            client.sendall(block)
            sent += len(block)
            time.sleep(0.001)
    except ConnectionError:
        pass
    return sent


ENDLESS = {
    "header": GET + b"X-A: ",
    "name of a header": GET + b"X",
    "address": b"GET /livez?",
    "line breaks": b"",
    "trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-A: ",
    "size of a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n1;a=",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_never_ends_is_cut_off(small, kind):
    block = b"\r\n" * 512 if kind == "line breaks" else b"a" * 1024
    with connected(small) as client:
        client.sendall(ENDLESS[kind])
        # What the sockets of both ends hold is some megabytes at most.
        assert pushed(client, block, 64 << 20) < 16 << 20
    assert small.http.get("/livez").status_code == 200


def test_long_headers_and_many_headers_are_refused_by_name(small):
    for head, words in (
        (GET + b"X-A: " + b"a" * 5000 + b"\r\n\r\n", b"at most 4096 bytes"),
        (GET + b"".join(b"X-%d: a\r\n" % n for n in range(30)) + b"\r\n", b"at most 20 headers"),
    ):
        with connected(small) as client:
            client.sendall(head)
            found = received(client)
        assert found.startswith(b"HTTP/1.1 431 ") and b"application/problem+json" in found and words in found
    with connected(small) as client:  # within both limits
        client.sendall(GET + b"X-A: " + b"a" * 3000 + b"\r\nConnection: close\r\n\r\n")
        assert received(client).startswith(b"HTTP/1.1 200 ")


def test_limits_hold_for_each_request_of_a_connection(small):
    with connected(small) as client:
        for _ in range(5):  # together far above the limit of one
            client.sendall(GET + b"X-A: " + b"a" * 3000 + b"\r\n\r\n")
            assert answer(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"".join(GET + b"\r\n" for _ in range(200)))  # at once, in one piece
        for _ in range(200):
            assert answer(client).startswith(b"HTTP/1.1 200 ")


def test_requests_that_come_ahead_of_an_answer_are_not_cut_off(start, built, monkeypatch):
    """Several on one connection, the first of which takes longer than headers may."""
    running = start(f"index={built}", prompts=False, body_seconds=0.5)
    index = running.service.indexes["index"].current
    quick = index.document
    monkeypatch.setattr(index, "document", lambda name: (time.sleep(1.5), quick(name))[1])
    slow = b"GET /v1/indexes/index/documents/d1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(running) as client:
        client.sendall(slow + slow + GET + b"\r\n")
        for _ in range(3):
            assert answer(client).startswith(b"HTTP/1.1 200 ")


def test_what_is_no_request_is_a_problem(small):
    with connected(small) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        found = received(client)
    assert found.startswith(b"HTTP/1.1 400 ") and b"urn:gindex:RequestError" in found


def test_a_body_that_goes_on_after_its_answer_ends(start, built):
    keys = "reader read " + "r" * 16
    running = start(f"index={built}", prompts=False, keys=keys, max_body=1 << 20, body_seconds=1.0)
    with connected(running) as client:  # refused without a key, before the body
        client.sendall(POST + b"Content-Length: 1000000000\r\n\r\n")
        assert answer(client).startswith(b"HTTP/1.1 401 ")
        assert pushed(client, b"a" * 65536, 64 << 20) < 32 << 20
    with connected(running) as client:  # and slowly
        client.sendall(POST + b"Content-Length: 1000000000\r\n\r\n")
        assert answer(client).startswith(b"HTTP/1.1 401 ")
        assert received(client) == b""


def test_a_body_of_a_byte_too_much_leaves_the_connection(start, built):
    """The client has its answer and no word of an end, so its next request comes on the same connection."""
    running = start(f"index={built}", prompts=False, max_body=1 << 20)
    with connected(running) as client:
        for _ in range(2):
            client.sendall(POST + b"Content-Length: 1048577\r\n\r\n")
            assert answer(client).startswith(b"HTTP/1.1 413 ")
            client.sendall(b"a" * 1048577)
            time.sleep(0.2)  # until the service has seen the last byte


def test_idle_connections_make_room_the_longest_first(small):
    idle = [connected(small) for _ in range(8)]
    for client in idle:
        client.sendall(GET)  # its headers do not end
    time.sleep(0.2)
    for _ in range(3):
        assert httpx2.get(f"{small.url}/livez").status_code == 200
    assert received(idle[0]) == b""
    for client in idle:
        client.close()


def test_many_endless_headers_leave_others_alone(served):
    """A count, no time: with the limit away the service took megabytes of each."""
    clients = [connected(served) for _ in range(8)]
    for client in clients:
        client.sendall(GET + b"X-A: ")
        assert pushed(client, b"a" * (1 << 16), 1 << 30) < 32 << 20
        client.close()
    assert served.http.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("host", "listens", "allowed", "taken"),
    [
        ("localhost", "127.0.0.1", (), True),
        ("LocalHost:8080", "127.0.0.1", (), True),
        ("127.0.0.1:1", "127.0.0.1", (), True),
        ("127.9.9.9", "127.0.0.1", (), True),
        ("[::1]:8080", "::1", (), True),
        ("rebind.example", "127.0.0.1", (), False),
        ("rebind.example:8080", "127.0.0.1", ("gindex.example",), False),
        ("localhost.rebind.example", "127.0.0.1", (), False),
        ("127.0.0.1.rebind.example", "127.0.0.1", (), False),
        ("localhost@rebind.example", "127.0.0.1", (), False),
        ("localhost/", "127.0.0.1", (), False),
        ("", "127.0.0.1", (), False),
        ("gindex.example", "127.0.0.1", ("gindex.example",), True),
        ("GINDEX.example:443", "127.0.0.1", ("Gindex.Example",), True),
        ("anything.example", "0.0.0.0", (), True),
        ("anything.example", "0.0.0.0", ("gindex.example",), False),
        ("gindex.example", "0.0.0.0", ("gindex.example",), True),
        ("localhost", "0.0.0.0", ("gindex.example",), True),
        ("192.0.2.7:80", "192.0.2.7", ("gindex.example",), True),
        ("[2001:db8::7]", "2001:db8::7", ("gindex.example",), True),
    ],
)
def test_hosts(host, listens, allowed, taken):
    hosts = Hosts(listens, allowed)
    if taken:
        hosts.check([(b"host", host.encode())], b"/livez")
    else:
        with pytest.raises(RefusedError) as caught:
            hosts.check([(b"host", host.encode())], b"/livez")
        assert caught.value.status == 421
    if listens != "0.0.0.0" or allowed:
        for headers in ([], [(b"host", b"localhost"), (b"host", b"localhost")]):
            with pytest.raises(RefusedError):
                hosts.check(headers, b"/livez")


def test_bad_names_of_hosts():
    for bad in ("a b", "http://x", "x/y", "x:80", ""):
        with pytest.raises(ConfigError, match="allowed_host"):
            Hosts("127.0.0.1", (bad,))


def test_a_rebound_name_changes_nothing(start, folder):
    running = start(f"index={folder}", writable=True, prompts=False)
    url, headers = "/v1/indexes/index/documents/d1", {"Host": "rebind.example"}
    for method in ("DELETE", "GET", "HEAD", "POST"):
        refused = running.http.request(method, url, headers=headers)
        assert refused.status_code == 421 and refused.headers["content-type"] == "application/problem+json"
        assert method == "HEAD" or "with `allowed_host`" in refused.json()["detail"]
    assert running.http.get(url).status_code == 200 and running.service.indexes["index"].current.manifest.version == 1


@pytest.mark.parametrize("address", ["evil.example", "evil.example:80", "localhost@evil.example", "user@localhost"])
def test_a_target_with_another_host_changes_nothing(start, folder, address):
    """The host in an absolute target counts, whatever the `Host` header beside it says."""
    running = start(f"index={folder}", writable=True, prompts=False)
    for method in (b"DELETE", b"GET"):
        with connected(running) as client:
            client.sendall(
                method + b" http://" + address.encode() + b"/v1/indexes/index/documents/d1 HTTP/1.1\r\n"
                b"Host: localhost\r\nConnection: close\r\n\r\n"
            )
            head = received(client)
        assert head.split(b" ", 2)[1] == b"421"
    assert running.service.indexes["index"].current.manifest.version == 1


def test_a_target_with_the_host_of_the_service_is_answered(start, folder):
    running = start(f"index={folder}", writable=True, prompts=False)
    for method, status in ((b"GET", b"200"), (b"DELETE", b"200"), (b"GET", b"404")):
        with connected(running) as client:
            address = f"http://127.0.0.1:{running.port}/v1/indexes/index/documents/d1".encode()
            client.sendall(method + b" " + address + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert received(client).split(b" ", 2)[1] == status


def test_head_answers_as_get_without_a_body(served):
    for path in ("/", "/livez", "/readyz", "/version", "/metrics", "/docs", "/openapi.json", "/v1/indexes",
                 "/v1/indexes/index", "/v1/indexes/index/documents/d1", "/v1/indexes/other", "/nowhere"):  # fmt: skip
        head, get = served.http.head(path), served.http.get(path)
        assert head.status_code == get.status_code and head.content == b"", path
        assert head.headers["content-type"] == get.headers["content-type"]
        if path != "/metrics":  # which counts itself
            assert head.headers["content-length"] == get.headers["content-length"]
    assert served.http.head("/v1/indexes/index/search").status_code == 405
    assert 'method="HEAD",route="/livez",status="200"' in served.http.get("/metrics").text


@pytest.mark.parametrize(
    "where",
    [
        "id like '" + "a" * 50_001 + "'",
        " and ".join(["number > 1"] * 5000),
        "(" * 3000 + "number > 1" + ")" * 3000,
        " or ".join(f"number = {n}" for n in range(20_000)),
        f"number in ({', '.join(map(str, range(20_000)))})",
        "not " * 3000 + "number > 1",
        "number > 1e999999",
        "number = " + "9" * 5000,
    ],
    ids=["pattern", "and", "depth", "or", "in", "not", "exponent", "digits"],
)
def test_no_filter_makes_an_index_unready(served, where):
    bad = served.search(BODY | {"where": where})
    assert bad.status_code in (200, 422), bad.text
    if bad.status_code == 422:
        assert bad.json()["type"] in ("urn:gindex:FilterError", "urn:gindex:ConfigError")  # the latter of its length
    assert served.search(BODY).status_code == 200
    assert served.http.get("/readyz").json() == {"status": "ready", "indexes": {"index": True}}


def test_the_pattern_of_the_report_is_refused(served):
    bad = served.search(BODY | {"where": "id like '" + "a" * 50_001 + "'"})
    assert bad.status_code == 422 and bad.json()["type"] == "urn:gindex:FilterError"
    with Client(f"{served.url}/index") as client, pytest.raises(FilterError):
        client.search("the heap", where="id like '" + "a" * 50_001 + "'")


def test_a_filter_that_takes_too_long_is_ended(start, built):
    running = start(f"index={built}", prompts=False)
    documents = running.service.indexes["index"].current.snapshot.documents
    assert documents.most_seconds == running.service.config.search_seconds
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n WHERE ?1 <> ''"
    documents.most_seconds = 0.2
    with pytest.raises(FilterError, match="too long"):
        documents.rows(endless, ("x",))
    assert documents.rows("SELECT COUNT(*) FROM documents") == [(150,)]
    documents.most_seconds = None


def test_connections_leave_files_to_the_indexes(monkeypatch):
    import resource

    from gindex.serve.config import ServeConfig
    from gindex.serve.http_server import _within_files

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, 4096))
    assert _within_files(ServeConfig(max_connections=512)).max_connections == 128
    assert _within_files(ServeConfig(max_connections=100)).max_connections == 100


def test_shortages_are_no_damage():
    import errno

    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC):
        error = ValueError("x")
        error.__cause__ = OSError(number, "x")
        assert is_shortage(OSError(number, "x")) and is_shortage(error)
    assert is_shortage(MemoryError())
    assert not is_shortage(OSError(errno.EIO, "x")) and not is_shortage(OSError(errno.ENOENT, "x"))
    assert not is_shortage(ValueError("x"))


def test_loopback_names():
    for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "localhost.example", "10.0.0.1", "128.0.0.1", "example", ""):
        assert not is_loopback(host)


def test_no_proxy_leads_to_this_machine(served, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for host in ("127.0.0.1", "localhost"):
        with Client(f"http://{host}:{served.port}/index", retries=0) as client:
            assert client.info()["ready"]
    assert Client("http://gindex.example/index")._endpoint.through_proxies


def test_problems_of_the_parser_are_json(small):
    with connected(small) as client:
        client.sendall(b"GET /livez#fragment HTTP/1.1\r\nHost: localhost\r\n\r\n")
        found = received(client)
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["status"] == 400
