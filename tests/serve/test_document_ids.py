"""Any id that a build accepts is read and deleted over HTTP, and no other document ever is."""

import json
import shutil
import socket
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gindex import GradientIndex
from gindex.client import Client
from gindex.errors import UnknownDocumentError

IDS = [
    "doc-7", "doc-7\n", "doc-7\r\n", "\ndoc-7", "a\nb", "a", "a/b", "a/", "/a", "/", "//", ".", "..", "../a", "a/../b",
    "b", "a?b", "a#b", "a%b", "a%2Fb", "%", "%2F", "%25", "a b", " a", "a ", "a+b", "a&b=c", "a;b", "a\\b",
    'a"b', "a'b", "a\0b", "\0", "\t", "\x7f", "\u2028", "\u0085",
    "é", "e\u0301", "ﬁ", "K", "\u212a", "k", "日本", "\ufffd", "\ufeffa",
    "\U0001f600", "documents", "documents/a", "document", "delete", "a/documents/b", "x" * 300, "y" * 9000,
]  # fmt: skip
"""Ids that differ in what some layer of HTTP takes apart, tidies up, folds or cuts off."""


@pytest.fixture(scope="module")
def odd(tmp_path_factory, make_config):
    """Folder of an index over those ids; the text of each tells which it is."""
    folder = tmp_path_factory.mktemp("odd")
    corpus = folder / "odd.jsonl"
    lines = [json.dumps({"id": name, "text": f"the stack and heap {n}"}) for n, name in enumerate(IDS)]
    corpus.write_text("\n".join(lines) + "\n")
    GradientIndex.build([str(corpus)], folder / "index", make_config(fit_documents=10))
    return folder / "index"


@pytest.fixture(scope="module")
def running(start, odd):
    return start(f"index={odd}", prompts=False)


def by_hand(running, method: str, document: bytes) -> tuple[int, dict]:
    """Ask for a document with the bytes given as they are, which a library might tidy up."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
        client.sendall(
            method.encode() + b" /v1/indexes/index/documents/" + document
            + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )  # fmt: skip
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), json.loads(body)


def asked_every_way(running, name: str) -> list[str | None]:
    """Return the text of the document as each way to ask for it finds it, None where there is none."""
    found: list[str | None] = []
    with Client(f"{running.url}/index") as client:
        try:
            document = client.document(name)
            assert document["document_id"] == name
            found.append(document["text"])
        except UnknownDocumentError:
            found.append(None)
    for safe in ("", "/", "/:@!$&'()*+,;="):
        status, content = by_hand(running, "GET", quote(name, safe=safe).encode())
        assert status in (200, 404), content
        found.append(content["text"] if status == 200 else None)
        assert status == 404 or content["document_id"] == name
    return found


@pytest.mark.parametrize("name", IDS, ids=[repr(name)[:20] for name in IDS])
def test_every_id_is_read(running, name):
    assert set(asked_every_way(running, name)) == {f"the stack and heap {IDS.index(name)}"}


CHANGES = [
    str.strip,
    str.lower,
    str.upper,
    lambda name: name + "\n",
    lambda name: name + "/",
    lambda name: name + "\0",
    lambda name: name[:-1],
    lambda name: name.rstrip("/"),
    lambda name: name.split("\0")[0],
    lambda name: name.replace("+", " "),
    lambda name: quote(name, safe=""),
    lambda name: unicodedata.normalize("NFKC", name),
]


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.text("ab/.%#?\n\0 +", max_size=6),
        st.builds(lambda change, name: change(name), st.sampled_from(CHANGES), st.sampled_from(IDS)),
    )
)
def test_any_text_finds_its_own_document_or_none(running, name):
    expected = f"the stack and heap {IDS.index(name)}" if name in IDS else None
    assert set(asked_every_way(running, name)) == {expected}


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.one_of(
        st.binary(max_size=10),
        st.builds(lambda name, more: quote(name, safe="").encode() + more, st.sampled_from(IDS),
                  st.sampled_from([b"?", b"#", b"?a=b", b"#c", b"%", b"%f", b"%ff", b"%00", b"%0a", b"/.", b"/.."])),
    ).filter(lambda content: not set(content) & set(b" \r\n\t"))
)  # fmt: skip
def test_any_bytes_find_their_own_document_or_none(running, content):
    """Of what is not the address of a text, nothing is read."""
    from urllib.parse import unquote_to_bytes

    status, answer = by_hand(running, "GET", content)
    if status == 200:
        assert not set(content) & set(b"?#")
        assert unquote_to_bytes(content) == answer["document_id"].encode()
    else:
        assert 400 <= status < 500


def test_every_id_is_deleted_and_no_other(start, odd, tmp_path):
    """By the address and by the body in turn; each commit is a version, so a dozen of them."""
    folder = shutil.copytree(odd, tmp_path / "index")
    running, left = start(f"index={folder}", writable=True, prompts=False), set(IDS)
    with Client(f"{running.url}/index") as client:
        for number, name in enumerate(
            ["doc-7\n", "a/../b", "..", ".", "a?b", "a#b", "\0", "a%2Fb", "e\u0301", "y" * 9000]
        ):
            if number % 2:
                assert by_hand(running, "DELETE", quote(name, safe="").encode())[0] == 200
            else:
                client.delete(name)
            left.remove(name)
            assert set(running.service.indexes["index"].current.ids()) == left
        for name in ("doc-7\n\n", "nothing", "..\n", "%2E%2E"):
            with pytest.raises(UnknownDocumentError):
                client.delete(name)
        assert client.document("doc-7")["text"] == "the stack and heap 0"
        long = "z" * 200_000  # beyond any address
        client.add([{"id": long, "text": "the lock"}])
        assert client.document(long)["text"] == "the lock" and client.delete(long)
    assert set(running.service.indexes["index"].current.ids()) == left


def test_an_index_whose_name_has_a_slash_is_not_taken_for_another(running):
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
        client.sendall(
            b"GET /v1/indexes/index%2Fdocuments%2Fa/documents/b HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert b" 404 " in client.recv(100)
