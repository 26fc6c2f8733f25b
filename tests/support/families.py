"""Model families of transformers at sizes that a test can afford, each with what gindex should make of it.

Every entry becomes a folder with random weights and a tokenizer. Its outcome is `right`, document gradients as autograd
gives them, or `refused`, an error of gindex's own before any work; there is no third.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

VOCABULARY = 320
"""More tokens than the tokenizer has: of some kinds it gets special ones when it is loaded."""

OWN = object()
"""A setting that the configuration chooses itself."""

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
"""What most configurations call their sizes."""

LEAKS = "logits move"
"""What a refusal says of a model that sees later tokens."""

NO_ENCODER = "encoder"
"""What a refusal says of a decoder that would run without its encoder."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family.

    Attributes:
        name: What people call it.
        kind: `model_type` of its configuration.
        settings: What the configuration changes in `SMALL`.
        refused: Words of the refusal; None where gradients are right.
        body: Least share of the weights, embeddings and output head apart, that is tracked.
    """

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    body: float = 0.85

    def model(self) -> nn.Module:
        """Make the model, with weights large enough that attention, routing and caps matter to its gradients."""
        from transformers import AutoConfig, AutoModelForCausalLM

        sizes = {"vocab_size": VOCABULARY} | SMALL | self.settings
        config = AutoConfig.for_model(self.kind, **{name: size for name, size in sizes.items() if size is not OWN})
        torch.manual_seed(0)
        model: nn.Module = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_((0.15 if parameter.dim() > 1 else 0.05) * torch.randn_like(parameter))
            for name, table_VK in model.named_buffers():
                if name.endswith("tid2eid"):  # routing by token, which starts with one expert for all of them
                    table_VK.copy_(torch.arange(table_VK.numel()).view(table_VK.shape) % EXPERTS["num_experts"])
        return model


def _right(name: str, kind: str, *, body: float = 0.85, **settings: Any) -> Family:
    return Family(name=name, kind=kind, settings=settings, body=body)


def _refused(name: str, kind: str, words: str, **settings: Any) -> Family:
    return Family(name=name, kind=kind, settings=settings, refused=words)


EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 24}
LATENT = {
    "q_lora_rank": 12, "kv_lora_rank": 12, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "head_dim": OWN, "num_key_value_heads": 4,
}  # fmt: skip
"""Attention by latent keys and values."""
ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
    "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
}  # fmt: skip
MAMBA = {"mamba_d_state": 8, "mamba_d_head": 8, "mamba_chunk_size": 8, "mamba_n_groups": 1}
DELTA = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
DECODER = {
    "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "encoder_layers": 2,
    "encoder_ffn_dim": 48, "encoder_attention_heads": 4, "num_hidden_layers": OWN, "num_attention_heads": OWN,
}  # fmt: skip
"""The decoder of an encoder-decoder."""
WINDOW = {"sliding_window": 6}

DENSE = (
    _right("Llama 3", "llama"),
    _right("Llama 2, head untied", "llama", tie_word_embeddings=False, num_key_value_heads=4),
    _right("Qwen2", "qwen2", tie_word_embeddings=True),
    _right("Qwen3", "qwen3"),
    _right("Mistral", "mistral", **WINDOW),
    _right("Ministral", "ministral", **WINDOW),
    _right("Ministral 3", "ministral3"),
    _right("OLMo", "olmo"),
    _right("OLMo 2", "olmo2"),
    _right("OLMo 3", "olmo3", **WINDOW),
    _right("SmolLM3", "smollm3"),
    _right("Gemma", "gemma"),
    _right("Gemma 2", "gemma2", **WINDOW),
    _right("Gemma 3", "gemma3_text", **WINDOW),
    _right(
        "Gemma 3n", "gemma3n_text", body=0.75, num_kv_shared_layers=0, vocab_size_per_layer_input=300,
        hidden_size_per_layer_input=8, laurel_rank=8, layer_types=["sliding_attention", "full_attention"],
        activation_sparsity_pattern=[0.0, 0.0], **WINDOW,
    ),
    _right(
        "Gemma 4", "gemma4_text", vocab_size_per_layer_input=300, hidden_size_per_layer_input=8, **WINDOW
    ),
    _right("VaultGemma", "vaultgemma"),
    _right("GPT-2", "gpt2"),
    _right("GPT-Neo", "gpt_neo", attention_types=[[["global", "local"], 1]], window_size=6),
    _right("GPT-NeoX", "gpt_neox"),
    _right("GPT-NeoX-Japanese", "gpt_neox_japanese"),
    _right("GPT-J", "gptj", rotary_dim=4),
    _right("OpenAI-GPT", "openai-gpt"),
    _right("GPT-BigCode", "gpt_bigcode"),
    _right("CodeGen", "codegen", rotary_dim=4),
    _right("Phi", "phi"),
    _right("Phi-3", "phi3"),
    _right("Falcon", "falcon", head_dim=OWN),
    _right("BLOOM", "bloom"),
    _right("MPT", "mpt"),
    _right("OPT", "opt", word_embed_proj_dim=32, ffn_dim=48),
    _right("StarCoder2", "starcoder2"),
    _right("Cohere", "cohere"),
    _right("Cohere2", "cohere2", **WINDOW),
    _right("Granite", "granite"),
    _right("StableLM", "stablelm"),
    _right("Nemotron", "nemotron"),
    _right("Persimmon", "persimmon"),
    _right("Arcee", "arcee"),
    _right("Apertus", "apertus"),
    _right("Helium", "helium"),
    _right("GLM", "glm"),
    _right("GLM-4", "glm4"),
    _right("ERNIE 4.5", "ernie4_5"),
    _right("EXAONE 4", "exaone4", **WINDOW),
    _right("Seed-OSS", "seed_oss"),
    _right("HunYuan", "hunyuan_v1_dense"),
    _right("NanoChat", "nanochat"),
    _right("DiffLlama", "diffllama"),
    _right("Doge", "doge"),
    _right("BitNet", "bitnet"),
    _right("CWM", "cwm", bos_token_id=OWN, eos_token_id=OWN, pad_token_id=OWN),
    _right("MiniCPM3", "minicpm3", **LATENT),
    _right("BioGPT", "biogpt"),
    _right("CTRL", "ctrl", dff=48),
    _right(
        "ModernBERT decoder", "modernbert-decoder", pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
        sep_token_id=2, local_attention=6,
    ),
)  # fmt: skip

MIXTURES = (
    _right("Mixtral", "mixtral", **EXPERTS),
    _right("Phi-MoE", "phimoe", **EXPERTS),
    _right("Qwen2-MoE", "qwen2_moe", **SHARED),
    _right("Qwen3-MoE", "qwen3_moe", **EXPERTS),
    _right("OLMoE", "olmoe", **EXPERTS),
    _right("FlexOLMo", "flex_olmo", **EXPERTS),
    _right("Granite MoE", "granitemoe", **EXPERTS),
    _right("Granite MoE shared", "granitemoeshared", shared_intermediate_size=24, **EXPERTS),
    _right("Cohere2 MoE", "cohere2_moe", **EXPERTS),
    _right("DeepSeek-V2", "deepseek_v2", **LATENT, **ROUTED),
    _right("DeepSeek-V3", "deepseek_v3", **LATENT, **ROUTED),
    _right(
        "DeepSeek-V3.2", "deepseek_v32", body=0.8, index_topk=4, index_n_heads=16, index_head_dim=8, **LATENT, **ROUTED
    ),
    _right(
        "DeepSeek-V4", "deepseek_v4", n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
        q_lora_rank=12, kv_lora_rank=12,
    ),
    _right("GLM-4 MoE", "glm4_moe", **ROUTED),
    _right("dots.llm1", "dots1", **ROUTED),
    _right("ERNIE 4.5 MoE", "ernie4_5_moe", moe_num_experts=4, moe_k=2, moe_intermediate_size=24),
    _right("GPT-OSS", "gpt_oss", **WINDOW, **EXPERTS),
    _right("JetMoE", "jetmoe", **EXPERTS),
    _right(
        "DBRX", "dbrx", d_model=32, n_heads=4, n_layers=2, max_seq_len=64,
        attn_config={"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    _right("Llama 4", "llama4_text", attention_chunk_size=6, intermediate_size_mlp=48, **EXPERTS),
    _right("MiniMax", "minimax", block_size=8, **EXPERTS),
    _right(
        "LongCat-Flash", "longcat_flash", n_routed_experts=4, zero_expert_num=2, moe_topk=2, num_layers=1,
        ffn_hidden_size=48, expert_ffn_hidden_size=24, **LATENT | {"head_dim": 8},
    ),
)  # fmt: skip
RECURRENT = (
    _right("Mamba", "mamba", state_size=8, time_step_rank=4, body=0.8),
    _right("Mamba2", "mamba2", num_heads=8, head_dim=8, state_size=8, n_groups=2, chunk_size=8),
    _right("FalconMamba", "falcon_mamba", state_size=8, time_step_rank=4, body=0.8),
    _right("xLSTM", "xlstm", num_heads=4, chunk_size=8),
    _right("RWKV", "rwkv"),
    _right("RecurrentGemma", "recurrent_gemma", lru_width=32, attention_window_size=6, num_hidden_layers=3),
    _right(
        "Zamba", "zamba", body=0.75, num_hidden_layers=5, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=8,
        mamba_dt_rank=4, n_mamba_heads=2,
    ),
    _right(
        "Zamba2", "zamba2", body=0.85, num_hidden_layers=3, layer_types=["mamba", "hybrid", "hybrid"],
        hybrid_layer_ids=[1, 2], num_mem_blocks=1, mamba_d_state=8, n_mamba_heads=4, mamba_headdim=16,
        mamba_ngroups=1, chunk_size=8, adapter_rank=4, num_key_value_heads=4, attention_head_dim=16,
    ),
    _right("LFM2", "lfm2", layer_types=["conv", "full_attention"]),
    _right(
        "LFM2 MoE", "lfm2_moe", num_dense_layers=1, layer_types=["conv", "full_attention"], **EXPERTS
    ),
    _right("Falcon-H1", "falcon_h1", mamba_d_ssm=32, mamba_n_heads=4, **MAMBA),
    _right("Bamba", "bamba", attn_layer_indices=[1], mamba_n_heads=8, **MAMBA),
    _right(
        "Granite 4 hybrid", "granitemoehybrid", layer_types=["mamba", "attention"], mamba_n_heads=8,
        shared_intermediate_size=24, **MAMBA,
    ),
    _right(
        "Nemotron-H", "nemotron_h", hybrid_override_pattern="M*-E", num_hidden_layers=4, mamba_num_heads=4,
        mamba_head_dim=16, ssm_state_size=8, n_groups=1, chunk_size=8, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=24, moe_shared_expert_intermediate_size=24,
    ),
    _right(
        "Jamba", "jamba", attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=1, mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False, **EXPERTS,
    ),
    _right("OLMo Hybrid", "olmo_hybrid"),
    _right("Qwen3-Next", "qwen3_next", **DELTA, **SHARED),
    _right("Qwen3.5", "qwen3_5_text", **DELTA),
    _right(
        "Kimi Linear", "kimi_linear", num_local_experts=4, linear_head_dim=8, linear_num_heads=4,
        layer_types=["linear_attention", "full_attention"], **LATENT | {"head_dim": 8}, **ROUTED,
    ),
)  # fmt: skip

BERTS = (
    _right("BERT as a decoder", "bert", is_decoder=True),
    _right("RoBERTa as a decoder", "roberta", is_decoder=True, pad_token_id=0),
    _right("X-MOD as a decoder", "xmod", is_decoder=True, pad_token_id=0, default_language="en_XX"),
    _refused("BERT", "bert", LEAKS),
    _refused("RoBERTa", "roberta", LEAKS, pad_token_id=0),
    _refused("XLM-R", "xlm-roberta", LEAKS, pad_token_id=0),
    _refused("CamemBERT", "camembert", LEAKS, pad_token_id=0),
    _refused("ELECTRA", "electra", LEAKS, embedding_size=32),
    _refused("BigBird", "big_bird", LEAKS),
    _refused("XLM", "xlm", LEAKS, pad_token_id=0),
    _refused("XLNet", "xlnet", LEAKS, max_position_embeddings=OWN, d_inner=48, d_head=8),
    _refused("RoFormer", "roformer", LEAKS),
    _refused("RemBERT", "rembert", LEAKS, input_embedding_size=32, output_embedding_size=32),
    _refused("ERNIE", "ernie", LEAKS),
    _refused("Megatron-BERT", "megatron-bert", LEAKS),
    _refused("data2vec", "data2vec-text", LEAKS, pad_token_id=0),
    _refused("BERT generation", "bert-generation", LEAKS, pad_token_id=0),
    _refused("EmbeddingGemma", "gemma3_text", LEAKS, use_bidirectional_attention=True),
    _refused("BERT with cross-attention", "bert", NO_ENCODER, is_decoder=True, add_cross_attention=True),
)
"""What masks its own inputs where it is told to be a decoder, and sees all of them otherwise."""

DECODERS = (
    _refused("BART's decoder", "bart", NO_ENCODER, **DECODER),
    _refused("mBART's decoder", "mbart", NO_ENCODER, **DECODER),
    _refused("Marian's decoder", "marian", NO_ENCODER, pad_token_id=0, **DECODER),
    _refused("Pegasus's decoder", "pegasus", NO_ENCODER, **DECODER),
    _refused("Whisper's decoder", "whisper", NO_ENCODER, pad_token_id=0, max_target_positions=64, **DECODER),
    _refused("TrOCR's decoder", "trocr", NO_ENCODER, **DECODER),
    _refused(
        "ProphetNet's decoder", "prophetnet", "needs an attention mask", pad_token_id=0, num_hidden_layers=OWN,
        num_attention_heads=OWN, num_encoder_layers=2, num_decoder_layers=2, num_encoder_attention_heads=4,
        num_decoder_attention_heads=4, decoder_ffn_dim=48, encoder_ffn_dim=48,
    ),
)  # fmt: skip

PICTURE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
PICTURES = (
    _right(
        "Gemma 3 with pictures", "gemma3", body=0.35, **dict.fromkeys(SMALL, OWN), vision_config=PICTURE,
        text_config={"vocab_size": VOCABULARY} | SMALL | WINDOW, mm_tokens_per_image=4, image_token_index=310,
        boi_token_index=311, eoi_token_index=312,
    ),
    _right("GIT", "git", body=0.4, vision_config=PICTURE),
)  # fmt: skip
"""What reads pictures too, read as the language model that it is without them; the rest is not called."""

FAMILIES = (*DENSE, *MIXTURES, *RECURRENT, *BERTS, *DECODERS, *PICTURES)
