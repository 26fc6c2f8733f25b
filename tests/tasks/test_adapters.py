"""Adapters of classifiers, word classifiers, encoder-decoders and masked language models, with heads of their own.

Gradients are compared with autograd of transformers' own loss through peft's own layers, in float64.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from adapters import gradients_of, peft
from safetensors.torch import load_file, save_file
from torch import nn

from gindex.config import ModelConfig
from gindex.corpus.batches import pad
from gindex.corpus.labelled_texts import read_text
from gindex.corpus.labelled_words import read_words
from gindex.corpus.masking import asked_at
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.errors import ModelError
from gindex.model.tracked_model import TrackedModel
from gindex.vectors.influence import document_gradients
from tests.support.task_models import BERT_LIKE, LLAMA_LIKE, SENTIMENT, T5_LIKE, WORDS, word_tokenizer

TOLERANCE = 1e-9
"""Of sums of a few hundred products in float64."""

TEXTS = (7, 2, 12)
NO_END = {name: size for name, size in LLAMA_LIKE.items() if name != "pad_token_id"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """An adapter.

    Attributes:
        base: Class of its base, with its configuration's.
        trained: Class that it was trained as.
        sizes: The base's configuration.
        peft_task: Its task by peft's name.
        task: Its task here.
        labels: How many its head has.
        targets: Layers beside which it is.
        whole: Modules that were trained whole, beside those that peft adds.
        asks: `task` as the user gives it.
    """

    base: tuple[str, str]
    trained: str
    sizes: dict[str, Any]
    peft_task: str | None
    task: str
    labels: int | None = None
    targets: tuple[str, ...] = ("query", "value")
    whole: tuple[str, ...] = ()
    asks: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> nn.Module:
        """Write base and adapter, and return peft's own model."""
        torch.manual_seed(0)
        config = getattr(transformers, self.base[1])(**self.sizes)
        getattr(transformers, self.base[0])(config).save_pretrained(folder / "base")
        word_tokenizer(pairs_differ=False).save_pretrained(folder / "base")
        labels = {} if self.labels is None else {"num_labels": self.labels}
        pads = {"pad_token_id": 0}
        model = getattr(transformers, self.trained).from_pretrained(
            folder / "base", ignore_mismatched_sizes=True, **labels, **pads
        )
        settings = peft.LoraConfig(
            task_type=self.peft_task, r=2, target_modules=list(self.targets), init_lora_weights=False,
            modules_to_save=list(self.whole) or None,
        )  # fmt: skip
        adapted = peft.get_peft_model(model, settings)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
        adapted.save_pretrained(folder / "adapter")
        return adapted.eval()


BERT = ("BertForMaskedLM", "BertConfig")
CASES = {
    "a classifier on a language model": Case(
        base=("BertForPreTraining", "BertConfig"), trained="BertForSequenceClassification", sizes=BERT_LIKE,
        peft_task="SEQ_CLS", task="classification", labels=3,
    ),
    "a classifier on a causal language model without padding": Case(
        base=("LlamaForCausalLM", "LlamaConfig"), trained="LlamaForSequenceClassification", sizes=NO_END,
        peft_task="SEQ_CLS", task="classification", labels=4, targets=("q_proj", "down_proj"),
    ),
    "a value with a head of two layers": Case(
        base=("RobertaForMaskedLM", "RobertaConfig"), trained="RobertaForSequenceClassification", sizes=BERT_LIKE,
        peft_task="SEQ_CLS", task="classification", labels=1,
    ),
    "a classifier on another classifier": Case(
        base=("BertForSequenceClassification", "BertConfig"), trained="BertForSequenceClassification",
        sizes=BERT_LIKE | {"num_labels": 5}, peft_task="SEQ_CLS", task="classification", labels=3,
    ),
    "a classifier whose base has its head": Case(
        base=("BertForSequenceClassification", "BertConfig"), trained="BertForSequenceClassification",
        sizes=BERT_LIKE | SENTIMENT, peft_task=None, task="classification",
    ),
    "words on a model without a head": Case(
        base=("BertModel", "BertConfig"), trained="BertForTokenClassification", sizes=BERT_LIKE, peft_task="TOKEN_CLS",
        task="token-classification", labels=3,
    ),
    "words, whose task is given": Case(
        base=BERT, trained="BertForTokenClassification", sizes=BERT_LIKE, peft_task=None, labels=3,
        task="token-classification", whole=("classifier",), asks={"task": "token-classification"},
    ),
    "an encoder-decoder": Case(
        base=("T5ForConditionalGeneration", "T5Config"), trained="T5ForConditionalGeneration", sizes=T5_LIKE,
        peft_task="SEQ_2_SEQ_LM", task="seq2seq", targets=("q", "v", "wo"),
    ),
    "a masked language model": Case(
        base=BERT, trained="BertForMaskedLM", sizes=BERT_LIKE, peft_task=None, task="masked",
    ),
}  # fmt: skip


