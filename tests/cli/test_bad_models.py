"""Bad models to every command: one clear line, an exit code, no traceback, and nothing left behind."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

MODEL, NON_FINITE, STORE = 5, 7, 8
"""Exit codes."""


def test_missing_model(fails, tmp_path, corpus_file, options):
    line = fails(MODEL, "build", corpus_file, "--out", tmp_path / "index", *options, "--model", tmp_path / "none")
    assert f"{tmp_path / 'none'}: expected a model folder or hub name, found no folder" in line


def test_folder_that_is_no_model(fails, tmp_path, corpus_file, options):
    line = fails(MODEL, "build", corpus_file, "--out", tmp_path / "index", *options, "--model", tmp_path)
    assert f"{tmp_path}: expected a model folder with config.json, found an empty folder" in line


def test_model_without_a_tokenizer(fails, tmp_path, corpus_file, options, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    line = fails(MODEL, "build", corpus_file, "--out", tmp_path / "index", *options, "--model", folder)
    assert f"{folder}: expected a " in line and "tokenizer" in line


def test_model_without_weights(fails, tmp_path, corpus_file, options, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    line = fails(MODEL, "build", corpus_file, "--out", tmp_path / "index", *options, "--model", folder)
    assert f"{folder}: expected weights in model.safetensors, or in shards" in line


def test_model_with_nothing_to_track(fails, tmp_path, corpus_file, options, model_folder):
    """No blocks, and an output head that is the embedding."""
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = LlamaConfig.from_pretrained(folder)
    config.num_hidden_layers = 0
    LlamaForCausalLM(config).save_pretrained(folder)
    line = fails(MODEL, "build", corpus_file, "--out", tmp_path / "index", *options, "--model", folder)
    assert "expected at least one Linear, Conv1D or convolution layer to track, found none (lm_head: tied to" in line


def test_another_model_than_the_indexs(fails, tmp_path, built, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    model.save_pretrained(folder)
    line = fails(STORE, "search", built, "the stack", "--model", folder)
    assert f"{folder}: expected the model " in line and "give that one with --model" in line


def test_device_that_is_not_there(fails, built):
    line = fails(MODEL, "search", built, "the stack", "--device", "nonsense")
    assert "--device: expected one that is usable here, found 'nonsense'" in line and "use --device cpu" in line


def test_a_relative_path_is_never_asked_of_the_hub(fails, tmp_path, corpus_file, options, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_args, **_options: pytest.fail("a hub was asked"))
    line = fails(MODEL, "build", corpus_file, "--out", tmp_path / "index", *options, "--model", "model")
    assert f"model: expected a model folder or hub name, found no folder {Path('model').absolute()}" in line


def test_a_refused_model_leaves_nothing_behind(fails, tmp_path, corpus_file, options, model_folder, monkeypatch):
    monkeypatch.setattr("gindex.build.run.fill_table", lambda *_: pytest.fail("the corpus was read"))
    folder, out = shutil.copytree(model_folder, tmp_path / "model"), tmp_path / "index"
    weights = load_file(folder / "model.safetensors")
    build = ["build", corpus_file, "--out", out, *options, "--model", folder]
    save_file({k: v for k, v in weights.items() if "norm" not in k}, folder / "model.safetensors", {"format": "pt"})
    assert "lacking 5 (model.layers.*.input_layernorm.weight" in fails(MODEL, *build)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert "with --allow-pickle" in fails(MODEL, *build)
    assert "with --allow-pickle" in fails(MODEL, *build[:2], *options, "--model", folder, "--dry-run")
    assert not out.exists()


def test_a_permission_is_asked_for_anew(run, fails, tmp_path, corpus_file, options, model_folder):
    """No index says for the caller that its model may be unpickled."""
    folder, out = shutil.copytree(model_folder, tmp_path / "model"), tmp_path / "index"
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    built = run("build", corpus_file, "--out", out, *options, "--model", folder, "--allow-pickle")
    assert built.exit_code == 0, built.output
    ask = ["the stack", "--completion", " the heap"]
    for command in (["search", out, *ask], ["explain", out, "d0", *ask], ["add", out, corpus_file, "--replace"]):
        assert "with --allow-pickle" in fails(MODEL, *command)
        assert run(*command, "--allow-pickle").exit_code == 0


@pytest.fixture
def nan_model(tmp_path, model_folder) -> Path:
    """A model of whose blocks nothing that is not a number comes out, but for the token `~`."""
    folder = shutil.copytree(model_folder, tmp_path / "nan-model")
    from transformers import AutoTokenizer

    (rare,) = AutoTokenizer.from_pretrained(folder)("~").input_ids
    config = LlamaConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight[rare] = float("nan")
    model.save_pretrained(folder)
    return folder


def test_document_that_is_not_finite(run, fails, tmp_path, corpus_file, options, nan_model):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "index"
    corpus.write_text(corpus_file.read_text() + '{"id": "bad one", "text": "the ~ stack"}\n')
    command = ["build", corpus, "--out", out, *options, "--model", nan_model]
    line = fails(NON_FINITE, *command, "--strict")
    assert "document 'bad one', part 0: expected a finite loss and gradient, found NaN or infinity" in line
    result = run(*command)
    assert result.exit_code == 0
    assert "left out: document 'bad one', part 0: expected a finite loss" in result.stdout
    assert "1 parts, document 'bad one', part 0" in run("info", out).stdout
    assert "query 'the ~': expected a finite loss" in fails(NON_FINITE, "search", out, "the ~")


def test_model_that_is_not_finite_at_all(fails, tmp_path, corpus_file, options, nan_model):
    model = AutoModelForCausalLM.from_pretrained(nan_model)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("inf"))
    model.save_pretrained(nan_model)
    line = fails(NON_FINITE, "build", corpus_file, "--out", tmp_path / "index", *options, "--model", nan_model)
    assert f"{nan_model}: expected finite logits, found NaN or infinity" in line
    assert not (tmp_path / "index").exists()
