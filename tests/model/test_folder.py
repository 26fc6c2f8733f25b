"""Forms of a model's folder: right or refused by name, and never a third."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import edit, load, refused
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    YoutuConfig,
    YoutuForCausalLM,
)

from gindex.config import ModelConfig
from gindex.errors import ModelError
from gindex.model.load import load_model

WEIGHTS, BINARY = "model.safetensors", "pytorch_model.bin"


@pytest.fixture
def untied(tmp_path, small_tokenizer) -> Path:
    """Folder of a small Llama with a head of its own."""
    return saved(tmp_path / "model", small(LlamaForCausalLM, small_tokenizer, tie=False), small_tokenizer)


def small(kind: type, tokenizer: Any, *, tie: bool = True, **changes: Any) -> torch.nn.Module:
    """Make a small Llama, or what is made of one."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, tie_word_embeddings=tie, **sizes, **special, **changes
    )
    return kind(config)


def saved(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def same(folder: Path, expected: torch.nn.Module, **options: Any) -> None:
    """The loaded model must compute what the one that was saved does."""
    tokens = torch.arange(1, 11)[None]
    with torch.no_grad():
        found, wanted = load(folder, **options).model(tokens).logits, expected(tokens).logits
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)  # the same weights, summed in the same order


# Weights: all of them, and no others


def test_missing_weights_are_named(folder):
    edit_weights(folder, lambda w: {name: value for name, value in w.items() if ".1.mlp." not in name})
    message = refused(folder)
    assert "lacking 3 (model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate_proj.weight" in message


def test_a_prefix_of_a_wrapper_is_named(folder):
    edit_weights(folder, lambda w: {f"module.{name}": value for name, value in w.items()})
    assert "begin with 'module.', the wrapper of data-parallel training" in refused(folder)


def test_unexpected_weights_are_named(folder):
    edit_weights(folder, lambda w: w | {"model.layers.0.extra.weight": torch.ones(2, 2)})
    assert "with 1 (model.layers.0.extra.weight), which it has no place for" in refused(folder)


def test_weights_of_another_shape_are_named(folder):
    edit_weights(folder, lambda w: w | {"model.norm.weight": torch.ones(3)})
    assert "of other shapes: model.norm.weight (3,) for (16,)" in refused(folder)


def test_a_head_that_the_folder_lacks_is_not_made_up(untied):
    edit_weights(untied, lambda w: {name: value for name, value in w.items() if name != "lm_head.weight"})
    message = refused(untied)
    assert "lacking 1 (lm_head.weight)" in message and "a base model without its head" in message


def test_a_base_model_is_refused_where_its_head_is_lacking(tmp_path, small_tokenizer):
    folder = saved(tmp_path / "model", small(LlamaModel, small_tokenizer, tie=False), small_tokenizer)
    assert "a base model without its head" in refused(folder)


def test_a_base_model_whose_head_is_its_embedding_is_whole(tmp_path, small_tokenizer):
    base = small(LlamaModel, small_tokenizer)
    whole = small(LlamaForCausalLM, small_tokenizer)
    whole.model.load_state_dict(base.state_dict())
    same(saved(tmp_path / "model", base, small_tokenizer), whole.eval())


def test_a_tied_head_that_is_written_twice_is_whole(folder):
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()
    edit_weights(folder, lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()})
    same(folder, expected)


def test_a_head_that_differs_from_the_embedding_it_should_be_tied_to_is_that_of_the_folder(folder):
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()
    head = torch.randn(expected.lm_head.weight.shape)
    edit_weights(folder, lambda w: w | {"lm_head.weight": head})
    expected.lm_head.weight = torch.nn.Parameter(head)
    same(folder, expected)


