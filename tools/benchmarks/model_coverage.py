"""Share of the body of published models that has the form of tracked layers, and what factors take.

Models are made without weights (meta tensors) from configurations written by hand from published sizes; nothing runs,
so what a trial finds against a layer is not seen. Needs neither model nor index:

    python tools/benchmarks/model_coverage.py experts
    python tools/benchmarks/model_coverage.py dense

Prints a row of docs/benchmarks/experts.md, or of docs/benchmarks/sides.md, for each model.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from gindex.build.fit_memory import factor_bytes
from gindex.curvature.experts import expected_sharing
from gindex.model.candidates import Candidates, layer_of, parts_of
from gindex.model.inner_linears import ExpertLinears, InnerLinear
from gindex.model.layer_choice import LayerChoice
from gindex.model.layer_costs import head_share, reason_against_head
from gindex.model.layers import TrackedLayer, affine_parameters, part_count
from gindex.model.tracking import _outside, _structured

FIT_TOKENS = (10_000, 1_000_000)

LATENT = {"q_lora_rank": None, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}

MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "Mixtral-8x7B": ("mixtral", 2, {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8}),
    "Qwen3-30B-A3B": ("qwen3_moe", 8, {"vocab_size": 151936, "hidden_size": 2048, "moe_intermediate_size": 768,
        "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "num_experts": 128}),
    "Qwen1.5-MoE-A2.7B": ("qwen2_moe", 4, {"vocab_size": 151936, "hidden_size": 2048, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "num_experts": 60}),
    "OLMoE-1B-7B": ("olmoe", 8, {"vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 1024,
        "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64}),
    "DeepSeek-V2-Lite": ("deepseek_v2", 6, {"vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944,
        "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
        "n_routed_experts": 64, "n_shared_experts": 2, "first_k_dense_replace": 1, **LATENT}),
    "GPT-OSS-20B": ("gpt_oss", 4, {"vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880,
        "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
        "num_local_experts": 32}),
    "DBRX": ("dbrx", 4, {"vocab_size": 100352, "d_model": 6144, "n_heads": 48, "n_layers": 40, "max_seq_len": 2048,
        "attn_config": {"kv_n_heads": 8, "rope_theta": 500000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4}}),
    "JetMoE-8B": ("jetmoe", 2, {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 24, "num_key_value_heads": 16, "kv_channels": 128, "num_local_experts": 8}),
    "Llama-4-Scout": ("llama4_text", 1, {"vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192,
        "intermediate_size_mlp": 16384, "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8,
        "head_dim": 128, "num_local_experts": 16, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1}),
    "Jamba-v0.1": ("jamba", 2, {"vocab_size": 65536, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_experts": 16}),
}  # fmt: skip
"""Mixtures of experts: kind, experts of a token, and sizes."""

DENSE: dict[str, tuple[str, dict[str, Any]]] = {
    "Gemma-2-27B": ("gemma2", {"vocab_size": 256000, "hidden_size": 4608, "intermediate_size": 36864,
        "num_hidden_layers": 46, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
        "tie_word_embeddings": True}),
    "Command-R+": ("cohere", {"vocab_size": 256000, "hidden_size": 12288, "intermediate_size": 33792,
        "num_hidden_layers": 64, "num_attention_heads": 96, "num_key_value_heads": 8, "tie_word_embeddings": True}),
    "Llama-3.1-405B": ("llama", {"vocab_size": 128256, "hidden_size": 16384, "intermediate_size": 53248,
        "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8}),
    "Phi-4-14B": ("phi3", {"vocab_size": 100352, "hidden_size": 5120, "intermediate_size": 17920,
        "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 10}),
    "Llama-2-7B": ("llama", {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32}),
    "Llama-3.1-8B": ("llama", {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}),
    "Qwen2.5-7B": ("qwen2", {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}),
    "TinyLlama-1.1B": ("llama", {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4}),
    "Pythia-160M": ("gpt_neox", {"vocab_size": 50304, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "tie_word_embeddings": False}),
    "Pythia-70M": ("gpt_neox", {"vocab_size": 50304, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 6, "num_attention_heads": 8, "tie_word_embeddings": False}),
}  # fmt: skip
"""Other language models: kind and sizes; heads are untied where nothing else is said."""


def layers_of(model: nn.Module, sources: dict[str, str], experts_per_token: int = 1) -> list[TrackedLayer]:
    """The layers whose form alone speaks for them."""
    candidates, layers = Candidates.of(model, LayerChoice()), []
    for name, module in candidates.modules.items():
        if name in candidates.reasons:
            continue
        has_bias = module._parameters.get("bias") is not None
        layer = layer_of(name, module, candidates.shapes[name], sources.get(name, name), has_bias=has_bias)
        if isinstance(module, ExpertLinears):
            layer = replace(layer, token_share=experts_per_token / module.experts)
        layers += parts_of(layer, part_count(module))
    return list(_structured(layers, model, LayerChoice()))


def read_together(model: nn.Module) -> dict[str, str]:
    """The first layer that reads what each reads: a pass without values, over one document of two tokens."""
    names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    first: dict[int, str] = {}
    sources, inputs = {}, []

    def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])  # kept, so that an identity is never used twice
        sources[names[module]] = first.setdefault(id(args[0]), names[module])

    handles = [module.register_forward_pre_hook(see) for module in names]
    tokens = torch.zeros(1, 2, dtype=torch.long, device="meta")
    model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    for handle in handles:
        handle.remove()
    return sources


def made(kind: str, sizes: dict[str, Any]) -> nn.Module:
    """A model without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes), attn_implementation="eager")


