"""Tiny random models of every task, from transformers' configurations, with tokenizers of words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from gindex.model.layer_records import LayerRecord
from gindex.model.layers import TrackedLayer

# fmt: off
WORDS = [
    "the", "a", "compiler", "kernel", "stack", "heap", "lock", "thread", "race", "cache", "page", "file", "disk", "bug",
    "patch", "test", "loop", "parser", "token",
]
# fmt: on
PIECES = ["##er", "##s"]
"""`locker` is two tokens, of which a word classifier is asked for the first."""

BERT_LIKE = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
LLAMA_LIKE = BERT_LIKE | {"num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3}
BART_LIKE = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3, "forced_eos_token_id": None,
}  # fmt: skip
T5_LIKE = {
    "vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 3,
}  # fmt: skip
DISTIL_LIKE = {"vocab_size": 40, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "pad_token_id": 0}
SENTIMENT = {"num_labels": 3, "id2label": {0: "bad", 1: "good", 2: "neither"}}
ENTITIES = {"num_labels": 3, "id2label": {0: "O", 1: "B-X", 2: "I-X"}}


@dataclass(frozen=True, kw_only=True)
class TaskModel:
    """A model and the task that it was trained to do.

    Attributes:
        name: What people call it.
        task: Its task.
        architecture: Its class in transformers.
        config: The class of its configuration there.
        sizes: The configuration.
    """

    name: str
    task: str
    architecture: str
    config: str
    sizes: dict[str, Any] = field(default_factory=dict)

    def make(self) -> nn.Module:
        """Make the model, with weights large enough that attention matters to its gradients."""
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**self.sizes)
        model: nn.Module = getattr(transformers, self.architecture)(config).eval()
        with torch.no_grad():
            fixed = {id(p) for m in model.modules() if "Sinusoidal" in type(m).__name__ for p in m.parameters()}
            for parameter in (p for p in model.parameters() if id(p) not in fixed):
                parameter.add_((0.15 if parameter.dim() > 1 else 0.05) * torch.randn_like(parameter))
        return model

    def save(self, folder: Path) -> Path:
        """Write the model and its tokenizer to a folder."""
        self.make().save_pretrained(folder)  # type: ignore[operator]
        word_tokenizer(pairs_differ=self.config == "BertConfig").save_pretrained(folder)
        return folder


def word_tokenizer(*, pairs_differ: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of words that puts [CLS] and [SEP] around texts, and numbers those of a pair where asked."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: number for number, token in enumerate([*special, *WORDS, *PIECES])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    second = ":1" if pairs_differ else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B{second} [SEP]{second}",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", *(["token_type_ids"] if pairs_differ else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        mask_token="[MASK]", model_input_names=names,
    )  # fmt: skip


def _of(task: str, ending: str) -> Callable[..., TaskModel]:
    def make(name: str, prefix: str, sizes: dict[str, Any], **more: Any) -> TaskModel:
        return TaskModel(
            name=name, task=task, architecture=f"{prefix}{ending}", config=f"{prefix}Config", sizes=sizes | more
        )

    return make


_masked, _labels = _of("masked", "ForMaskedLM"), _of("classification", "ForSequenceClassification")
_words, _seq2seq = _of("token-classification", "ForTokenClassification"), _of("seq2seq", "ForConditionalGeneration")

TASK_MODELS = (
    _masked("BERT", "Bert", BERT_LIKE),
    _masked("RoBERTa", "Roberta", BERT_LIKE),
    _masked("ModernBERT", "ModernBert", BERT_LIKE, global_attn_every_n_layers=2, local_attention=6),
    _masked("DistilBERT", "DistilBert", DISTIL_LIKE),
    _masked("DeBERTa v2", "DebertaV2", BERT_LIKE, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    _masked("ALBERT, one block for all layers", "Albert", BERT_LIKE, embedding_size=12),
    _masked("ELECTRA's generator", "Electra", BERT_LIKE, embedding_size=16),
    _labels("BERT, one class", "Bert", BERT_LIKE, **SENTIMENT),
    _labels("BERT, several classes", "Bert", BERT_LIKE, **SENTIMENT, problem_type="multi_label_classification"),
    _labels("RoBERTa, a value", "Roberta", BERT_LIKE, num_labels=1),
    _labels("BERT, values", "Bert", BERT_LIKE, num_labels=2, problem_type="regression"),
    _labels("DistilBERT, one class", "DistilBert", DISTIL_LIKE, **SENTIMENT),
    _labels("Llama, last token", "Llama", LLAMA_LIKE, **SENTIMENT),
    _labels(
        "GPT-2, last token", "GPT2", {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0},
        **SENTIMENT,
    ),
    _words("BERT, words", "Bert", BERT_LIKE, **ENTITIES),
    _words("RoBERTa, words", "Roberta", BERT_LIKE, **ENTITIES),
    _seq2seq("T5", "T5", T5_LIKE),
    _seq2seq("T5 v1.1", "T5", T5_LIKE, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    _seq2seq("BART", "Bart", BART_LIKE),
    _seq2seq("mBART", "MBart", BART_LIKE),
    _seq2seq("Pegasus", "Pegasus", BART_LIKE),
    TaskModel(
        name="Marian", task="seq2seq", architecture="MarianMTModel", config="MarianConfig", sizes=BART_LIKE
    ),
)  # fmt: skip


def reference_gradients(
    model: nn.Module, layers: Sequence[TrackedLayer | LayerRecord], given: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of transformers for one document times the number of its labels, and its gradients [O, I] by layer.

    Args:
        model: A model of transformers.
        layers: The layers; each is found in the model by its name.
        given: What the model takes, with labels.
    """
    modules = {layer.name: model.get_submodule(layer.name) for layer in layers}
    weights = [p for m in modules.values() for p in (m.weight, getattr(m, "bias", None)) if p is not None]
    model.requires_grad_(True)
    try:
        labels = given["labels"]
        counted = labels.numel() if labels.is_floating_point() else int((labels != -100).sum())
        total: Tensor = model(**given).loss * counted
        found = torch.autograd.grad(total, weights, allow_unused=True)
    finally:
        model.requires_grad_(False)
    by_weight = {id(w): torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)}
    gradients = {}
    for layer in layers:
        module = modules[layer.name]
        W_OI = by_weight[id(module.weight)]
        W_OI = W_OI.T if type(module).__name__ == "Conv1D" else W_OI
        bias = [by_weight[id(module.bias)][:, None]] if getattr(module, "bias", None) is not None else []
        gradients[layer.name] = torch.cat([W_OI, *bias], 1)
    return total.detach(), gradients
