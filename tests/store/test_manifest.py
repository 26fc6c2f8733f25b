"""Manifests and versions: what is committed comes back and stays, and what cannot be vouched for is refused."""

import json
import os
import re
from copy import deepcopy
from dataclasses import MISSING, fields, replace

import pytest

from gindex.errors import CorruptStoreError, FormatVersionError, NotAnIndexError, VersionError
from gindex.store.files import encode_json, read_json, write_json
from gindex.store.layout import FORMAT_VERSION, Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, OperationKind, TransformRecord
from gindex.store.snapshot import Snapshot
from gindex.store.values import values_of
from gindex.store.versions import latest_version, require_version, version_numbers
from gindex.store.writer import write_version


@pytest.fixture
def manifest(layout, draft) -> Manifest:
    return write_version(layout, draft, Operation(kind=OperationKind.BUILD))


def path_of(layout):
    return layout.manifest(1)


def test_round_trip(layout, manifest):
    assert Snapshot.open(layout).manifest == manifest
    assert manifest.version == 1 and manifest.projection.slices == {"0": (0, 8)}
    assert manifest.documents == {"documents": 1, "parts": 68, "tokens": 136, "longest_part": 2}
    assert manifest.file(layout.root, layout.faiss(1)) == manifest.files[0]
    assert sorted(path.name for path in layout.manifests.iterdir()) == ["00000001.json"]
    assert Snapshot.open(layout).excluded.tolist() == [3, 4, 5]


def test_versions_are_numbered_and_stay(layout, manifest):
    first = path_of(layout).read_bytes()
    second = write_version(layout, replace(manifest, deleted=[(0, 9)]), Operation(kind=OperationKind.DELETE))
    assert version_numbers(layout) == [1, 2] and latest_version(layout) == second.version == 2
    assert Snapshot.open(layout).manifest.deleted == [(0, 9)] and Snapshot.open(layout, 1).manifest == manifest
    assert path_of(layout).read_bytes() == first
    with pytest.raises(VersionError, match=r"expected version 3, found 1 to 2; see gindex versions"):
        require_version(layout, 3)


def test_one_of_two_commits_of_a_number_wins(layout, manifest, monkeypatch):
    monkeypatch.setattr("gindex.store.writer.next_version", lambda _layout: 2)
    write_version(layout, replace(manifest, deleted=[(0, 1)]), Operation(kind=OperationKind.DELETE))
    with pytest.raises(VersionError, match=r"00000002.json: expected to commit version 2, found that another process"):
        write_version(layout, replace(manifest, deleted=[(5, 6)]), Operation(kind=OperationKind.DELETE))
    assert Snapshot.open(layout).manifest.deleted == [(0, 1)]
    assert sorted(path.name for path in layout.manifests.iterdir()) == ["00000001.json", "00000002.json"]


def test_file_system_without_hard_links(layout, draft, monkeypatch):
    def fail(*_args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("gindex.files.atomic.os.link", fail)
    write_version(layout, draft, Operation(kind=OperationKind.BUILD))
    monkeypatch.setattr("gindex.store.writer.next_version", lambda _layout: 1)
    with pytest.raises(VersionError):
        write_version(layout, draft, Operation(kind=OperationKind.BUILD))
    assert os.listdir(layout.manifests) == ["00000001.json"]


REQUIRED = [field.name for field in fields(Manifest) if field.default is MISSING and field.name != "format_version"]


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_field_is_named(layout, manifest, name):
    content = read_json(path_of(layout))
    del content[name]
    write_json(path_of(layout), content)
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(path_of(layout)))}.*missing required field `{name}`"):
        Manifest.read(layout, 1)


