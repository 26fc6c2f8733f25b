"""Fields declared with a build or later are looked up by index, through every change of the index."""

import json
import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from growth import add_copies

from gindex import GradientIndex
from gindex.change.compact import compact
from gindex.change.delete import delete_documents
from gindex.change.index_fields import index_fields
from gindex.change.merge import FANOUT
from gindex.change.repair import repair
from gindex.change.rollback import rollback
from gindex.change.verify import verify
from gindex.documents.filters import parse_filter
from gindex.documents.selection import filtered_parts
from gindex.errors import ConfigError, CorruptStoreError
from gindex.store import field_indexes
from gindex.store.files import FileRecord
from gindex.store.layout import FIELDS, Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation
from gindex.store.snapshot import Snapshot
from gindex.store.versions import latest_version
from gindex.store.writer import write_version

FILTERS = ("number >= 140", "number = 3 or id = 'd7'", "not number in (1, 2, 3)", "number > 5 and id < 'd12'")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Volumes of any size have an index."""
    monkeypatch.setattr(field_indexes, "LEAST_DOCUMENTS", 1)


@pytest.fixture
def layout(folder) -> Layout:
    return Layout(folder)


def newest(layout: Layout) -> Manifest:
    return Manifest.read(layout, latest_version(layout))


def assert_indexed(layout: Layout, *fields: str) -> None:
    """Every volume has an index of the fields, filters find what a scan finds, and a deep check finds nothing wrong."""
    snapshot = Snapshot.open(layout)
    manifest = snapshot.manifest
    assert tuple(manifest.indexed_fields or ()) == fields and (manifest.format_version == FIELDS) == bool(fields)
    assert all((volume.fields is not None) == bool(fields) for volume in manifest.volumes)
    plain = Snapshot(layout, replace(manifest, volumes=[replace(of, fields=None) for of in manifest.volumes]))
    with snapshot.table() as table, plain.table() as scanned:
        for where in map(parse_filter, FILTERS):
            found = filtered_parts(table, where)
            assert len(found) and found.tolist() == filtered_parts(scanned, where).tolist()
    assert verify(layout, deep=True)["problems"] == []


def test_fields_are_declared_later_and_withdrawn(layout):
    assert_indexed(layout)
    assert index_fields(layout, ["number", "`number`"]).operation.kind == "index-fields"
    assert_indexed(layout, "number")
    version = latest_version(layout)
    assert index_fields(layout, ["number"]).version == version
    assert index_fields(layout, ["number"], remove=True).indexed_fields is None
    assert_indexed(layout)
    rollback(layout, version)
    assert_indexed(layout, "number")


def test_every_change_keeps_the_index_up(layout):
    """Adds, merges, deletes, compact."""
    index_fields(layout, ["number"])
    for seed in range(FANOUT + 1):
        add_copies(layout, 1, seed)
    assert "merge" in {Manifest.read(layout, n).operation.kind for n in range(1, latest_version(layout) + 1)}
    assert_indexed(layout, "number")
    delete_documents(layout, ["d3", "d145"])
    assert_indexed(layout, "number")
    assert "d145" not in GradientIndex.open(layout.root, device="cpu").ids("number >= 140")
    compact(layout)
    assert_indexed(layout, "number")


@pytest.mark.parametrize("fields", [["nmber"], ["id"], ["number =="], [""], ["number", "a b"]])
def test_what_is_no_field_is_refused_by_name(layout, fields):
    with pytest.raises(ConfigError, match=f"^fields: .*found .*{fields[-1]}"):
        index_fields(layout, fields)
    with pytest.raises(ConfigError, match=r"^fields: expected an indexed field \(none\), found number"):
        index_fields(layout, ["number"], remove=True)
    assert latest_version(layout) == 1


def test_damage_is_found_and_repaired(layout):
    manifest = index_fields(layout, ["number"])
    path = layout.root / str(manifest.volumes[0].fields)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with Snapshot.open(layout).table() as table, pytest.raises(CorruptStoreError, match=path.name):
        filtered_parts(table, parse_filter("number = 1"))
    assert any(path.name in problem for problem in verify(layout)["problems"])
    assert repair(layout).rebuilt == (path.relative_to(layout.root).as_posix(),)
    assert_indexed(layout, "number")


def test_an_index_of_other_values_is_told_by_a_deep_check(layout):
    """As a table written again by hand would leave it, with checksums that fit."""
    manifest = index_fields(layout, ["number"])
    record = manifest.file(layout.root, layout.root / str(manifest.volumes[0].fields))

    from gindex.documents.schema import connect  # noqa: F401

    with sqlite3.connect(layout.root / record.path) as connection:
        connection.execute(
            "UPDATE field_values SET documents = x'0000' WHERE key = (SELECT MAX(key) FROM field_values)"
        )
    connection.close()
    changed = FileRecord.of(layout.root, layout.root / record.path)

    files = [changed if file.path == record.path else file for file in manifest.files]
    write_version(layout, replace(manifest, files=files), Operation(kind="repair"))
    assert any("indexed fields" in problem for problem in verify(layout, deep=True)["problems"])


def test_a_build_indexes_declared_fields(tmp_path, corpus_file, make_config, caplog):
    config = make_config()
    config = replace(config, corpus=replace(config.corpus, index_field=("number", "yaer")))
    with caplog.at_level(logging.WARNING):
        GradientIndex.build([str(corpus_file)], tmp_path / "index", config)
    assert "`yaer`" in caplog.text and "`number`" not in caplog.text
    assert_indexed(Layout(tmp_path / "index"), "number", "yaer")
    assert GradientIndex.open(tmp_path / "index", device="cpu").info()["indexed_fields"] == ["number", "yaer"]
    with pytest.raises(ConfigError, match=r"^index_field: .* found 'a b'"):
        wrong = replace(config, corpus=replace(config.corpus, index_field=("a b",)))
        GradientIndex.build([str(corpus_file)], tmp_path / "other", wrong)
    assert not (tmp_path / "other").exists()


def test_small_volumes_are_scanned(layout, monkeypatch):
    monkeypatch.setattr(field_indexes, "LEAST_DOCUMENTS", 1000)
    assert index_fields(layout, ["number"]).volumes[0].fields is None
    with Snapshot.open(layout).table() as table:
        assert len(filtered_parts(table, parse_filter("number = 3"))) == 2
    assert verify(layout, deep=True)["problems"] == []


def test_the_command_and_info_say_what_is_indexed(layout, run):
    result = run("index-fields", str(layout.root), "number", "--json")
    assert json.loads(result.stdout) == {"version": 2, "indexed_fields": ["number"]}
    assert "by index   id, number" in run("info", str(layout.root)).stdout
    assert Path(str(newest(layout).volumes[0].fields)).name == "fields-00000002.sqlite"
    assert "no fields" in run("index-fields", str(layout.root), "number", "--remove").stdout
