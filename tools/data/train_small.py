"""Train a small Llama on a corpus, with a tokenizer of its own: a model that has seen what is indexed.

python tools/data/train_small.py .cache/bench/small/documents.jsonl .cache/models/small
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from gindex.corpus.batches import form_batches, pad
from gindex.corpus.objectives import Objective
from gindex.model.losses import CausalLanguageModel

BATCH_TOKENS = 2048


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-pair tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")


def make_model(vocabulary: int, width: int, blocks: int, family: str = "llama") -> PreTrainedModel:
    """Make the untrained model, a Llama or a GPT-2 without dropout."""
    if family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary, n_embd=width, n_layer=blocks, n_head=4, n_positions=512, resid_pdrop=0.0,
                embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=blocks,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def train(model: PreTrainedModel, parts: list[np.ndarray], epochs: int, rate: float) -> None:
    """Train with AdamW and a cosine schedule, a batch of similar lengths a step."""
    task = CausalLanguageModel(model)
    model.requires_grad_(True)
    lengths = np.array([len(part) for part in parts])
    groups = form_batches(np.arange(len(parts)), lengths, BATCH_TOKENS)
    steps, generator, start = epochs * len(groups), np.random.default_rng(0), time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    for epoch in range(epochs):
        total = 0.0
        for number in generator.permutation(len(groups)):
            group = groups[number]
            losses_N = task.losses(pad([Objective.counting(parts[n]) for n in group], group))
            optimizer.zero_grad()
            (losses_N.sum() / (lengths[group] - 1).sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(losses_N.detach().sum())
        left = (time.monotonic() - start) / (epoch + 1) * (epochs - epoch - 1)
        per_token = total / (lengths - 1).sum()
        print(f"epoch {epoch + 1}/{epochs}: {per_token:.3f} nats a token, {left:.0f} s left", file=sys.stderr)


def main() -> None:
    """Train and save the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    texts = [json.loads(line)["text"] for line in arguments.corpus.read_text(encoding="utf-8").splitlines()]
    tokenizer = train_tokenizer(texts, arguments.vocabulary)
    model = make_model(len(tokenizer), arguments.width, arguments.blocks)
    parts = [np.array(tokenizer(text).input_ids[:512], np.uint32) for text in texts]
    train(model, parts, arguments.epochs, arguments.rate)
    model.eval().save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