def load(folder: Path, **options: Any) -> TrackedModel:
    return TrackedModel.load(ModelConfig(name=str(folder / "adapter"), device="cpu", dtype="float32", **options))


def text(n: int, length: int) -> str:
    return " ".join(np.random.default_rng((n, length)).choice(WORDS, length))


def labelled(model: TrackedModel, n: int, length: int) -> tuple[WeightedTokens, dict]:
    labels = model.loaded.kind.labels
    given = 0.5 * n if len(labels.names) == 1 else n % len(labels.names)
    read = read_text(model.loaded.tokenizer, text(n, length), None, 1000)
    return read.asked(labels.read(given, "label")), {
        "input_ids": torch.tensor([read.ids]),
        "labels": torch.tensor([given], dtype=torch.float64 if len(labels.names) == 1 else torch.int64),
    }


def worded(model: TrackedModel, n: int, length: int) -> tuple[WeightedTokens, dict]:
    words = text(n, length).split()
    read = read_words(model.loaded.tokenizer, words, "words")
    labels = [(n + word) % 3 for word in range(length)]
    return read.asked(labels), {
        "input_ids": torch.tensor([read.ids]),
        "labels": torch.tensor([[-100, *labels, -100]]),  # each word is one token, between [CLS] and [SEP]
    }


def decoded(model: TrackedModel, n: int, length: int) -> tuple[WeightedTokens, dict]:
    source, target = (model.loaded.tokenizer(text(n, size)).input_ids for size in (length, 15 - length))
    ids, weights = np.array([*source, *target], np.uint32), np.ones(len(source) + len(target), np.float32)
    weights[: len(source)] = 0
    given = {"input_ids": torch.tensor([source]), "labels": torch.tensor([target])}
    return WeightedTokens(ids, weights, second=len(source)), given


def masked(model: TrackedModel, n: int, length: int) -> tuple[WeightedTokens, dict]:
    ids = np.array(model.loaded.tokenizer(text(n, length)).input_ids, np.uint32)
    labels = torch.full((1, len(ids)), -100)
    labels[0, 1] = int(ids[1])
    read = torch.from_numpy(ids.astype(np.int64))[None].clone()
    read[0, 1] = model.loaded.tokenizer.mask_token_id
    return asked_at(ids, np.array([1]), model.loaded.tokenizer.mask_token_id), {"input_ids": read, "labels": labels}


