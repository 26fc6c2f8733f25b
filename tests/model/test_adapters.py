"""Adapters applied to their base: their gradients against autograd through peft's own layers, and what is refused."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import adapter_gradients, ia3, lora, peft, write_adapter
from against_autograd import documents, relative_error
from probes import names, reasons, token_probe
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gindex.config import ModelConfig
from gindex.corpus.batches import pad
from gindex.corpus.objectives import Objective
from gindex.errors import ConfigError, GindexError, ModelError
from gindex.model.adapter_folder import AdapterFolder
from gindex.model.adapters import apply_adapter
from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import LayerTable
from gindex.model.losses import CausalLanguageModel
from gindex.model.tracked_model import TrackedModel
from gindex.model.tracking import track_layers
from gindex.vectors.influence import document_gradients

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"

VOCABULARY = 250
"""Tokens that documents are made of."""

TOLERANCE = 1e-10
"""Of sums of a few dozen products in float64."""

KINDS = {
    "LoRA with dropout": partial(lora, lora_dropout=0.5),
    "rsLoRA": partial(lora, use_rslora=True),
    "ranks and scales by layer": partial(lora, rank_pattern={"down_proj": 2}, alpha_pattern={"q_proj": 32}),
    "LoRA with a bias": partial(lora, lora_bias=True),
    "DoRA": partial(lora, use_dora=True),
    "(IA)^3": ia3,
}


def applied(base: Path, folder: Path, **choice: Any) -> tuple[nn.Module, LayerTable]:
    """The adapter of a folder on its base in float64, and the layers that are tracked."""
    config = ModelConfig(name=str(folder))
    found = AdapterFolder.find(folder, config)
    assert found is not None and found.base(config).name == str(base)
    model = AutoModelForCausalLM.from_pretrained(base).double().eval()
    adapter = apply_adapter(model, found, torch.float64)
    model.eval()
    return model, track_layers(model, token_probe(model), LayerChoice(trained=adapter.trained, **choice))


def compare(model: nn.Module, table: LayerTable, reference: nn.Module) -> None:
    """See that documents' gradients, in one padded batch and alone, are those of peft's own model."""
    reference.double()
    tokens, task = documents(VOCABULARY), CausalLanguageModel(model)
    expected = [adapter_gradients(reference, table.layers, part) for part in tokens]
    for parts in (tokens, *([part] for part in tokens)):
        batch = pad([Objective.counting(part) for part in parts], range(len(parts)))
        G_NW, space = document_gradients(table.layers, len(parts), partial(task.losses, batch))
        found = [{name: G[n] for name, G in space.split(G_NW.double()).items()} for n in range(len(parts))]
        at = [n for n, part in enumerate(tokens) if any(part is own for own in parts)]
        assert relative_error(found, [expected[n] for n in at]) < TOLERANCE


def untracked_parts(table: LayerTable) -> list[str]:
    """Weights that were trained and are not tracked."""
    return [weight.name for weight in table.untracked if weight.body]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_adapters_equal_autograd_through_pefts_own_layers(model_folder, tmp_path, kind):
    reference = write_adapter(model_folder, tmp_path, KINDS[kind]())
    model, table = applied(model_folder, tmp_path)
    ids = torch.arange(12)[None] + 20
    torch.testing.assert_close(model(ids).logits, reference.double()(input_ids=ids).logits, rtol=1e-9, atol=1e-9)
    assert not untracked_parts(table) and table.share == 1
    per_block = {"DoRA": 9, "(IA)^3": 3}.get(kind, 6)
    assert len(table) == 2 * per_block
    compare(model, table, reference)


def test_an_adapter_that_changes_its_base_too_runs_as_in_peft(model_folder, tmp_path):
    """PiSSA leaves the base without what the adapter began with."""
    reference = write_adapter(model_folder, tmp_path, lora(init_lora_weights="pissa"))
    ids, found = torch.arange(12)[None] + 20, load(tmp_path).loaded
    torch.testing.assert_close(found.model(ids).logits, reference(input_ids=ids).logits, rtol=1e-5, atol=1e-5)
    assert found.fingerprint == load(model_folder).loaded.fingerprint


def test_dora_beside_conv1d_equals_autograd(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=32)
    base = tmp_path / "base"
    GPT2LMHeadModel(config).save_pretrained(base)
    settings = lora(target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True, use_dora=True)
    reference = write_adapter(base, tmp_path / "adapter", settings)
    model, table = applied(base, tmp_path / "adapter")
    assert len(table) == 2 * 6 and not untracked_parts(table)
    compare(model, table, reference)


def test_layers_of_the_base_are_tracked_on_request_alone(model_folder, tmp_path):
    reference = write_adapter(model_folder, tmp_path, lora(target_modules=["q_proj"]))
    model, table = applied(model_folder, tmp_path, track=["model.layers.1.self_attn.q_proj.*", "*.o_proj"])
    base = "model.layers.{}.self_attn.{}"
    adapter = [base.format(n, f"q_proj.lora_{side}.default") for n in (0, 1) for side in "AB"]
    asked = [base.format(1, "q_proj.base_layer"), base.format(0, "o_proj"), base.format(1, "o_proj")]
    assert sorted(names(table)) == sorted(adapter + asked)
    assert "`track` takes it" in reasons(table)["model.layers.0.mlp.up_proj.weight"]
    reference.requires_grad_(True)
    compare(model, table, reference)


def test_modules_that_were_trained_whole_take_the_place_of_the_bases(model_folder, tmp_path, make_small_model):
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    model = make_small_model(300)
    model.config.tie_word_embeddings = False
    model.lm_head = nn.Linear(16, 300, bias=False)
    model.save_pretrained(base)
    reference = write_adapter(base, tmp_path / "adapter", lora(modules_to_save=["lm_head", "model.norm"]))
    model, table = applied(base, tmp_path / "adapter")
    assert "lm_head" in names(table) and untracked_parts(table) == ["model.norm.weight"]
    compare(model, table, reference)


def test_trained_biases_of_the_base_are_named(model_folder, tmp_path):
    reference = write_adapter(model_folder, tmp_path, lora(target_modules=["q_proj"], bias="lora_only"))
    model, table = applied(model_folder, tmp_path)
    assert untracked_parts(table) == [f"model.layers.{n}.self_attn.q_proj.base_layer.bias" for n in (0, 1)]
    assert "whose weight the adapter leaves as it is" in reasons(table)[untracked_parts(table)[0]]
    compare(model, table, reference)


def test_an_adapter_of_embeddings_is_named_and_the_rest_is_right(model_folder, tmp_path):
    reference = write_adapter(model_folder, tmp_path, lora(target_modules=["embed_tokens", "up_proj"]))
    model, table = applied(model_folder, tmp_path)
    assert untracked_parts(table) == [f"model.embed_tokens.lora_embedding_{side}.default" for side in "AB"]
    compare(model, table, reference)


def load(folder: Path, **options: Any) -> TrackedModel:
    return TrackedModel.load(ModelConfig(name=str(folder), device="cpu", dtype="float32", **options))


@pytest.fixture
def adapter(model_folder, tmp_path) -> Path:
    """Folder of a LoRA adapter of the small model."""
    write_adapter(model_folder, tmp_path / "adapter", lora())
    return tmp_path / "adapter"


def test_a_merged_adapter_is_a_plain_model(model_folder, adapter, tmp_path):
    merged = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), adapter)
    merged.merge_and_unload().save_pretrained(tmp_path / "merged")
    shutil.copy(model_folder / "tokenizer.json", tmp_path / "merged")
    shutil.copy(model_folder / "tokenizer_config.json", tmp_path / "merged")
    plain, beside = load(tmp_path / "merged"), load(adapter)
    assert plain.loaded.trained is None and plain.loaded.identity.keys() == load(model_folder).loaded.identity.keys()
    assert "model.layers.0.self_attn.q_proj" in names(plain.table)
    ids = torch.arange(12)[None] + 20
    torch.testing.assert_close(plain.loaded.model(ids).logits, beside.loaded.model(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_adapter_is_told_apart_and_its_base_keeps_its_fingerprint(model_folder, adapter, tmp_path):
    base, one = load(model_folder).loaded, load(adapter).loaded
    assert one.fingerprint == base.fingerprint and one.adapter and not base.adapter
    settings = json.loads((adapter / SETTINGS).read_text())
    (adapter / SETTINGS).write_text(json.dumps(settings | {"lora_alpha": 7}))
    assert load(adapter).loaded.adapter != one.adapter  # the same weights, scaled otherwise
    (adapter / SETTINGS).write_text(json.dumps(settings))
    weights = load_file(adapter / WEIGHTS)
    save_file({name: weight * 1.1 for name, weight in weights.items()}, adapter / WEIGHTS)
    assert load(adapter).loaded.adapter != one.adapter


def test_the_tokenizer_beside_an_adapter_is_taken(adapter, model_folder):
    alone = load(adapter).loaded.tokenizer_fingerprint
    content = json.loads((model_folder / "tokenizer.json").read_text())
    content["model"]["merges"].pop()
    shutil.copy(model_folder / "tokenizer_config.json", adapter)
    (adapter / "tokenizer.json").write_text(json.dumps(content))
    assert load(adapter).loaded.tokenizer_fingerprint != alone


def test_a_pickled_adapter_is_read_where_that_is_allowed(adapter):
    expected = load(adapter).loaded.adapter
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"pickled ones \(adapter_model.bin\), which .* `allow_pickle`"):
        load(adapter)
    assert load(adapter, allow_pickle=True).loaded.adapter == expected
    torch.save({"a": Path("x")}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="more than tensors"):
        load(adapter, allow_pickle=True)


def _other_shapes(folder: Path) -> None:
    base = folder.parent / "base"
    LlamaForCausalLM(LlamaConfig.from_pretrained(base, intermediate_size=44)).save_pretrained(base)


def _settings(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / SETTINGS
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)

    return write


ROWS = "base_model.model.model.embed_tokens.weight"

REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "of a base of other shapes": (_other_shapes, "no others, found .*size mismatch.*name the base .*`base`"),
    "of a base with other layers": (_settings(target_modules=["query_key_value"]), "cannot apply it .*`base`"),
    "weights that are missing": (_weights(lambda w: dict(list(w.items())[1:])), r"found a file that lacks 1 \(.*lora_"),
    "weights without a place": (_weights(lambda w: w | {"base_model.model.x": torch.ones(1)}), "no place for"),
    "with embeddings resized": (_weights(lambda w: w | {ROWS: torch.ones(310, 16)}), "resized to 310 .*`base`"),
    "for a task whose head it lacks": (
        _settings(task_type="SEQ_CLS"),
        r"lacking 1 \(score.weight\); the adapter lacks",
    ),
    "of another kind": (
        _settings(peft_type="PREFIX_TUNING"),
        r"LORA or IA3, found PREFIX_TUNING; .*merge_and",
    ),
    "a form that reads the prompt": (_settings(alora_invocation_tokens=[1, 2]), "or .*, found ALoraLinear in .*q_proj"),
    "settings of a newer peft": (_settings(use_zora=True), r"expected settings that peft .* knows.*, found use_zora"),
    "damaged settings": (lambda folder: (folder / SETTINGS).write_text("{"), "as JSON, with its peft_type"),
    "damaged weights": (lambda folder: (folder / WEIGHTS).write_bytes(b"x"), "damaged file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_cannot_be_taken_is_refused_by_name(model_folder, tmp_path, case):
    base, folder = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(model_folder, base)
    write_adapter(base, folder, lora())
    change, message = REFUSED[case]
    change(folder)
    with pytest.raises(GindexError, match=message):
        load(folder)


def test_a_pattern_that_names_no_layer_of_adapter_or_base_is_refused(adapter):
    with pytest.raises(ConfigError, match="`track` nothing: expected the name of a layer"):
        load(adapter, track=("nothing",))
