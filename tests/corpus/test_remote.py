"""Files in stores and at web addresses: real servers on this machine, and fsspec's store in memory."""

import gzip
import json
import logging
import os
import sys
import threading
import traceback
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from gindex.config import CorpusConfig
from gindex.corpus import packages, remote
from gindex.corpus.fingerprints import check_unchanged, fingerprint_sources
from gindex.corpus.readers import read_corpus
from gindex.corpus.records import Document
from gindex.corpus.remote import shown_address
from gindex.distribution import install_hint
from gindex.errors import CorpusChangedError, CorpusError, MissingDependencyError

LINES = b'{"text": "one"}\n{"text": "two"}\n'


def parquet(*texts: str) -> bytes:
    sink = BytesIO()
    pq.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue()


def arrow(*texts: str) -> bytes:
    sink = BytesIO()
    table = pa.table({"text": texts})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


FILES = {
    "a.jsonl": (LINES, ["one", "two"]),
    "b.jsonl.gz": (gzip.compress(LINES), ["one", "two"]),
    "c.csv": (b"text\nthree\n", ["three"]),
    "d.json": (json.dumps([{"text": "four"}]).encode(), ["four"]),
    "e.parquet": (parquet("five", "six"), ["five", "six"]),
    "f.arrow": (arrow("seven"), ["seven"]),
    "g.txt": (b"eight", ["eight"]),
    "lang=de/h.tsv": (b"text\nneun\n", ["neun"]),
}
TEXTS = [text for _, texts in FILES.values() for text in texts]


def read(*sources: str) -> list[Document]:
    return list(read_corpus(sources, CorpusConfig()))


def error_of(*sources: str) -> str:
    with pytest.raises(CorpusError) as caught:
        read(*sources)
    message = str(caught.value)
    assert "\n" not in message and str(caught.value.remedy)
    return message


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://bucket/folder/c.jsonl", "s3://bucket/folder/c.jsonl"),
        ("https://host:8443/c.jsonl", "https://host:8443/c.jsonl"),
        ("https://me:secret@host/c.jsonl?X-Amz-Signature=secret&x=1#secret", "https://host/c.jsonl"),
        ("https://host?token=secret", "https://host"),
        ("ftp://secret@host", "ftp://host"),
        ("https://host/a@b/c", "https://host/a@b/c"),
        ("https://me:sec/ret@host/c", "https://..."),  # by the syntax, a slash ends the host
        ("https://me:sec?ret@host/c", "https://..."),
        ("https://[::1]:80/@c", "https://[::1]:80/@c"),
        ("s3://arn:aws:s3:eu:1:accesspoint/one/c", "s3://arn:aws:s3:eu:1:accesspoint/one/c"),
    ],
)
def test_shown_address(address, shown):
    assert shown_address(address) == shown


# A store in memory, whose files have neither tags nor checksums


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    for name, (content, _) in FILES.items():
        store.pipe(f"/bucket/{name}", content)
    yield store
    store.rm("/bucket", recursive=True)


@pytest.mark.parametrize("name", FILES)
def test_file_of_a_store(memory, name):
    found = read(f"memory://bucket/{name}")
    base = name.rpartition("/")[2]
    assert [document.text for document in found] == FILES[name][1]
    assert found[0].document_id == ("g" if name == "g.txt" else f"{base}:1")
    assert found[0].metadata == ({"lang": "de"} if "=" in name else {})


@pytest.mark.parametrize("address", ["memory://bucket", "memory://bucket/", "memory:///bucket"])
def test_folder_of_a_store(memory, caplog, address):
    memory.pipe("/bucket/_SUCCESS", b"")
    memory.pipe("/bucket/.hidden/x.jsonl", b"broken")
    found = read(address)
    assert [document.text for document in found] == TEXTS
    assert found[-1].document_id == "lang=de/h.tsv:1" and found[-1].metadata == {"lang": "de"}
    assert "left out 2 hidden or marker files: .hidden/x.jsonl, _SUCCESS" in caplog.text


def test_files_without_tags_are_read_for_their_fingerprints(memory):
    recorded = fingerprint_sources(["memory://bucket"])
    assert (recorded[0].path, recorded[0].bytes, recorded[0].version) == ("memory://bucket/a.jsonl", len(LINES), None)
    assert recorded[0].sha256 is not None
    check_unchanged(recorded, fingerprint_sources(["memory://bucket"]))
    memory.pipe("/bucket/c.csv", b"text\nthrew\n")
    with pytest.raises(CorpusChangedError, match=r"memory://bucket/c\.csv: expected 11 bytes with sha256"):
        check_unchanged(recorded, fingerprint_sources(["memory://bucket"]))