def places(content: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """All places of a nested value, lists and dicts included."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def test_nested_values_of_another_type_are_refused(layout, manifest):
    """Each value in turn is made a list in a list, with a checksum that fits: never a KeyError or TypeError."""
    content = read_json(path_of(layout))
    for place in places(content)[1:]:
        changed = deepcopy(content)
        parent = changed
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = [[None]]
        write_json(path_of(layout), changed)
        with pytest.raises((CorruptStoreError, NotAnIndexError), match=re.escape(str(path_of(layout)))):
            Manifest.read(layout, 1)


def test_unknown_field_is_named(layout, manifest):
    write_json(path_of(layout), read_json(path_of(layout)) | {"surprise": 1})
    with pytest.raises(CorruptStoreError, match="unknown field `surprise`"):
        Manifest.read(layout, 1)


@pytest.mark.parametrize(
    ("place", "unknown"), [(("model",), "model"), (("volumes", 0), "volumes[0]"), (("fit",), "fit")]
)
def test_unknown_field_within_is_named_with_its_place(layout, manifest, place, unknown):
    content = read_json(path_of(layout))
    inner = content
    for key in place:
        inner = inner[key]
    inner["surprise"] = 1
    write_json(path_of(layout), content)
    with pytest.raises(CorruptStoreError, match=re.escape(f"unknown field `{unknown}.surprise`")):
        Manifest.read(layout, 1)


def test_unknown_setting_is_refused_and_so_is_a_component_that_is_missing(layout, manifest):
    content = read_json(path_of(layout))
    for changed in (
        content["settings"] | {"curvature": content["settings"]["curvature"] | {"surprise": 1}},
        content["settings"] | {"surprise": {}},
        {name: of for name, of in content["settings"].items() if name != "vectors"},
    ):
        write_json(path_of(layout), content | {"settings": changed})
        with pytest.raises(CorruptStoreError, match="expected the manifest of an index"):
            Manifest.read(layout, 1)
    allowing = content["settings"]["model"] | {"trust_remote_code": True}  # an index allows the next caller nothing
    write_json(path_of(layout), content | {"settings": content["settings"] | {"model": allowing}})
    assert not Manifest.read(layout, 1).settings.model.trust_remote_code


LEVEL = {"file": "search/00000001.second-level.safetensors", "mu": 0.1, "directions": 7, "share": 0.5}


@pytest.mark.parametrize("format_version", [1, 2])
def test_older_manifests_are_read(layout, manifest, format_version):
    """Version 1 knew no second level; version 2 had it under a name of its own."""
    content = read_json(path_of(layout)) | {"format_version": format_version}
    if format_version == 2:
        content["search"]["second_level"] = None
    write_json(path_of(layout), content)
    assert Manifest.read(layout, 1) == replace(manifest, format_version=format_version)
    if format_version == 2:
        content["search"]["second_level"] = LEVEL
        write_json(path_of(layout), content)
        read = Manifest.read(layout, 1)
        assert read.search.transform == TransformRecord(
            kind="second-level", file=LEVEL["file"], settings={"mu": 0.1}, measures={"directions": 7, "share": 0.5}
        )
        assert read.derived == ["search/00000001.faiss", LEVEL["file"]]
        content["search"]["second_level"] = {"mu": 0.1}
        write_json(path_of(layout), content)
        with pytest.raises(CorruptStoreError, match="missing required field `file`"):
            Manifest.read(layout, 1)


def test_the_format_is_raised_where_an_older_reader_would_misread(layout, draft):
    transform = TransformRecord(kind="second-level", file="search/00000001.second-level.safetensors")
    plain = write_version(layout, draft, Operation(kind=OperationKind.BUILD))
    search = replace(draft.search, transform=transform)
    transformed = write_version(layout, replace(draft, search=search), Operation(kind=OperationKind.REINDEX))
    several = replace(draft.search, faiss=draft.search.faiss * 2)
    grown = write_version(layout, replace(draft, search=several), Operation(kind=OperationKind.ADD))
    fields = write_version(layout, replace(draft, indexed_fields=["year"]), Operation(kind=OperationKind.ADD))
    written = [each.format_version for each in (plain, transformed, grown, fields)]
    assert written == [2, 3, 4, FORMAT_VERSION]
    assert read_json(layout.manifest(1))["search"] == values_of(draft.search.main)
    assert len(read_json(layout.manifest(3))["search"]["faiss"]) == 2
    assert [Manifest.read(layout, number) for number in (1, 2, 3)] == [plain, transformed, grown]
    assert [(run.start, run.stop) for run in grown.search.runs] == [(0, 70), (70, 140)] and grown.search.parts == 140


def test_every_flipped_byte_and_every_truncation_is_found(layout, manifest):
    path = path_of(layout)
    content = path.read_bytes()
    damaged = [content[:n] for n in range(len(content))]
    damaged += [
        content[:n] + bytes([content[n] ^ bit]) + content[n + 1 :] for n in range(len(content)) for bit in (1, 32)
    ]
    for some in damaged:
        path.write_bytes(some)
        with pytest.raises((CorruptStoreError, FormatVersionError, NotAnIndexError), match=re.escape(str(path))):
            Manifest.read(layout, 1)
    path.write_bytes(content)
    assert Manifest.read(layout, 1) == manifest


def test_manifest_of_another_version_is_refused(layout, manifest):
    layout.manifest(2).write_bytes(path_of(layout).read_bytes())
    with pytest.raises(CorruptStoreError, match=r"00000002.json: expected version 2, found 1"):
        Snapshot.open(layout)


def test_newer_format_is_refused_even_with_other_fields(layout, manifest):
    path_of(layout).write_text(json.dumps({"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(FormatVersionError, match="install a newer gindex"):
        Snapshot.open(layout)


def test_manifest_of_something_else(layout, manifest):
    path_of(layout).write_text('{"name": "an app", "start_url": "/"}')
    with pytest.raises(NotAnIndexError, match="expected the manifest of an index"):
        Snapshot.open(layout)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_manifest_that_is_no_json_object(layout, manifest, content):
    path_of(layout).write_bytes(content)
    with pytest.raises(CorruptStoreError, match=re.escape(str(path_of(layout)))):
        Snapshot.open(layout)


@pytest.mark.parametrize("content", [{}, {"a": 'x",\n "crc32c": "y'}, {"b": [1.5, None, "ë"], "c": {}}])
def test_json_carries_its_checksum(tmp_path, content):
    content = {"always": 1, **content}
    write_json(tmp_path / "file", content)
    assert read_json(tmp_path / "file") == content
    assert list(json.loads((tmp_path / "file").read_bytes())) == [*content, "crc32c"]
    assert encode_json(content) == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("content", [b"", b"conten", b"content!"])
def test_file_with_another_length(layout, manifest, content):
    layout.faiss(1).write_bytes(content)
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(layout.faiss(1)))}: expected 7 bytes"):
        Snapshot.open(layout)


def test_missing_file(layout, manifest):
    layout.faiss(1).unlink()
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(layout.faiss(1)))}: .*no file"):
        Snapshot.open(layout)


def test_content_is_checked_against_the_checksum_once(layout, manifest, monkeypatch):
    version = Snapshot.open(layout)
    version.checked(layout.faiss(1))
    layout.faiss(1).write_bytes(b"c0ntent")
    version.checked(layout.faiss(1))  # read before
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(layout.faiss(1)))}: expected CRC-32C"):
        Snapshot.open(layout).checked(layout.faiss(1))
    with pytest.raises(CorruptStoreError, match="no record"):
        replace(manifest, files=[]).file(layout.root, layout.faiss(1))


def test_segments_that_wait_for_recomputation_are_named(layout, manifest):
    marked = replace(manifest, volumes=[replace(manifest.volumes[0], lost=[1])])
    write_version(layout, marked, Operation(kind=OperationKind.REPAIR))
    with pytest.raises(CorruptStoreError, match="found 6 parts waiting to be computed again; run the gindex build"):
        Snapshot.open(layout)


def test_no_index(tmp_path):
    with pytest.raises(NotAnIndexError, match="no such folder"):
        Snapshot.open(Layout(tmp_path / "none"))
    with pytest.raises(NotAnIndexError, match="no manifests in it"):
        Snapshot.open(Layout(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(NotAnIndexError, match="found a file"):
        Snapshot.open(Layout(tmp_path / "file"))
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(NotAnIndexError, match="unfinished build"):
        Snapshot.open(Layout(tmp_path))
