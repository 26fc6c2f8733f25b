"""The model of an index: where it is, its weights, what lies beside them, and its code."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from gindex import GradientIndex
from gindex.errors import MismatchError, ModelError
from gindex.model.tasks import causal
from gindex.store.files import read_json, write_json

PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "index")


def test_index_and_model_may_move(copy, tmp_path, model_folder, index):
    expected = [hit.score for hit in index.search(PROMPT, k=5).hits]
    moved = shutil.copytree(model_folder, tmp_path / "moved")
    content = read_json(copy / "manifests/00000001.json")
    gone = str(tmp_path / "gone")
    content["model"] |= {"name": gone, "folder": gone, "relative": "../gone"}
    write_json(copy / "manifests/00000001.json", content)
    opened = GradientIndex.open(copy, model=str(moved), device="cpu")
    assert [hit.score for hit in opened.search(PROMPT, k=5).hits] == expected
    with pytest.raises(ModelError, match=f"in {gone}, found no such folder; name its place with `model`"):
        GradientIndex.open(copy).search(PROMPT)


@pytest.fixture
def other_model(tmp_path, model_folder) -> Path:
    folder = shutil.copytree(model_folder, tmp_path / "other-model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def other_tokenizer(tmp_path, model_folder) -> Path:
    folder = shutil.copytree(model_folder, tmp_path / "other-tokenizer")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("what", ["model", "tokenizer"])
def test_another_model_is_refused_by_name(request, built, what):
    folder = request.getfixturevalue(f"other_{what}")
    match = rf"{folder}: expected the {what} \w{{12}} that the index was built with, found \w{{12}}; .*`model`"
    with pytest.raises(MismatchError, match=match):
        GradientIndex.open(built, model=str(folder)).search(PROMPT)


def test_an_index_of_an_older_gindex_names_neither_buffers_nor_code_of_its_model(copy, index):
    content = read_json(copy / "manifests/00000001.json")
    assert content["model"].pop("code") == "transformers" and content["model"].pop("buffers") == ""
    write_json(copy / "manifests/00000001.json", content)
    found = GradientIndex.open(copy, device="cpu").search(PROMPT, completion=COMPLETION)
    assert [hit.document_id for hit in found.hits] == [
        hit.document_id for hit in index.search(PROMPT, completion=COMPLETION).hits
    ]


def test_the_same_weights_run_by_other_code_are_refused(tmp_path, corpus_file, make_config, model_folder, monkeypatch):
    """Where transformers has a model's class and the folder brings another, the permission chooses between them."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "own.py").write_text("from transformers import LlamaForCausalLM\nclass Own(LlamaForCausalLM): pass\n")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"auto_map": {"AutoModelForCausalLM": "own.Own"}}))
    for trusted, remedy in ((True, "give `trust_remote_code`"), (False, "leave out `trust_remote_code`")):
        out = tmp_path / f"index-{trusted}"
        config = make_config(name=str(folder), trust_remote_code=trusted, fit_documents=10)
        index = GradientIndex.build([str(corpus_file)], out, config)
        assert len(index.search(PROMPT, k=3).hits) == 3
        assert "trust_remote_code" not in index.manifest.settings.settings()["model"]  # the next caller decides anew
        with pytest.raises(MismatchError, match=remedy):
            GradientIndex.open(out, device="cpu", trust_remote_code=not trusted).search(PROMPT)


def test_a_model_that_the_build_tried_is_not_tried_again(copy, model_folder, other_model, monkeypatch):
    tried = []
    monkeypatch.setattr(causal, "check_causal", lambda name, *_rest: tried.append(name))
    GradientIndex.open(copy, device="cpu").search(PROMPT)
    assert tried == []
    with pytest.raises(MismatchError):
        GradientIndex.open(copy, model=str(other_model), device="cpu").search(PROMPT)
    assert tried == [str(other_model)]
    content = read_json(copy / "manifests/00000001.json")
    content["model"]["runtime"] = "transformers 4.0, torch 2.0, cpu"
    write_json(copy / "manifests/00000001.json", content)
    GradientIndex.open(copy, device="cpu").search(PROMPT)
    assert len(tried) == 2