def test_nothing_in_a_store(memory):
    assert "memory://bucket/none.jsonl: expected a file or folder that can be read, found nothing there" in error_of(
        "memory://bucket/none.jsonl"
    )
    memory.mkdir("/bucket/empty")
    assert "memory://bucket/empty: expected files, found an empty listing" in error_of("memory://bucket/empty")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table/_delta_log/0.json", "memory://bucket/table: expected files of documents, found a Delta Lake table"),
        ("table/dataset_dict.json", "memory://bucket/table: expected files of documents, found a saved dataset of"),
        ("table/c.zip", "memory://bucket/table/c.zip: expected a file of documents, found an archive"),
        ("table/c.parquet", "memory://bucket/table/c.parquet: expected a Parquet file, found one that cannot be read"),
        ("table/c.jsonl.gz", "memory://bucket/table/c.jsonl.gz: expected a readable file of whole gz data"),
        ("table/x=1/x=2/c.csv", "memory://bucket/table/x=1/x=2/c.csv: expected one folder for the field 'x'"),
    ],
)
def test_what_is_refused_in_a_store(memory, name, message):
    memory.pipe(f"/bucket/{name}", b"nonsense")
    assert message in error_of("memory://bucket/table")


def test_unknown_store():
    assert "nonsense://a/b: expected a file or folder that can be read, found ValueError" in error_of("nonsense://a/b")


@pytest.mark.parametrize("address", ["s3://bucket/c.jsonl", "https://me:secret@host/c.jsonl?token=secret"])
def test_missing_package_names_the_extra(monkeypatch, address):
    def absent(module):
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(packages, "import_module", absent)
    with pytest.raises(MissingDependencyError) as caught:
        read(address)
    assert install_hint("remote") in str(caught.value) and shown_address(address) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_missing_package_of_a_store(monkeypatch):
    absent = {"class": "absent.Store", "err": "Install gcsfs"}
    monkeypatch.setitem(sys.modules["fsspec.registry"].known_implementations, "gs", absent)
    with pytest.raises(MissingDependencyError) as caught:
        read("gs://bucket/c.jsonl")
    assert "gs://bucket/c.jsonl: expected what fsspec reads gs:// with, found it missing (Install gcsfs)" in str(
        caught.value
    )


def test_address_of_a_file_here(tmp_path):
    path = tmp_path / "a b.jsonl"
    path.write_bytes(LINES)
    assert [document.document_id for document in read(path.as_uri())] == ["a b.jsonl:1", "a b.jsonl:2"]
    assert fingerprint_sources([path.as_uri()]) == fingerprint_sources([str(path)])


# A web server


