"""A model and tokenizer as small as they can be, so that a build takes a fraction of a second."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gindex.config import BuildConfig, CorpusConfig, CurvatureConfig, FidelityConfig, ModelConfig, VectorConfig

from .scenarios import WORDS


def make_tiny_model(folder: Path, width: int = 8, blocks: int = 1) -> Path:
    """Write a Llama of so many dimensions and blocks with a word tokenizer; return its folder."""
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["<unk>", *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 1,
        hidden_size=width,
        intermediate_size=3 * width // 2,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


def tiny_config(model: Path, seed: int = 0) -> BuildConfig:
    """Settings of a build over a few documents with this model."""
    return BuildConfig(
        model=ModelConfig(name=str(model), device="cpu"),
        corpus=CorpusConfig(max_tokens=16),
        curvature=CurvatureConfig(fit_documents=4, index_damping=10.0),
        vectors=VectorConfig(dimension=64, rank_fraction=0.5, bits=4),
        fidelity=FidelityConfig(queries=0),
        seed=seed,
    )