def test_a_padding_row_that_a_class_sets_to_zero_is_refused(tmp_path, small_tokenizer):
    """transformers' class does so whenever it loads; with a tied head that row gives logits too."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    ranks = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    config = YoutuConfig(
        vocab_size=len(small_tokenizer), num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None, pad_token_id=3, **sizes, **ranks,
    )  # fmt: skip
    model = YoutuForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_()
    folder = saved(tmp_path / "model", model, small_tokenizer)
    with pytest.raises(ModelError, match="row of the padding token 3 to zero as it loads; set pad_token_id to null"):
        load(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"pad_token_id": None}))
    embedding = load(folder).model.get_input_embeddings().weight
    assert torch.equal(embedding, model.get_input_embeddings().weight)


def test_a_classifier_is_refused(tmp_path, small_tokenizer):
    model = small(LlamaForSequenceClassification, small_tokenizer, num_labels=1)
    folder = saved(tmp_path / "model", model, small_tokenizer)
    assert "found LlamaForSequenceClassification, which does not predict next tokens" in refused(folder, task="causal")
    edit(folder, architectures=["LlamaForCausalLM"])  # a reward model that says it is something else
    assert "it is a classifier or reward model" in refused(folder)


# Files: whole, plain, unambiguous


def test_shards_are_whole_and_a_missing_one_is_named(tmp_path, small_tokenizer):
    model = small(LlamaForCausalLM, small_tokenizer).eval()
    folder = tmp_path / "model"
    model.save_pretrained(folder, max_shard_size="20KB")
    small_tokenizer.save_pretrained(folder)
    same(folder, model)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    assert shards[1].name in refused(folder)


def test_a_shard_without_a_weight_that_it_should_hold_is_refused(tmp_path, small_tokenizer):
    folder = tmp_path / "model"
    small(LlamaForCausalLM, small_tokenizer).save_pretrained(folder, max_shard_size="20KB")
    small_tokenizer.save_pretrained(folder)
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    lost, *rest = load_file(shard).items()
    save_file(dict(rest), shard, {"format": "pt"})
    assert "lacking 1" in refused(folder), lost


def test_two_sets_of_weights_are_refused(folder):
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": WEIGHTS}}))
    assert "remove the one that is stale" in refused(folder)


def test_weights_that_would_be_taken_from_elsewhere_are_refused(folder):
    """transformers would take these in the place of those that were looked at."""
    shutil.copy(folder / WEIGHTS, folder / "other.safetensors")
    edit(folder, transformers_weights="other.safetensors")
    assert "found other.safetensors to be taken" in refused(folder)
    edit(folder, transformers_weights=None)
    load(folder)
    shutil.copy(folder / WEIGHTS, folder / "shard-00000-model-00001-of-00001.safetensors")
    assert "found shard-00000-model-00001-of-00001.safetensors to be taken" in refused(folder)


@pytest.mark.parametrize("cut", [0, 100, -100])
def test_truncated_weights_are_refused(folder, cut):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:cut])
    assert "found a damaged file" in refused(folder)


def pickled(folder: Path, *, keep: bool = False) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / BINARY)
    if not keep:
        (folder / WEIGHTS).unlink()


def test_pickled_weights_need_a_permission(folder):
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()
    pickled(folder)
    assert "`allow_pickle`" in refused(folder)
    same(folder, expected, allow_pickle=True)


def test_pickled_weights_that_hold_code_are_refused_even_so(folder, tmp_path):
    pickled(folder)
    torch.save({"model.norm.weight": Trap(tmp_path / "sprung")}, folder / BINARY)
    assert "expected pickled weights of tensors alone" in refused(folder, allow_pickle=True)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_beside_safetensors_pickled_weights_are_passed_over(folder):
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()
    (folder / BINARY).write_bytes(b"no weights at all")
    same(folder, expected, allow_pickle=True)


@pytest.mark.parametrize(
    "quantised",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "fp8"},
        {"quant_method": "mxfp4"},
        {"quant_method": "torchao", "quant_type": "int8"},
    ],
)
def test_quantised_weights_are_refused(folder, quantised):
    edit(folder, quantization_config=quantised)
    assert f"found quantised ones ({quantised['quant_method']}" in refused(folder)
    edit(folder, quantization_config=None, text_config={"quantization_config": quantised})
    assert f"found quantised ones ({quantised['quant_method']}" in refused(folder)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_of_8_bits_are_refused_without_a_word_of_the_settings(folder, kind):
    edit_weights(folder, lambda w: w | {"model.layers.0.mlp.up_proj.weight": torch.ones(40, 16).to(kind)})
    assert "found model.layers.0.mlp.up_proj.weight as" in refused(folder)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_load(folder, kind):
    model = AutoModelForCausalLM.from_pretrained(folder).to(kind)
    model.save_pretrained(folder)
    same(folder, model.float().eval())


def test_a_folder_with_a_gguf_file_is_refused_with_the_way(folder):
    for file in folder.iterdir():
        file.unlink()
    (folder / "small.Q4_0.gguf").write_bytes(b"GGUF")
    assert "small.Q4_0.gguf" in (message := refused(folder)) and "GgufConfig(dequantize=True)" in message


def test_folders_without_a_model_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "an empty folder" in refused(tmp_path / "empty")
    assert "1 below it (model); give one of these folders" in refused(tmp_path)
    (folder / WEIGHTS).unlink()
    (folder / "weights.safetensors").touch()
    assert "found weights.safetensors; save the model" in refused(folder)
    (folder / "config.json").write_text("[]")
    assert "expected an object, found list" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "as JSON" in refused(folder)
    (folder / "config.json").write_text('{"model_type": "nothing-known"}')
    (folder / "weights.safetensors").rename(folder / WEIGHTS)
    assert "found a damaged file" in refused(folder)


def test_settings_that_transformers_does_not_know_are_refused(folder):
    edit(folder, model_type="nothing-known")
    assert "nothing-known" in refused(folder)


# Models that do not predict the next token from those before it


def bert(tokenizer: Any, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, **changes,
    )  # fmt: skip
    return BertLMHeadModel(config).eval()


def gemma(tokenizer: Any, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, intermediate_size=24, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
        pad_token_id=None, **changes,
    )  # fmt: skip
    return Gemma3ForCausalLM(config).eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("make", "way"), [(bert, {"is_decoder": True}), (gemma, {"use_bidirectional_attention": False})]
)
def test_models_that_see_later_tokens_are_refused_and_their_causal_kin_load(
    tmp_path, small_tokenizer, make, way, dtype
):
    seeing = {"is_decoder": False} if make is bert else {"use_bidirectional_attention": True}
    folder = saved(tmp_path / "seeing", make(small_tokenizer, **seeing), small_tokenizer)
    config = ModelConfig(name=str(folder), device="cpu", dtype=dtype)
    with pytest.raises(ModelError, match="when a later token changes"):
        load_model(config)
    causal = make(small_tokenizer, **way)
    same(saved(tmp_path / "causal", causal, small_tokenizer), causal)


def bart(kind: type, tokenizer: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
             {"layers": 1, "attention_heads": 2, "ffn_dim": 16}.items()}  # fmt: skip
    return kind(BartConfig(vocab_size=len(tokenizer), d_model=16, max_position_embeddings=64, **sides))


def test_an_encoder_decoder_is_refused_whole_and_in_part(tmp_path, small_tokenizer):
    whole = saved(tmp_path / "whole", bart(BartForConditionalGeneration, small_tokenizer), small_tokenizer)
    assert "found an encoder-decoder (BartForConditionalGeneration)" in refused(whole, task="causal")
    part = saved(tmp_path / "part", bart(BartForCausalLM, small_tokenizer), small_tokenizer)
    assert "an encoder-decoder's decoder (BartForCausalLM, whose" in refused(part)


def test_cross_attention_of_a_decoder_is_refused(tmp_path, small_tokenizer):
    config = GPT2Config(
        vocab_size=len(small_tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64, add_cross_attention=True
    )
    folder = saved(tmp_path / "model", GPT2LMHeadModel(config), small_tokenizer)
    assert "crossattention attends to an encoder" in refused(folder)


# Nothing is said but by us


def test_nothing_of_the_libraries_reaches_the_terminal(folder, capfd):
    edit_weights(folder, lambda w: {name: value for name, value in w.items() if ".1.mlp." not in name})
    refused(folder)
    captured = capfd.readouterr()
    assert not captured.out and not captured.err