class Handler(BaseHTTPRequestHandler):
    """Serves FILES; /private/ to me:secret, /signed/ with a signature; /tagged/ with a tag; /cut/ half of a file."""

    tag = '"one"'
    protocol_version = "HTTP/1.1"

    def do_GET(self, body: bool = True) -> None:
        where, _, name = urlsplit(self.path).path.lstrip("/").partition("/")
        user = "Basic " + b64encode(b"me:secret").decode()
        if where == "private" and self.headers.get("Authorization") != user:
            return self.answer(401, b"")
        if where == "signed" and "signature=secret" not in self.path:
            return self.answer(403, b"")
        if where == "silent":
            self.server.release.wait(5)  # type: ignore[attr-defined]
        content = FILES[name][0] if name in FILES else None
        if content is None:
            return self.answer(404, b"")
        headers = {"ETag": self.tag} if where in ("tagged", "signed") else {}
        return self.answer(200, content, body, headers, cut=where == "cut")

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def answer(self, status: int, content: bytes, body: bool = True, headers: dict = {}, cut: bool = False) -> None:  # noqa: B006
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """A server's host and port."""
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.release = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.release.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def without_secrets(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing within the block logs or prints the word secret."""
    caplog.set_level(logging.INFO)
    yield
    assert "secret" not in caplog.text and "secret" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", FILES)
def test_file_of_the_web(web, name):
    """The server gives whole files only: it ignores requests of parts."""
    found = read(f"http://{web}/plain/{name}")
    assert [document.text for document in found] == FILES[name][1]
    assert found[0].metadata == ({"lang": "de"} if "=" in name else {})


@pytest.mark.parametrize(
    "address", ["http://me:secret@{}/private/a.jsonl", "http://{}/signed/a.jsonl?signature=secret"]
)
def test_secrets_of_an_address(web, caplog, capfd, address):
    with without_secrets(caplog, capfd):
        address = address.format(web)
        documents, prints = read(address), fingerprint_sources([address])
        assert [document.document_id for document in documents] == ["a.jsonl:1", "a.jsonl:2"]
        assert prints[0].path == shown_address(address) and "secret" not in repr(documents) + repr(prints)
        broken = address.replace("a.jsonl", "e.jsonl")
        with pytest.raises(CorpusError) as caught:
            read(broken)
        assert f"{shown_address(broken)}: " in str(caught.value) and "found nothing there" in str(caught.value)
        assert "secret" not in "".join(traceback.format_exception(caught.value)).replace("secrets", "")


@pytest.mark.parametrize("address", ["http://me:wrong@{}/private/a.jsonl", "http://{}/signed/a.jsonl?signature=wrong"])
def test_no_permission(web, address):
    message = error_of(address.format(web))
    assert message.startswith(f"{shown_address(address.format(web))}: ") and "wrong" not in message
    assert "found no permission to read it" in message


def test_tag_of_the_web(web, monkeypatch):
    recorded = fingerprint_sources([f"http://{web}/signed/a.jsonl?signature=secret&n=1"])
    assert (recorded[0].bytes, recorded[0].sha256, recorded[0].version) == (len(LINES), None, 'etag "one"')
    # The same file under a newer signature is the same.
    check_unchanged(recorded, fingerprint_sources([f"http://{web}/signed/a.jsonl?signature=secret&n=2"]))
    monkeypatch.setattr(Handler, "tag", '"two"')
    with pytest.raises(CorpusChangedError, match=r'expected 32 bytes with etag "one", as when .* found 32 bytes with'):
        check_unchanged(recorded, fingerprint_sources([f"http://{web}/signed/a.jsonl?signature=secret"]))


def test_file_of_the_web_without_a_tag_is_read_for_its_fingerprint(web):
    (found,) = fingerprint_sources([f"http://{web}/plain/a.jsonl"])
    assert (found.bytes, found.version) == (len(LINES), None) and found.sha256 is not None


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "e.parquet", "g.txt"])
def test_answer_that_is_cut_short(web, name):
    assert error_of(f"http://{web}/cut/{name}").startswith(f"http://{web}/cut/{name}: expected a file or folder")


def test_server_that_does_not_answer(web, monkeypatch):
    monkeypatch.setattr(remote, "_READ_SECONDS", 0.2)
    assert "found no answer in time" in error_of(f"http://{web}/silent/a.jsonl")


def test_no_server(web):
    message = error_of("http://me:secret@127.0.0.1:9/c.jsonl?token=secret")
    assert message.startswith("http://127.0.0.1:9/c.jsonl: ") and "127.0.0.1:9" in message.partition("found ")[2]
    assert "secret" not in message


@pytest.mark.parametrize("path", ["", "/", "/plain/"])
def test_web_folders_are_not_listed(web, path):
    assert "expected the address of a file" in error_of(f"http://{web}{path}")


# S3, at a server of moto's


@pytest.fixture
def s3(monkeypatch) -> Iterator[fsspec.AbstractFileSystem]:
    """The store, with FILES in `folder` of a bucket."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    variables = {"ENDPOINT_URL": endpoint, "ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    requests.post(f"{endpoint}/moto-api/reset", timeout=10)  # all servers of a process share their content
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    store.mkdir("bucket")
    for name, (content, _) in FILES.items():
        store.pipe(f"bucket/folder/{name}", content)
    yield store
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def test_bucket(s3):
    assert [document.text for document in read("s3://bucket/folder")] == TEXTS
    assert [document.text for document in read("s3://bucket")] == TEXTS
    assert [document.document_id for document in read("s3://bucket/folder/b.jsonl.gz")] == [
        "b.jsonl.gz:1",
        "b.jsonl.gz:2",
    ]


def test_change_within_a_bucket(s3):
    recorded = fingerprint_sources(["s3://bucket/folder"])
    assert [item.path for item in recorded] == [f"s3://bucket/folder/{name}" for name in FILES]
    assert all(item.sha256 is None and item.version and item.version.startswith("etag ") for item in recorded)
    check_unchanged(recorded, fingerprint_sources(["s3://bucket/folder"]))
    s3.pipe("bucket/folder/c.csv", b"text\nthrew\n")
    with pytest.raises(CorpusChangedError, match=r"s3://bucket/folder/c\.csv: expected 11 bytes with etag"):
        check_unchanged(recorded, fingerprint_sources(["s3://bucket/folder"]))


def test_what_is_not_in_a_bucket(s3):
    s3.mkdir("void")
    assert "s3://void: expected files, found an empty listing" in error_of("s3://void")
    assert "s3://bucket/none.jsonl: expected a file or folder that can be read, found nothing" in error_of(
        "s3://bucket/none.jsonl"
    )
    assert "bucket does not exist" in error_of("s3://no-such-bucket/c.jsonl")


@pytest.mark.parametrize("address", ["s3://bucket/folder", "s3://bucket/folder/a.jsonl"])
def test_bucket_without_permission(s3, address):
    """Moto checks nothing until it is asked to; from then on it knows no user of this name."""
    requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", data="0", timeout=10)
    try:
        assert f"{address}: expected a file or folder that can be read, found no permission" in error_of(address)
    finally:
        requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", data="inf", timeout=10)
