"""Make a small chat model: a tokenizer with marks of turns, and a Llama that has read entries of the Jargon File."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from fine_tune import encode, train
from make_conversations import LEXICON
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gindex.config import ModelConfig
from gindex.model.load import load_model

START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}"
    f"{{{{ '{START}' + message['role'] + '\\n' + message['content'] + '{END}\\n' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{START}assistant\\n' }}}}{{% endif %}}"
)
"""ChatML."""

EPOCHS = 3
"""Passes over the entries."""


def make_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-pair tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[START, END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END, chat_template=TEMPLATE
    )


def make_small_model(out: Path, conversations: Path, *, width: int) -> None:
    """Make tokenizer and model, let it read the entries, and save it.

    Args:
        out: Folder of the model.
        conversations: What else the tokenizer is trained on.
        width: Width of the model, a multiple of 8.
    """
    torch.manual_seed(0)
    texts = [json.loads(line)["text"] for line in LEXICON.read_text(encoding="utf-8").splitlines()]
    tokenizer = make_tokenizer([*texts, *conversations.read_text(encoding="utf-8").splitlines()], 2048)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    tokenizer.save_pretrained(out)
    LlamaForCausalLM(config).save_pretrained(out)
    loaded = load_model(ModelConfig(name=str(out), dtype="float32", device="cpu"))
    train(loaded, list(loaded.model.parameters()), encode(LEXICON, loaded), epochs=EPOCHS, rate=2e-3)
    loaded.model.save_pretrained(out)
