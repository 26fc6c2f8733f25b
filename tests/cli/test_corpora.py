"""What the commands say of a corpus whose files are not all read."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import fsspec
import pytest


@pytest.fixture
def corpus(tmp_path, corpus_file) -> Path:
    """The small corpus as another tool leaves it: compressed, in partitions, with marks and links beside it."""
    folder = tmp_path / "corpus"
    lines = corpus_file.read_text().splitlines(keepends=True)
    for language, part in (("de", lines[:75]), ("en", lines[75:])):
        (folder / f"lang={language}").mkdir(parents=True)
        (folder / f"lang={language}" / "part-0.json.gz").write_bytes(gzip.compress("".join(part).encode()))
    (folder / "_SUCCESS").touch()
    (folder / "broken.jsonl").symlink_to("nowhere")
    (folder / "empty.csv").write_text("id,text\n")
    return folder


def test_what_is_left_out_is_told(run, tmp_path, corpus, options, is_progress):
    notes = [
        f"{corpus}: left out 1 hidden or marker file: _SUCCESS",
        f"{corpus}: left out 1 broken link: broken.jsonl",
        f"{corpus / 'empty.csv'}: no record in it",
    ]
    planned = run("build", corpus, *options, "--dry-run", "--json")
    assert planned.exit_code == 0 and json.loads(planned.stdout)["notes"] == notes
    assert json.loads(planned.stdout)["documents"] == 150
    out = tmp_path / "index"
    assert run("build", corpus, "--out", out, *options).exit_code == 0
    found = run("search", out, "the stack", "-k", "200", "--json", "--where", "lang = 'de'", "--hits", "document")
    assert {hit["metadata"]["lang"] for hit in json.loads(found.stdout)["hits"]} == {"de"}
    (more := tmp_path / "more").mkdir()
    (more / "a.csv").write_text("id,text\nnew,the stack and the heap\n")
    (more / ".hidden").touch()
    added = run("add", out, more, "--json")
    assert json.loads(added.stdout)["added"] == 1
    assert json.loads(added.stdout)["notes"] == [f"{more}: left out 1 hidden or marker file: .hidden"]


def test_it_is_told_on_standard_error(gindex_command, corpus, options, is_progress):
    done = subprocess.run(
        [gindex_command, "build", corpus, *options, "--dry-run"],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if not is_progress(line)]
    assert [line.partition(" left out ")[2] or line.rpartition(": ")[2] for line in lines] == [
        "1 hidden or marker file: _SUCCESS", "1 broken link: broken.jsonl", "no record in it",
    ]  # fmt: skip
    assert all(line.startswith(f"gindex: {corpus}") for line in lines)


def test_part_of_a_corpus(run, corpus_file, options):
    planned = run("build", corpus_file, *options, "--sample", "90", "--dry-run", "--json")
    assert json.loads(planned.stdout)["notes"] == ["90 of 150 documents taken, by `sample`"]
    assert json.loads(planned.stdout)["documents"] == 90
    planned = run("build", corpus_file, *options, "--limit", "30", "--dry-run", "--json")
    assert json.loads(planned.stdout)["documents"] == 30
    refused = run("build", corpus_file, *options, "--limit", "30", "--sample", "9", "--dry-run")
    assert refused.exit_code != 0 and "--limit and --sample: expected one of them, found two" in refused.stderr


def test_address_in_a_build(run, tmp_path, corpus_file, options):
    store = fsspec.filesystem("memory")
    store.pipe("/corpus/c.jsonl.gz", gzip.compress(corpus_file.read_bytes()))
    out = tmp_path / "index"
    assert run("build", "memory://corpus", "--out", out, *options).exit_code == 0
    (manifest,) = (out / "manifests").iterdir()
    assert [source["path"] for source in json.loads(manifest.read_text())["sources"]] == ["memory://corpus/c.jsonl.gz"]
    store.pipe("/corpus/c.jsonl.gz", b"")
    again = run("build", "memory://corpus", "--out", out, *options)
    assert again.exit_code == 4 and "memory://corpus/c.jsonl.gz: expected " in again.stderr
    store.rm("/corpus", recursive=True)
