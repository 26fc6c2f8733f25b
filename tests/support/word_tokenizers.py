"""A tiny word tokenizer that needs no network."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ["<unk>", "<s>", "a", "b", "c", "d", "e", "one", "two", "three"]


def word_tokenizer(*, begin: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begin:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", model_max_length=4)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Words at spaces, no special tokens, and a model of four tokens."""
    return word_tokenizer(begin=False)


@pytest.fixture
def beginning_tokenizer() -> PreTrainedTokenizerFast:
    """The same with <s> before every text."""
    return word_tokenizer(begin=True)
