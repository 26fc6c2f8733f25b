"""A form that a model folder comes in, and what forms are made with."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form.

    Attributes:
        name: What it is, in words.
        make: Turns a folder, in which the small Llama and its tokenizer are saved, into the form; takes the model too,
            and returns what the folder then holds, None where that is no causal language model.
        refused: Words of the refusal; None where gradients are right.
        allowed: What the caller allows, by names of settings of the model.
    """

    name: str
    make: Callable[[Path, LlamaForCausalLM], nn.Module | None]
    refused: str | None = None
    allowed: tuple[str, ...] = ()


def small_llama(*, tied: bool = True) -> LlamaForCausalLM:
    """Make the model that the forms store, with weights that are exact in float16 and bfloat16."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + 0.15 * torch.randn_like(parameter)).half().bfloat16().float())
    return model


def change_settings(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Rewrite the stored weights; a class is told of what wrote them."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def write_shards(folder: Path, model: nn.Module) -> list[Path]:
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="20KB")  # type: ignore[operator]
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    return shards
