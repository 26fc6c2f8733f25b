"""Share of the body of published mixtures of experts that has the form of tracked layers, and what factors take.

Models are made without weights (meta tensors) from configurations written by hand from published sizes; nothing runs,
so what a trial finds against a layer is not seen. Needs neither model nor index:

    python tools/benchmarks/expert_coverage.py

Prints a row of docs/benchmarks/experts.md for each model.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from gindex.build.memory import factor_bytes
from gindex.curvature.experts import expected_sharing
from gindex.model.inner_linears import ExpertLinears, InnerLinear
from gindex.model.layer_choice import LayerChoice, output_head
from gindex.model.layers import TrackedLayer, affine_parameters
from gindex.model.tracking import _Candidates, _experts, _outside, _tracked

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
"""Kind, experts of a token, and sizes."""


def layers_of(model: nn.Module, experts_per_token: int) -> list[TrackedLayer]:
    """The layers whose form alone speaks for them."""
    candidates, layers = _Candidates.of(model, LayerChoice()), []
    for name, module in candidates.modules.items():
        if name in candidates.reasons:
            continue
        has_bias = module._parameters.get("bias") is not None
        layer = _tracked(name, module, candidates.shapes[name], name, has_bias)
        if isinstance(module, ExpertLinears):
            layers += _experts(replace(layer, token_share=experts_per_token / module.experts), module)
        else:
            layers.append(replace(layer, body=module is not output_head(model)))
    return layers


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    fits = " / ".join(f"{tokens:,}" for tokens in FIT_TOKENS)
    columns = "model", "weights", "tracked without experts", "tracked", "layers", f"factors, GB, of {fits} tokens"
    print("| " + " | ".join(columns) + " |")
    print("|---|---|---|---|---|---|")
    for name, (kind, experts_per_token, sizes) in MODELS.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
        layers, outside = layers_of(model, experts_per_token), _outside(model)
        body = {id(p): p.numel() for p in model.parameters() if id(p) not in outside}
        tracked = {id(p) for layer in layers for p in affine_parameters(layer.module)} & body.keys()
        plain = {id(p) for of in layers if not isinstance(of.module, InnerLinear) for p in affine_parameters(of.module)}
        shares = [sum(body[p] for p in some) / sum(body.values()) for some in (plain & body.keys(), tracked)]
        costs = [factor_bytes(expected_sharing(layers, tokens)) / 1e9 for tokens in FIT_TOKENS]
        total = sum(p.numel() for p in model.parameters()) / 1e9
        print(
            f"| {name} | {total:.1f}B | {shares[0]:.1%} | {shares[1]:.1%} | {len(layers):,} | "
            + " / ".join(f"{cost:,.0f}" for cost in costs) + " |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
