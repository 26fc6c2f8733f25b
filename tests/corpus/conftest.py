"""A tiny word tokenizer that needs no network."""

from word_tokenizers import beginning_tokenizer, tokenizer

__all__ = ["beginning_tokenizer", "tokenizer"]
