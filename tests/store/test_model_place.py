"""An index finds its model where the build left it, beside itself where both have moved, or on the hub."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gindex import GradientIndex
from gindex.errors import MismatchError, ModelError
from gindex.store.files import read_json, write_json
from gindex.store.model_place import model_place, model_places

PROMPT = "the compiler race"


@pytest.fixture
def moved(tmp_path, corpus_file, model_folder, make_config, monkeypatch) -> Path:
    """A folder with an index and its model, built with relative names from within and then moved as a whole."""
    (tmp_path / "before").mkdir()
    shutil.copytree(model_folder, tmp_path / "before" / "models" / "small")
    monkeypatch.chdir(tmp_path / "before")
    GradientIndex.build([str(corpus_file)], "runs/index", make_config(name="models/small"))
    monkeypatch.chdir(tmp_path)
    assert GradientIndex.open("before/runs/index", device="cpu").search(PROMPT, k=1).hits
    return Path(shutil.move(tmp_path / "before", tmp_path / "after"))


def test_what_a_build_records(moved, tmp_path):
    model = GradientIndex.open(moved / "runs/index").manifest.model
    assert model.name == "models/small" and model.hub is None
    assert model.folder == str(tmp_path / "before/models/small") and model.relative == "../../models/small"
    assert model_place("owner/name", moved) == {"hub": "owner/name"}
    assert model_places(replace(model, name="owner/name", hub="owner/name"), moved) == ["owner/name"]


def test_a_model_that_moved_with_its_index_is_found(run, moved):
    result = run("search", moved / "runs/index", PROMPT, "-k", 2)
    assert result.exit_code == 0, result.output


def test_a_stranger_in_the_old_place_is_passed_over(moved, tmp_path, small_tokenizer, make_small_model):
    """The recorded folder holds another model now; the one beside the index is right."""
    stranger = tmp_path / "before/models/small"
    make_small_model(len(small_tokenizer), seed=7).save_pretrained(stranger)
    small_tokenizer.save_pretrained(stranger)
    index = GradientIndex.open(moved / "runs/index", device="cpu")
    assert index.search(PROMPT, k=1).hits and index.model.config.name == str(moved / "models/small")
    shutil.rmtree(moved / "models")
    with pytest.raises(MismatchError, match=f"{stranger}: expected the model .* give that one with `model`"):
        GradientIndex.open(moved / "runs/index", device="cpu").search(PROMPT)


def test_a_model_that_is_nowhere_is_refused_with_the_places(run, moved, tmp_path, model_folder):
    shutil.rmtree(moved / "models")
    with pytest.raises(ModelError) as caught:
        GradientIndex.open(moved / "runs/index").search(PROMPT)
    for words in (str(tmp_path / "before/models/small"), str(moved / "models/small"), "`model`"):
        assert words in str(caught.value)
    assert GradientIndex.open(moved / "runs/index").outliers(1)  # which needs no model
    found = run("search", moved / "runs/index", PROMPT, "--model", model_folder)
    assert found.exit_code == 0, found.output


def test_documents_are_added_with_the_model_that_is_found(moved, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "new", "text": "the kernel page fault in the parser", "number": 1}\n')
    index = GradientIndex.open(moved / "runs/index", device="cpu")
    assert index.add([str(more)]).documents == 1
    assert index.refresh().manifest.model.relative == "../../models/small"


def test_an_index_from_before_places_were_recorded(moved, monkeypatch):
    """Its model's name is looked for from here, then from the folders above the index."""
    path = moved / "runs/index/manifests/00000001.json"
    content = read_json(path)
    for name in ("folder", "relative"):
        del content["model"][name]
    write_json(path, content)
    index = GradientIndex.open(moved / "runs/index", device="cpu")
    assert index.search(PROMPT, k=1).hits and index.model.config.name == str(moved / "models/small")
    nameless = replace(index.manifest.model, name="none/such")
    assert model_places(nameless, moved) == ["none/such"]
    monkeypatch.chdir(moved)
    assert model_places(replace(nameless, name="models/small"), moved / "runs/index") == [
        "models/small",
        str(moved / "models/small"),
    ]
