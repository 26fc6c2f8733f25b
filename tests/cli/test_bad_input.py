"""Bad input to every command: one clear line, an exit code, no traceback, and nothing damaged."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gindex.distribution import install_hint
from gindex.files.locks import held
from gindex.store.files import read_json, write_json
from gindex.store.layout import Layout

CONFIG, DEPENDENCY, CORPUS, MODEL, QUERY, NON_FINITE, STORE = 2, 3, 4, 5, 6, 7, 8
"""Exit codes."""


@pytest.fixture
def build_fails(fails, tmp_path, options) -> Callable[..., str]:
    """Build over a corpus of these bytes; it must fail, leave no index, and say where. Returns the line."""

    def build_fails(exit_code: int, content: bytes, *more: str, name: str = "corpus.jsonl") -> str:
        corpus = tmp_path / name
        corpus.write_bytes(content)
        line = fails(exit_code, "build", corpus, "--out", tmp_path / "index", *options, *more)
        assert not (tmp_path / "index" / "manifests/00000001.json").exists()
        assert not (tmp_path / "index" / "volumes/00000/documents.sqlite").exists()
        return line

    return build_fails


@pytest.fixture
def index_copy(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "index")


GOOD = b'{"id": "one", "text": "the stack"}\n'


# The corpus


@pytest.mark.parametrize("name", ["none.jsonl", "none", "no/such/folder", "/no/such.parquet"])
def test_missing_corpus(fails, tmp_path, options, name):
    line = fails(CORPUS, "build", tmp_path / name, "--out", tmp_path / "index", *options)
    assert "found nothing there" in line and name in line


def test_no_corpus_at_all(fails, tmp_path, options):
    assert "Missing argument 'CORPUS...'" in fails(2, "build", "--out", tmp_path / "index", *options)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_empty_corpus(build_fails, content):
    assert "corpus.jsonl: expected at least one document, found none" in build_fails(CORPUS, content)


def test_empty_folder(fails, tmp_path, options):
    (tmp_path / "corpus").mkdir()
    line = fails(CORPUS, "build", tmp_path / "corpus", "--out", tmp_path / "index", *options)
    assert "expected at least one document, found none" in line


def test_malformed_line_names_file_and_line(build_fails, tmp_path):
    line = build_fails(CORPUS, GOOD + b"\n{broken\n")
    assert f"{tmp_path / 'corpus.jsonl'}:3: expected one JSON object per line" in line


def test_duplicate_ids(build_fails):
    line = build_fails(CORPUS, GOOD + b'{"id": "two", "text": "x"}\n' + GOOD)
    assert "'one'" in line and ":1" in line and ":3" in line


def test_missing_field(build_fails):
    line = build_fails(CORPUS, b'{"id": "one", "body": "the stack"}\n')
    expected = "the text field 'text', or the fields of another form"
    assert f"corpus.jsonl:1: expected {expected}, found the fields 'body', 'id'" in line
    assert "--text-field" in line


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text(build_fails, text):
    line = build_fails(CORPUS, GOOD + json.dumps({"id": "empty", "text": text}).encode())
    assert "corpus.jsonl:2: expected text, found an empty or blank one" in line


def test_invalid_utf8(build_fails):
    line = build_fails(CORPUS, GOOD + b'{"text": "caf\xe9"}\n')
    assert "corpus.jsonl: expected UTF-8, found byte 0xe9 at byte offset 48" in line
    assert "byte 0xff at byte offset 2" in build_fails(CORPUS, b"ab\xff", name="notes.txt")


def test_damaged_parquet(build_fails):
    assert "expected a Parquet file" in build_fails(CORPUS, b"PAR1 but no more", name="corpus.parquet")


def test_corpus_that_changed_since(fails, run, tmp_path, corpus_file, options):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "index"
    shutil.copy(corpus_file, corpus)
    assert run("build", corpus, "--out", out, *options).exit_code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    corpus.write_text(corpus.read_text() + '{"text": "one more"}\n')
    line = fails(CORPUS, "build", corpus, "--out", out, *options)
    assert f"{corpus}: expected " in line and "restore the file or give another --out" in line
    # The same of a build that was interrupted, as when its manifest was not yet written.
    manifest = read_json(out / "manifests/00000001.json")
    settings = manifest["settings"]
    del settings["model"]["name"]
    write_json(out / "build.json", {"settings": settings, "sources": manifest["sources"], "files": []})
    (out / "manifests/00000001.json").unlink()
    assert fails(CORPUS, "build", corpus, "--out", out, *options) == line
    assert all(path.read_bytes() == content for path, content in before.items() if path.exists())


# The index directory


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [("--dimension", "512", "dimension"), ("--bits", "4", "bits"), ("--seed", "9", "seed")],
)
def test_index_made_with_other_settings(fails, run, tmp_path, corpus_file, options, option, value, name):
    out = tmp_path / "index"
    assert run("build", corpus_file, "--out", out, *options).exit_code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    line = fails(STORE, "build", corpus_file, "--out", out, *options, option, value)
    assert f"{out}: expected {name} " in line and f"found {value}" in line
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["search", "info"])
def test_directory_that_is_no_index(fails, tmp_path, command):
    more = ["the stack"] if command == "search" else []
    assert "found no such folder" in fails(STORE, command, tmp_path / "none", *more)
    assert "found no manifests in it" in fails(STORE, command, tmp_path, *more)
    (tmp_path / "file").write_text("text")
    assert "found a file" in fails(STORE, command, tmp_path / "file", *more)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "00000001.json").write_text('{"name": "an app"}')
    assert "expected the manifest of an index" in fails(STORE, command, tmp_path, *more)


def test_building_into_a_directory_of_something_else(fails, tmp_path, corpus_file, options):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    line = fails(STORE, "build", corpus_file, "--out", tmp_path, *options)
    assert f"{tmp_path}: expected an empty directory or an index, found other files" in line
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_build_beside_another_writer(fails, tmp_path, corpus_file, options):
    (tmp_path / "index").mkdir()
    with held(Layout(tmp_path / "index").lock):  # as an add does
        line = fails(STORE, "build", corpus_file, "--out", tmp_path / "index", *options)
    assert "another gindex process is writing here" in line


def test_newer_format(fails, index_copy):
    (index_copy / "manifests/00000001.json").write_text('{"format_version": 99}')
    assert "found 99; install a newer gindex" in fails(STORE, "info", index_copy)


@pytest.mark.parametrize(
    "name", ["search/00000001.faiss", "volumes/00000/documents.sqlite", "volumes/00000/vectors/codes/c/0/0"]
)
def test_damaged_index(fails, index_copy, name):
    path = index_copy / name
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: expected " in fails(STORE, "search", index_copy, "the stack")
    path.unlink()
    assert f"{path}: expected " in fails(STORE, "search", index_copy, "the stack")


# Queries


def test_empty_completion(fails, built):
    line = fails(QUERY, "search", built, "the stack", "--completion", "")
    assert "query: expected a completion with at least one token, found none" in line


def test_prompt_longer_than_the_models_limit(fails, run, built):
    cut = run("search", built, "the stack " * 100)
    assert cut.exit_code == 0 and "\nnote: of 601 tokens the first 537 are left out and do not count" in cut.stdout
    line = fails(QUERY, "search", built, "the stack " * 100, "--long-queries", "refuse")
    assert "query: expected at most 64 tokens, which the model takes, found 601; shorten it" in line


@pytest.mark.parametrize("prompt", ["", "a", "the \udcff"])
def test_prompt_with_nothing_to_predict_or_no_text(fails, built, prompt):
    assert "query: expected " in fails(QUERY, "search", built, prompt)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ": expected at least one query, found none"),
        (b"\n \n", ": expected at least one query, found none"),
        (b"\xff", ": expected a file of queries"),
        (b'{"prompt": "a b"}\n\n{"prompt"\n', ":3: expected a JSON object"),
        (b"[" * 100_000, ":1: expected a JSON object"),
        (b'{"prompt": "a b", "prompt": "b"}', ":1: expected a JSON object, found the key 'prompt' twice in one object"),
        (b'{"completion": "a"}', ":1: expected an object with prompt"),
        (b'["a"]', ":1: expected an object with prompt"),
        (b'{"prompt": "a", "promt": "b"}', ":1: expected an object with prompt"),
        (b'{"queries": [{"queries": []}], "aggregate": "sum"}', ":1, query 1: expected a query that is no set"),
        (b'{"prompt": null}', ":1: expected an object with prompt"),
        (b'{"prompt": "a", "completion": 1}', ":1: expected a text in completion, found a value of type int"),
    ],
)
def test_queries_file(fails, built, tmp_path, content, expected):
    path = tmp_path / "queries.jsonl"
    path.write_bytes(content)
    assert f"{path}{expected}" in fails(QUERY, "search", built, "--queries", path)


def test_queries_that_are_not_there(fails, built, tmp_path):
    assert "check --queries" in fails(QUERY, "search", built, "--queries", tmp_path / "none.jsonl")
    assert "check --queries" in fails(QUERY, "search", built, "--queries", tmp_path)


def test_bad_query_among_good_ones_is_named(fails, built, tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text('{"id": "q1", "prompt": "the stack"}\n{"id": "q2", "prompt": "the", "completion": ""}\n')
    assert "query q2: expected a completion" in fails(QUERY, "search", built, "--queries", path)


def test_bad_queries_stand_among_the_answers_of_the_others(run, built, tmp_path):
    """A line that is no query, one without words, one too long: in their places, as JSON and as text."""
    path = tmp_path / "queries.jsonl"
    lines = [
        '{"id": "a", "prompt": "the stack"}',
        "{broken",
        '{"id": "b", "prompt": "?!"}',
        json.dumps({"id": "c", "prompt": "the", "completion": " heap" * 100}),
        '{"id": "d", "prompt": "a parser token"}',
    ]
    path.write_text("\n".join(lines))
    arguments = ["search", built, "--queries", path, "--words", "rank", "-k", 2]
    result = run(*arguments, "--json")
    assert result.exit_code == QUERY
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["query"]["id"] for record in records] == ["a", "line 2", "b", "c", "d"]
    assert [len(record.get("hits", ())) for record in records] == [2, 0, 0, 0, 2]
    errors = [record.get("error", {}).get("detail", "") for record in records]
    assert [bool(error) for error in errors] == [False, True, True, True, False]
    assert ":2: expected a JSON object" in errors[1] and "query b: expected at least one word" in errors[2]
    assert "query c: expected at most 64 tokens" in errors[3] and "found 200 in the completion" in errors[3]
    assert result.stderr.splitlines()[-1].startswith("gindex: 3 of 5 queries have no answer, the first number 2: ")
    for position, query in ((0, "the stack"), (4, "a parser token")):
        (alone,) = [json.loads(run("search", built, query, "--words", "rank", "-k", 2, "--json").stdout)]
        assert [h["document_id"] for h in records[position]["hits"]] == [h["document_id"] for h in alone["hits"]]
    text = run(*arguments)
    assert text.exit_code == QUERY and text.stdout.count("no answer: ") == 3
    assert "[b] ?!\n\nno answer: query b: expected at least one word" in text.stdout


# Options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--dimension", "0"),
        ("--dimension", "12"),
        ("--dimension", "8"),
        ("--max-tokens", "1"),
        ("--max-tokens", "65"),
        ("--damping-scale", "0"),
        ("--damping-scale", "nan"),
        ("--index-damping", "-1"),
        ("--rank-fraction", "1.5"),
        ("--fit-documents", "-1"),
        ("--batch-tokens", "-1"),
        ("--memory", "-1"),
        ("--seed", "-1"),
        ("--seed", str(2**64)),
    ],
)
def test_value_out_of_range(fails, tmp_path, corpus_file, options, option, value):
    for more in (["--dry-run"], ["--out", tmp_path / "index"]):
        assert f"{option}: expected" in fails(CONFIG, "build", corpus_file, *options, option, value, *more)


@pytest.mark.parametrize(("option", "value"), [("--bits", "3"), ("--dtype", "int8"), ("--dimension", "many")])
def test_value_that_is_no_choice(fails, corpus_file, options, option, value):
    assert f"Invalid value for '{option}'" in fails(2, "build", corpus_file, *options, option, value, "--dry-run")


@pytest.mark.parametrize("arguments", [["-k", "0"], ["--candidates", "0"], ["--completion", "x", "--queries", "x"]])
def test_search_options(fails, built, arguments):
    prompt = [] if "--queries" in arguments else ["the stack"]
    fails(2, "search", built, *prompt, *arguments)


def test_neither_or_both_of_prompt_and_queries(fails, built):
    for arguments in ([], ["x", "--queries", "y"], ["x", "--messages", "y"], ["--messages", "x", "--queries", "y"]):
        assert "Give one of PROMPT, --messages, --image, --document and --queries" in fails(
            2, "search", built, *arguments
        )


@pytest.mark.parametrize("command", [["search", "{}", "the stack"], ["mcp", "{}"]])
def test_options_of_a_folder_at_a_service(run, command):
    """None would do anything: the service is started with its own."""
    address = "http://127.0.0.1:9/index"
    for option in (["--model", "m"], ["--device", "cpu"], ["--trust-remote-code"], ["--allow-pickle"]):
        result = run(*(part.format(address) for part in command), *option)
        said = f"{option[0]}: expected a model that the command loads, found {address}; leave {option[0]} out."
        assert result.exit_code == 2 and said in result.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("search {index} x --api-key k", "--api-key: expected an index at a service, http://host:port/name, found "),
        ("mcp {index} --api-key k", "--api-key: expected an index at a service, http://host:port/name, found "),
        ("search http://127.0.0.1:9/i x --allow-degraded", "--allow-degraded: expected an index in a folder, found"),
        ("search {index} x --candidates 300", "--candidates: expected --exact or --words rank beside it, found none"),
        ("search {index} x --words-documents 5", "expected --words filter or --words rank or --exact beside it"),
        ("search {index} x --words-text y", "expected --words filter or --words rank or --exact beside it, found none"),
        ("search {index} x --document-score sum", "--document-score: expected --hits document beside it, found none"),
        ("search {index} x --exact --refine-parts all", "--refine-parts: expected --refine beside it, found none"),
        ("search {index} x --words filter", "--words: expected words to filter by, found none; give --words-text"),
        ("build {index} --model m --out o --json", "--json: expected --dry-run beside it, found none; give that, or"),
        ("build {index} --model m --out o --fidelity-queries 0 --fidelity-parts 9", "--fidelity-queries beside it"),
        ("reindex {index} --transform-mu 0.1", "--transform-mu: expected --transform second-level beside"),
        ("reindex {index} --transform none --transform-mu 0.1", "expected --transform second-level beside it, found"),
        ("serve {index} --no-model --allow-pickle", "--allow-pickle: expected a model that the command loads, found"),
        ("serve {index} --no-model --model m", "--model: expected a model that the command loads, found --no-model"),
        ("serve {index} --queue-seconds 0", "--queue-seconds: expected a positive finite number, found 0.0"),
    ],
)  # fmt: skip
def test_an_option_that_would_do_nothing_is_refused(fails, built, command, said):
    """Whatever its value, that of the default too."""
    assert said in fails(CONFIG, *(word.format(index=built) for word in command.split()))


def test_build_without_out_or_model(fails, corpus_file, options):
    assert "Missing option '--out'" in fails(2, "build", corpus_file, *options)
    assert "Missing option '--model'" in fails(2, "build", corpus_file)


# Missing packages


def test_faiss_that_is_not_installed(fails, tmp_path, corpus_file, options, built, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for arguments in (["build", corpus_file, "--out", tmp_path / "index", *options], ["search", built, "the stack"]):
        assert install_hint("cpu", "gpu") in fails(DEPENDENCY, *arguments)
    assert not (tmp_path / "index").exists()