MAKERS: dict[str, Callable[..., tuple[WeightedTokens, dict]]] = {
    "classification": labelled,
    "token-classification": worded,
    "seq2seq": decoded,
    "masked": masked,
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_adapter_and_head_are_those_of_pefts_own_model(name, tmp_path):
    case = CASES[name]
    reference = case.write(tmp_path)
    model = load(tmp_path, **case.asks)
    assert model.loaded.kind.name == case.task and model.table.share == 1
    heads = {layer.name for layer in model.table if "lora_" not in layer.name}
    assert bool(heads) is (case.labels is not None)
    model.loaded.model.double()
    reference.double()
    made = [MAKERS[case.task](model, n, length) for n, length in enumerate(TEXTS)]
    batch = pad([Objective((asked,)) for asked, _ in made], np.arange(len(made)))
    G_NW, space = document_gradients(model.table.layers, len(made), partial(model.task.losses, batch))
    found = space.split(G_NW)
    for n, (_, given) in enumerate(made):
        labels = given["labels"]
        loss = reference(**given).loss * (labels.numel() if labels.is_floating_point() else int((labels >= 0).sum()))
        for layer, expected in gradients_of(reference, model.table.layers, loss).items():
            error = float((found[layer][n] - expected).norm())
            assert error <= TOLERANCE * max(float(expected.norm()), 1e-3), (layer, error)


def test_a_base_keeps_its_fingerprint_although_its_head_is_new(tmp_path):
    CASES["a classifier on a language model"].write(tmp_path)
    first, second = load(tmp_path).loaded, load(tmp_path).loaded
    assert first.identity == second.identity and first.adapter


def test_an_index_of_a_classifier_s_adapter_is_built_and_searched(tmp_path, run):
    """The head alone tells texts of two words apart; documents with the query's label lead."""
    CASES["a classifier on a language model"].write(tmp_path)
    records = [{"id": f"d{n}", "text": text(n, 5), "label": f"LABEL_{n % 3}"} for n in range(12)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    built = run(
        "build", tmp_path / "corpus.jsonl", "--model", tmp_path / "adapter", "--out", tmp_path / "index", "--device",
        "cpu", "--dimension", 256, "--rank-fraction", 1, "--index-damping", 1, "--fidelity-queries", 0,
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    found = run("search", tmp_path / "index", text(0, 5), "--label", "LABEL_0", "--exact", "--json", "--device", "cpu")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["hits"][0]["document_id"] == "d0"


def _without_head(folder: Path) -> None:
    path = folder / "adapter/adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(path).items() if "lora_" in name}, path)


def _settings(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter/adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (_without_head, {}, "lacking 2 \\(classifier.bias, classifier.weight\\)"),
        (
            _settings(task_type="QUESTION_ANS"),
            {},
            "one of the tasks CAUSAL_LM, SEQ_CLS, .*, found one for QUESTION_ANS",
        ),
        (_settings(), {"task": "masked"}, "an adapter for `task` masked, found one for SEQ_CLS; leave `task` out"),
        (_settings(), {"task": "module:function"}, "an adapter for `task` module:function, found one for SEQ_CLS"),
        (_settings(task_type=None), {}, "with|no others"),
        (_settings(task_type="SEQ_2_SEQ_LM"), {}, "BertForPreTraining"),
        (_settings(task_type="CAUSAL_LM"), {}, "of BertLMHeadModel|causal"),
    ],
)
def test_an_adapter_of_another_task_is_refused_by_name(change, options, words, tmp_path):
    CASES["a classifier on a language model"].write(tmp_path)
    change(tmp_path)
    with pytest.raises(ModelError, match=words):
        load(tmp_path, **options)


def test_a_module_that_neither_base_nor_adapter_has_is_named(tmp_path):
    """The pooler of BERT, which its masked language model lacks, is random in every training."""
    Case(
        base=BERT, trained="BertForSequenceClassification", sizes=BERT_LIKE, peft_task="SEQ_CLS",
        task="classification", labels=3,
    ).write(tmp_path)  # fmt: skip
    with pytest.raises(ModelError, match=r"lacking 2 \(bert.pooler.dense.bias, .*; the adapter lacks them too"):
        load(tmp_path)


def test_gradients_of_a_picture_classifier_s_adapter_are_those_of_pefts_own_model(tmp_path):
    """A vision transformer of two classes, trained to three by LoRA and a head of its own."""
    pytest.importorskip("PIL")
    from tests.support.picture_models import save_picture_model

    save_picture_model("vit", tmp_path / "base")
    base = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "base", num_labels=3, ignore_mismatched_sizes=True
    )
    settings = peft.LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, modules_to_save=["classifier"]
    )
    reference = peft.get_peft_model(base, settings).eval()
    reference.save_pretrained(tmp_path / "adapter")
    model = load(tmp_path)
    assert model.loaded.kind.name == "image-classification" and model.table.share == 1
    model.loaded.model.double()
    reference.double()
    batch = pad([model.task.trial(np.array([n], np.uint32)) for n in range(3)], np.arange(3))
    G_NW, space = document_gradients(model.table.layers, 3, partial(model.task.losses, batch))
    found, pixels_NCHW = space.split(G_NW), model.task.inputs(batch)["pixel_values"]
    for n in range(3):
        loss = reference(pixel_values=pixels_NCHW[n : n + 1], labels=torch.tensor([0])).loss
        for layer, expected in gradients_of(reference, model.table.layers, loss).items():
            torch.testing.assert_close(found[layer][n], expected, rtol=TOLERANCE, atol=1e-12)
