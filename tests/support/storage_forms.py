"""Forms that a model folder comes in, each with what gindex should make of it.

A form turns the small Llama into files as people leave them: whole, in shards, half copied, of another kind of model.
Its outcome is `right`, the document gradients of what the files hold, or `refused`; there is no third.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forms import WEIGHTS, Form, change_settings, change_weights, small_llama, write_shards
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

FORMS: list[Form] = []


def _form(name: str, refused: str | None = None, *allowed: str) -> Callable[..., Any]:
    """Add a form to the catalogue."""

    def add(make: Callable[[Path, LlamaForCausalLM], nn.Module | None]) -> Callable[..., Any]:
        FORMS.append(Form(name=name, make=make, refused=refused, allowed=allowed))
        return make

    return add


@_form("safetensors")
def _plain(folder, model):
    return model


@_form("sharded safetensors")
def _sharded(folder, model):
    write_shards(folder, model)
    return model


def _stored_in(dtype):
    def make(folder, model):
        copy.deepcopy(model).to(dtype).save_pretrained(folder)
        return model

    return make


for _name in ("float16", "bfloat16", "float64"):
    _form(f"stored in {_name}")(_stored_in(getattr(torch, _name)))


@_form("untied head")
def _untied(folder, model):
    untied = small_llama(tied=False)
    untied.save_pretrained(folder)
    return untied


@_form("tied head that is written twice")
def _twice(folder, model):
    change_weights(folder, lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()})
    return model


@_form("the head alone of a tied pair")
def _head_alone(folder, model):
    change_weights(folder, lambda w: {n.replace("model.embed_tokens", "lm_head"): x for n, x in w.items()})
    return model


@_form("files linked from a cache")
def _linked(folder, model):
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    return model


@_form("safetensors and pickled .bin")
def _both(folder, model):
    torch.save({}, folder / "pytorch_model.bin")  # were it read, all weights would be missing
    return model


@_form("base model alone, tied head")
def _base(folder, model):
    model.model.save_pretrained(folder)
    return model


@_form("base model alone, untied head", "lm_head.weight")
def _base_untied(folder, model):
    small_llama(tied=False).model.save_pretrained(folder)


@_form("a shard is missing", "model-0000")
def _missing_shard(folder, model):
    write_shards(folder, model)[1].unlink()


@_form("the list of shards names one weight less", "mlp.up_proj.weight")
def _unlisted(folder, model):
    write_shards(folder, model)
    path = folder / "model.safetensors.index.json"
    listed = json.loads(path.read_text())
    name = "model.layers.1.mlp.up_proj.weight"
    shard = folder / listed["weight_map"].pop(name)
    path.write_text(json.dumps(listed))
    save_file({n: x for n, x in load_file(shard).items() if n != name}, shard, metadata={"format": "pt"})


@_form("a weight is missing", "mlp.up_proj.weight")
def _missing(folder, model):
    change_weights(folder, lambda w: {n: x for n, x in w.items() if n != "model.layers.1.mlp.up_proj.weight"})


@_form("a block more in the settings than in the weights", "mlp.up_proj.weight")
def _more_blocks(folder, model):
    change_settings(folder, num_hidden_layers=3)


@_form("a block less in the settings than in the weights", "mlp.up_proj.weight")
def _fewer_blocks(folder, model):
    change_settings(folder, num_hidden_layers=1)


@_form("weights that the model has no use for", "q_proj.bias")
def _unexpected(folder, model):
    change_weights(folder, lambda w: w | {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)})


@_form("names with `module.` before them", "module.")
def _prefixed(folder, model):
    change_weights(folder, lambda w: {f"module.{n}": x for n, x in w.items()})


@_form("names with `_orig_mod.` before them", "_orig_mod.")
def _compiled(folder, model):
    change_weights(folder, lambda w: {f"_orig_mod.{n}": x for n, x in w.items()})


@_form("a weight of another shape", "down_proj.weight")
def _mismatched(folder, model):
    change_weights(folder, lambda w: w | {"model.layers.0.mlp.down_proj.weight": torch.ones(32, 40)})


@_form("truncated safetensors", "damaged")
def _truncated(folder, model):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


@_form("an empty file for weights", "damaged")
def _no_bytes(folder, model):
    (folder / WEIGHTS).write_bytes(b"")


@_form("settings alone", "weights")
def _no_weights(folder, model):
    (folder / WEIGHTS).unlink()


@_form("settings that are no JSON", "config.json")
def _bad_settings(folder, model):
    (folder / "config.json").write_text("{")


@_form("settings of an unknown kind", "unknown-kind")
def _unknown(folder, model):
    change_settings(folder, model_type="unknown-kind")


@_form("no tokenizer", "tokenizer")
def _no_tokenizer(folder, model):
    for path in folder.glob("tokenizer*"):
        path.unlink()


@_form("the tokenizer of a larger vocabulary", "tokenizer")
def _other_tokenizer(folder, model):
    config = LlamaConfig.from_pretrained(folder, vocab_size=100)
    LlamaForCausalLM(config).save_pretrained(folder)


@_form("an empty folder", "config.json")
def _empty(folder, model):
    for path in folder.iterdir():
        path.unlink()


@_form("no folder", "no")
def _nowhere(folder, model):
    shutil.rmtree(folder)


@_form("a file in place of a folder", "file")
def _file(folder, model):
    shutil.rmtree(folder)
    folder.write_bytes(b"weights")


@_form("a trainer's output with checkpoints below", "checkpoint-10")
def _checkpoints(folder, model):
    below = folder / "checkpoint-10"
    below.mkdir()
    for path in list(folder.iterdir()):
        if path.is_file():
            path.rename(below / path.name)


@_form("a classifier without a padding token", "pad_token_id")
def _classifier(folder, model):
    LlamaForSequenceClassification(LlamaConfig.from_pretrained(folder, num_labels=2)).save_pretrained(folder)


@_form("a classifier that is called a base model", "score.weight")
def _disguised(folder, model):
    LlamaForSequenceClassification(LlamaConfig.from_pretrained(folder, num_labels=2)).save_pretrained(folder)
    change_settings(folder, architectures=["LlamaForCausalLM"])


@_form("pictures and text (LLaVA), without its processor")
def _pictures(folder, model):
    picture = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlavaConfig(
        text_config=LlamaConfig.from_pretrained(folder),
        vision_config=CLIPVisionConfig(**picture, image_size=16, patch_size=8),
    )
    pictured = LlavaForConditionalGeneration(config).eval()
    pictured.save_pretrained(folder)
    return pictured


@_form("pickled .bin alone", "`allow_pickle`")
def _pickled(folder, model):
    (folder / WEIGHTS).unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


@_form("pickled .bin alone, with --allow-pickle", None, "allow_pickle")
def _pickle_allowed(folder, model):
    _pickled(folder, model)
    return model


class _Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@_form("a .bin that runs code when it is read, with --allow-pickle", "tensors", "allow_pickle")
def _pickled_code(folder, model):
    (folder / WEIGHTS).unlink()
    torch.save(model.state_dict() | {"more": _Bomb(folder / "ran")}, folder / "pytorch_model.bin")


def _adapter(folder: Path) -> None:
    """Write a LoRA adapter as peft does."""
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
        "base_model_name_or_path": str(folder), "bias": "none", "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    names = [f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{side}.weight" for n in (0, 1) for side in "AB"]
    shapes = [(2, 32), (32, 2)] * 2
    adapter = {name: torch.ones(shape) for name, shape in zip(names, shapes, strict=True)}
    save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@_form("an adapter alone", "adapter")
def _adapter_alone(folder, model):
    (folder / WEIGHTS).unlink()
    (folder / "config.json").unlink()
    _adapter(folder)


@_form("an adapter beside its base", "adapter")
def _adapter_beside(folder, model):
    _adapter(folder)


@_form("bitsandbytes, 4 bits", "quantised")
def _bitsandbytes(folder, model):
    change_settings(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    change_weights(folder, lambda w: w | {"model.layers.0.mlp.up_proj.weight": torch.zeros(768, 1, dtype=torch.uint8)})


@_form("GPTQ", "quantised")
def _gptq(folder, model):
    change_settings(folder, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 32})


@_form("AWQ", "quantised")
def _awq(folder, model):
    change_settings(folder, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 32})


@_form("FP8", "quantised")
def _fp8(folder, model):
    change_settings(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})


@_form("MXFP4", "quantised")
def _mxfp4(folder, model):
    change_settings(folder, quantization_config={"quant_method": "mxfp4"})


@_form("torchao", "quantised")
def _torchao(folder, model):
    quantised = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8"}}}
    change_settings(folder, quantization_config=quantised)


@_form("compressed-tensors", "quantised")
def _compressed(folder, model):
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}
    change_settings(folder, quantization_config=settings)


@_form("weights of 8 bits that no setting tells of", "bits")
def _eight_bits(folder, model):
    change_weights(folder, lambda w: {n: x.to(torch.float8_e4m3fn) for n, x in w.items()})


@_form("GGUF alone", "gguf_file=")
def _gguf(folder, model):
    for path in folder.iterdir():
        path.unlink()
    (folder / "model-q4.gguf").write_bytes(b"GGUF" + bytes(64))


@_form("GGUF in place of safetensors", "gguf_file=")
def _gguf_weights(folder, model):
    (folder / WEIGHTS).unlink()
    (folder / "model-q4.gguf").write_bytes(b"GGUF" + bytes(64))


@_form("code of its own beside the weights", "`trust_remote_code`")
def _own_code(folder, model):
    """The code, run at its import, would leave a file beside itself; see the test."""
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change_settings(folder, model_type="own", auto_map=own)


@_form("code of its own for a kind that transformers has")
def _own_llama(folder, model):
    """The code is not run: transformers' own class is taken."""
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    change_settings(folder, auto_map={"AutoModelForCausalLM": "own.OwnModel"})
    return model
