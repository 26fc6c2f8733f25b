"""Fingerprints of a corpus: what is recorded of its files, and how a change of them is told."""

from pathlib import Path

import datasets
import pytest

from gindex.corpus.fingerprints import check_unchanged, fingerprint_sources
from gindex.errors import CorpusChangedError, CorpusError


def test_fingerprints_are_one_per_file_in_reading_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "b" / "a.txt").write_bytes(b"abc")
    datasets.Dataset.from_dict({"text": ["two"]}).save_to_disk(tmp_path / "saved")
    found = fingerprint_sources([str(tmp_path / "b"), "owner/name:test", str(tmp_path / "saved")])
    names = [Path(item.path).name for item in found[:2]]
    assert names == ["a.txt", "c.jsonl"]
    assert (found[0].bytes, found[0].sha256) == (
        3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    )  # fmt: skip
    assert (found[2].path, found[2].bytes, found[2].sha256) == ("owner/name:test", None, None)
    assert {Path(item.path).name for item in found[3:]} >= {"state.json", "dataset_info.json"}


def test_fingerprint_of_a_missing_source():
    with pytest.raises(CorpusError, match=r"missing\.txt"):
        fingerprint_sources(["missing.txt"])


def change(path: Path) -> None:
    path.joinpath("b.txt").write_text("TWO")


def remove(path: Path) -> None:
    path.joinpath("b.txt").unlink()


def add(path: Path) -> None:
    path.joinpath("aa.txt").write_text("new")


@pytest.mark.parametrize(("act", "named"), [(change, "b.txt"), (remove, "b.txt"), (add, "aa.txt")])
def test_changed_corpus_names_the_file(tmp_path, act, named):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text("two")
    recorded = fingerprint_sources([str(tmp_path)])
    check_unchanged(recorded, fingerprint_sources([str(tmp_path)]))
    act(tmp_path)
    with pytest.raises(CorpusChangedError) as caught:
        check_unchanged(recorded, fingerprint_sources([str(tmp_path)]))
    assert str(caught.value).startswith(f"{tmp_path / named}: ") and "another `out`" in str(caught.value)


def test_changed_order_or_count_of_sources(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"text": "one"}\n')
    recorded = fingerprint_sources([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    with pytest.raises(CorpusChangedError, match=r"a\.jsonl as source file 1"):
        check_unchanged(recorded, recorded[::-1])
    with pytest.raises(CorpusChangedError, match="2 files"):
        check_unchanged(recorded, [*recorded, recorded[0]])
