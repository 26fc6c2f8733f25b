"""Keys, scopes, rates, headers, and what is refused at the start."""

import pytest

from gindex.errors import AccessError, ConfigError, OverloadedError
from gindex.serve.config import ServeConfig
from gindex.serve.indexes import index_locations
from gindex.serve.keys import Keys, RateLimit, bearer
from gindex.serve.operation_routes import PAGE

READ, WRITE = "r" * 16, "w" * 20
KEYS = f"# keys\nreader read {READ}\n\nwriter read,write {WRITE}\nblind write {'b' * 16}\n"


@pytest.fixture(scope="module")
def guarded(start, built):
    return start(f"index={built}", keys=KEYS, rate=1000)


@pytest.mark.parametrize("path", ["/v1/indexes", "/v1/indexes/index", "/v1/indexes/index/documents/d1", "/metrics"])
def test_keys(guarded, path):
    def get(**headers):
        return guarded.http.get(path, headers=headers)

    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": "wrong"}, {"Authorization": READ},
                    {"Authorization": f"Basic {READ}"}, {"Authorization": f"Bearer {READ}x"},
                    {"Authorization": b"Bearer \xff\xfe"}):  # fmt: skip
        refused = get(**headers)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer", headers
        assert refused.json()["type"] == "urn:gindex:AccessError"
    assert get(Authorization=f"Bearer {READ}").status_code == 200
    assert get(**{"X-Api-Key": WRITE}).status_code == 200
    assert get(**{"X-Api-Key": "b" * 16}).status_code == 403


def test_what_needs_no_key(guarded):
    for path in ("/livez", "/readyz", "/version", "/", "/openapi.json"):
        assert guarded.http.get(path).status_code == 200


def test_scopes(start, folder):
    running = start(f"index={folder}", keys=KEYS, writable=True)
    body = {"documents": [{"id": "n", "text": "the stack and the heap"}]}
    url = "/v1/indexes/index/documents"
    assert running.http.post(url, json=body).status_code == 401
    assert running.http.post(url, json=body, headers={"X-Api-Key": READ}).status_code == 403
    assert running.http.post(url, json=body, headers={"X-Api-Key": WRITE}).status_code == 201


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "expected at least one API key"),
        ("reader read short", ":1: expected a name"),
        (f"reader all {READ}", ":1: expected a name"),
        (f"reader {READ}", ":1: expected a name"),
    ],
)
def test_bad_key_files(tmp_path, line, words):
    path = tmp_path / "keys.txt"
    path.write_text(line)
    with pytest.raises(ConfigError, match=words) as caught:
        Keys.read(path)
    assert READ not in str(caught.value)
    with pytest.raises(ConfigError, match="a file of API keys"):
        Keys.read(tmp_path / "missing")


def test_keys_are_compared_whole(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text(KEYS)
    keys = Keys.read(path)
    assert keys.caller(READ).name == "reader" and keys.caller(WRITE).scopes == {"read", "write"}
    for wrong in (None, "", READ[:-1], READ + "r", READ.upper()):
        with pytest.raises(AccessError):
            keys.caller(wrong)
    assert bearer(f"bearer  {READ}") == READ and bearer("Bearer") is bearer(None) is None


def test_rates():
    now = [0.0]
    limit = RateLimit(2, lambda: now[0])
    for _ in range(4):
        limit.take("a")
    with pytest.raises(OverloadedError, match="2 requests a second"):
        limit.take("a")
    limit.take("b")
    now[0] += 0.5
    limit.take("a")
    with pytest.raises(OverloadedError):
        limit.take("a")


def test_headers_of_every_answer(served):
    for path in ("/", "/page/page.js", "/docs", "/v1/indexes", "/nowhere"):
        headers = served.http.get(path, headers={"Origin": "http://evil.example"}).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers and "server" not in headers


def test_the_page_loads_nothing_from_elsewhere(served):
    for name in PAGE:
        text = served.http.get(f"/page/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text and "innerHTML" not in text and "@import" not in text


def test_places():
    (one, two) = index_locations(["runs/a", "b=runs/a"])
    assert (one.name, two.name) == ("a", "b") and one.path == two.path
    for bad in (["runs/a", "a=x"], ["a b=x"], ["../=x"], ["=x"]):
        with pytest.raises(ConfigError):
            index_locations(bad)
    with_models = index_locations(["runs/a", "b=runs/b"], ["b=m/b", "m/all=1"])
    assert [place.model for place in with_models] == ["m/all=1", "m/b"]
    assert [place.model for place in index_locations(["runs/a"])] == [None]
    for twice in (["m", "n"], ["a=m", "a=n"]):
        with pytest.raises(ConfigError, match="expected one place for each index"):
            index_locations(["runs/a"], twice)


@pytest.mark.parametrize("change", [{"port": 70000}, {"batch": 0}, {"max_k": -1}, {"queue_seconds": float("nan")}])
def test_bad_settings(change):
    with pytest.raises(ConfigError):
        ServeConfig(**change)