def shares(model: nn.Module, *chosen: list[TrackedLayer]) -> list[float]:
    """The share of the body's weights that are of some layers."""
    outside = _outside(model)
    body = {id(p): p.numel() for p in model.parameters() if id(p) not in outside}
    found = [{id(p) for layer in layers for p in affine_parameters(layer.module)} & body.keys() for layers in chosen]
    return [sum(body[p] for p in some) / sum(body.values()) for some in found]


def head_of(columns: tuple[str, ...]) -> None:
    """Print the head of a table."""
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")


def billions(model: nn.Module) -> str:
    """The weights of a model."""
    return f"{sum(p.numel() for p in model.parameters()) / 1e9:.3g}B"


def mixtures() -> None:
    """Print the table of mixtures of experts."""
    fits = " / ".join(f"{tokens:,}" for tokens in FIT_TOKENS)
    head_of(("model", "weights", "tracked without experts", "tracked", "layers", f"factors, GB, of {fits} tokens"))
    for name, (kind, experts_per_token, sizes) in MODELS.items():
        model = made(kind, sizes)
        layers = layers_of(model, {}, experts_per_token)
        without, tracked = shares(model, [of for of in layers if not isinstance(of.module, InnerLinear)], layers)
        costs = [factor_bytes(expected_sharing(layers, tokens)) / 1e9 for tokens in FIT_TOKENS]
        print(
            f"| {name} | {billions(model)} | {without:.1%} | {tracked:.1%} | {len(layers):,} | "
            + " / ".join(f"{cost:,.0f}" for cost in costs) + " |", flush=True,
        )  # fmt: skip


def dense() -> None:
    """Print the table of other models."""
    head_of(("model", "weights", "tracked", "widest side", "its basis", "factors of the body, GB", "head", "its cost"))
    for name, (kind, sizes) in DENSE.items():
        model = made(kind, sizes)
        layers = layers_of(model, read_together(model))
        body, heads = [of for of in layers if of.body], [of for of in layers if not of.body]
        widest = max((side for of in body for side in (of.input_side, of.output_side)), key=lambda side: side.width)
        basis = "a matrix" if widest.block is None else f"{len(widest.blocks)} blocks of {widest.block:,}"
        head, cost = "tied", ""
        if heads:
            head = "left out" if reason_against_head(heads[0], layers) else "tracked"
            cost = f"{head_share(heads[0], layers):.1%}"
        (tracked,) = shares(model, body)
        print(
            f"| {name} | {billions(model)} | {tracked:.2%} | {widest.width:,} | {basis} | "
            f"{factor_bytes(body) / 1e9:,.1f} | {head} | {cost} |", flush=True,
        )  # fmt: skip


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", choices=("experts", "dense"))
    tables = {"experts": mixtures, "dense": dense}
    tables[parser.parse_args().models]()


if __name__ == "__main__":
    main()
