"""Indexes that older versions wrote open, verify, search as they did, and can be changed."""

import json
import shutil
from pathlib import Path

import pytest

from gindex import GradientIndex
from gindex.change.compact import compact
from gindex.change.verify import verify
from gindex.store.layout import PLAIN, SEVERAL, TRANSFORMED, Layout

OLD = Path(__file__).parents[1] / "data" / "old_indexes"
FORMATS = {"format-1": 1, "format-2": 2, "format-2-kfac-rademacher": 2}
ASKED = {
    "hits": {"k": 6},
    "scan": {"k": 6, "scan": True},
    "negative": {"k": 3, "negative": True},
    "exact": {"k": 6, "exact": True},
    "where": {"k": 4, "where": "year >= 1990 and topic = 'files'"},
    "bm25": {"k": 4, "words": "filter", "words_text": "cache page"},
    "relatif": {"k": 4, "normalise": "relatif"},
}
"""How the old versions were asked; `bm25` by an option that has another name since."""

ROUNDING = 1e-4
"""Passes in float32 on another processor differ by some 1e-6 of a score; the scores of neighbours by more than this."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy: nothing that a test does may change what is kept."""
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "indexes"))


def opened(folder: Path, name: str, version: int | None = None) -> GradientIndex:
    return GradientIndex.open(folder / name, model=str(folder / "model"), device="cpu", version=version)


def told(name: str) -> dict:
    return json.loads((OLD / f"{name}.json").read_text(encoding="utf-8"))


ANSWERS = [(name, number) for name in FORMATS for number in range(len(told(name)["answers"]))]


@pytest.mark.parametrize("name", FORMATS)
def test_each_is_of_the_format_that_it_stands_for_and_whole(folder, name):
    versions = sorted((folder / name / "manifests").iterdir())
    assert {json.loads(path.read_text())["format_version"] for path in versions} == {FORMATS[name]}
    for number in range(1, len(versions) + 1):
        assert verify(Layout(folder / name), number, deep=True)["problems"] == []


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(("name", "number"), ANSWERS)
def test_hits_are_those_that_the_old_version_returned(folder, name, number, asked):
    old = told(name)
    answer = old["answers"][number]
    index = opened(folder, name, answer["version"])
    hits = index.search(old["prompt"], completion=old["completion"], **ASKED[asked]).hits
    assert [(hit.document_id, hit.part) for hit in hits] == [(hit["id"], hit["part"]) for hit in answer[asked]]
    assert [hit.score for hit in hits] == pytest.approx([hit["score"] for hit in answer[asked]], rel=ROUNDING)
    if asked == "exact":
        assert [hit.influence for hit in hits] == pytest.approx(
            [hit["influence"] for hit in answer[asked]], rel=ROUNDING
        )


@pytest.mark.parametrize(("name", "number"), ANSWERS)
def test_outliers_are_those_of_the_old_version(folder, name, number):
    answer = told(name)["answers"][number]
    found = opened(folder, name, answer["version"]).outliers(4)
    assert [[o.document_id, o.part] for o in found] == [entry[:2] for entry in answer["outliers"]]
    assert [o.self_influence for o in found] == pytest.approx([entry[2] for entry in answer["outliers"]], rel=ROUNDING)


def test_the_second_level_of_format_2_changes_the_scores(folder):
    """What shows that the second answer of `format-2` is not the first one again."""
    without, with_it = (told("format-2")["answers"][number]["hits"] for number in (0, 1))
    assert [hit["score"] for hit in without] != pytest.approx([hit["score"] for hit in with_it], rel=0.01)


@pytest.mark.parametrize("name", FORMATS)
def test_an_old_index_takes_documents_and_becomes_one_of_this_format(tmp_path, name):
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    text = json.dumps({"id": "new", "text": "the compiler reads the page of the file and holds the lock"})
    (tmp_path / "new.jsonl").write_text(text + "\n", encoding="utf-8")
    index, before = opened(tmp_path, name), len(list((tmp_path / name / "manifests").iterdir()))
    index.add([str(tmp_path / "new.jsonl")])
    hits = opened(tmp_path, name).search("the compiler", completion=" reads the page", k=20, scan=True).hits
    assert "new" in {hit.document_id for hit in hits}
    newest = json.loads((tmp_path / name / "manifests" / f"{before + 1:08d}.json").read_text())
    assert newest["format_version"] == (TRANSFORMED if newest["search"].get("transform") else SEVERAL)
    assert verify(Layout(tmp_path / name), deep=True)["problems"] == []
    compacted = compact(Layout(tmp_path / name))
    assert compacted.format_version == (PLAIN if compacted.search.transform is None else TRANSFORMED)
    assert verify(Layout(tmp_path / name), deep=True)["problems"] == []
