"""The manifest: what it says comes back, and what it cannot vouch for is refused."""

import json
import re
from dataclasses import fields, replace

import pytest

from gindex.errors import CorruptStoreError, FormatVersionError, NotAnIndexError
from gindex.store.layout import FORMAT_VERSION, Layout
from gindex.store.manifest import FileRecord, LayerRecord, Manifest

LAYER = LayerRecord(
    name="0.a", group="0", source="0.a", inputs=4, outputs=3, activation_rank=2, gradient_rank=1, mean_eigenvalue=0.1
)


@pytest.fixture
def layout(tmp_path) -> Layout:
    (tmp_path / "search.faiss").write_bytes(b"content")
    return Layout(tmp_path)


@pytest.fixture
def manifest(layout) -> Manifest:
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        gindex_version="0",
        created="2026-01-01T00:00:00+00:00",
        settings={"seed": 0, "corpus": {"text_field": "tëxt"}},
        sources=[{"path": "c.jsonl", "bytes": 1, "sha256": "00"}],
        model={"name": "m", "model": "00", "tokenizer": "11"},
        layers=[LAYER],
        untracked=[],
        projection={"slices": {"0": [0, 8]}, "dimension": 8},
        documents={"documents": 1, "parts": 1, "tokens": 2, "longest_part": 2},
        fit={"documents": 1, "parts": 1, "tokens": 2},
        segment_parts=64,
        skipped={"0": "reason"},
        search={"kind": "flat", "folds": 0, "scale": 1.0},
        files=[FileRecord.of(layout.root, layout.faiss)],
    )
    manifest.write(layout)
    return manifest


def change(layout: Layout, **changes: object) -> None:
    content = json.loads(layout.manifest.read_text()) | changes
    layout.manifest.write_text(json.dumps(content))


def test_round_trip(layout, manifest):
    assert Manifest.read(layout) == manifest
    assert manifest.slices == {"0": (0, 8)}
    assert manifest.file(layout.faiss) == manifest.files[0]
    assert sorted(path.name for path in layout.root.iterdir()) == ["manifest.json", "search.faiss"]


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest) if field.name != "format_version"])
def test_missing_field_is_named(layout, manifest, name):
    content = json.loads(layout.manifest.read_text())
    del content[name]
    layout.manifest.write_text(json.dumps(content))
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(layout.manifest))}.*{name}"):
        Manifest.read(layout)


@pytest.mark.parametrize("name", ["layers", "files"])
@pytest.mark.parametrize("value", [[{}], [1], None])
def test_entries_of_another_form(layout, manifest, name, value):
    change(layout, **{name: value})
    with pytest.raises(CorruptStoreError, match=re.escape(str(layout.manifest))):
        Manifest.read(layout)


def test_unknown_field_is_named(layout, manifest):
    change(layout, surprise=1)
    with pytest.raises(CorruptStoreError, match="surprise"):
        Manifest.read(layout)


def test_newer_version_is_refused_even_with_other_fields(layout, manifest):
    layout.manifest.write_text(json.dumps({"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(FormatVersionError, match="install a newer gindex"):
        Manifest.read(layout)


def test_manifest_of_something_else(layout):
    layout.manifest.write_text('{"name": "an app", "start_url": "/"}')
    with pytest.raises(NotAnIndexError, match="expected the manifest of an index"):
        Manifest.read(layout)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_manifest_that_is_no_json_object(layout, content):
    layout.manifest.write_bytes(content)
    with pytest.raises(CorruptStoreError, match=re.escape(str(layout.manifest))):
        Manifest.read(layout)


@pytest.mark.parametrize("content", [b"", b"conten", b"content!"])
def test_file_with_another_length(layout, manifest, content):
    layout.faiss.write_bytes(content)
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(layout.faiss))}: expected 7 bytes"):
        Manifest.read(layout)


def test_missing_file(layout, manifest):
    layout.faiss.unlink()
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(layout.faiss))}: .*no file"):
        Manifest.read(layout)


def test_content_is_checked_against_the_checksum(layout, manifest):
    manifest.files[0].check_content(layout.root)
    layout.faiss.write_bytes(b"c0ntent")
    Manifest.read(layout)
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(layout.faiss))}: expected CRC-32C"):
        manifest.files[0].check_content(layout.root)
    with pytest.raises(CorruptStoreError, match="no record"):
        replace(manifest, files=[]).file(layout.faiss)


def test_no_index(tmp_path):
    with pytest.raises(NotAnIndexError, match="no such folder"):
        Manifest.read(Layout(tmp_path / "none"))
    with pytest.raises(NotAnIndexError, match=r"no manifest\.json in it"):
        Manifest.read(Layout(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(NotAnIndexError, match="found a file"):
        Manifest.read(Layout(tmp_path / "file"))
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(NotAnIndexError, match="unfinished build"):
        Manifest.read(Layout(tmp_path))
