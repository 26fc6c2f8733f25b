"""What a task has no use for is refused before any work, in one line that says what to do."""

import json
import re

import pytest
import transformers

from gindex.build.run import settled
from gindex.config import BuildConfig, CorpusConfig, ModelConfig
from gindex.errors import ConfigError, CorpusError, ModelError, QueryError, TokenizerError
from gindex.model.load import load_model, read_model
from gindex.model.tracked_model import TrackedModel
from gindex.queries.query import Query
from gindex.queries.tokens import tokenize_query
from tests.support.task_models import BERT_LIKE, TASK_MODELS, word_tokenizer

MODEL = {of.name: of for of in TASK_MODELS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of models, each made when it is first asked for."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = MODEL[name].save(tmp_path_factory.mktemp("model"))
        return made[name]

    return folder


@pytest.fixture(scope="module")
def loaded(folders):
    found = {}

    def load(name):
        if name not in found:
            found[name] = load_model(ModelConfig(name=str(folders(name)), device="cpu"))
        return found[name]

    return load


@pytest.mark.parametrize("of", TASK_MODELS, ids=lambda of: of.name)
def test_the_task_is_read_from_the_architecture(of, folders):
    assert read_model(ModelConfig(name=str(folders(of.name)))).folder.kind.name == of.task
    assert read_model(ModelConfig(name=str(folders(of.name)), task=of.task)).folder.kind.name == of.task


@pytest.mark.parametrize(
    ("name", "task", "words"),
    [
        ("BERT", "causal", "does not predict next tokens"),
        ("BERT", "classification", "expected a classifier of texts, for `task` classification, found BertForMaskedLM"),
        ("BERT, one class", "token-classification", "found BertForSequenceClassification"),
        ("BERT, words", "masked", "expected a masked language model, for `task` masked"),
        ("T5", "causal", "an encoder-decoder \\(T5ForConditionalGeneration\\)"),
        ("T5", "masked", "found T5ForConditionalGeneration"),
        ("BERT", "seq2seq", "found BertForMaskedLM"),
    ],
)
def test_a_head_that_is_not_the_tasks(name, task, words, folders):
    with pytest.raises(ModelError, match=words):
        read_model(ModelConfig(name=str(folders(name)), task=task))


def test_a_causal_model_is_no_masked_one(model_folder):
    with pytest.raises(ModelError, match="expected a masked language model, for `task` masked, found LlamaForCausalLM"):
        read_model(ModelConfig(name=str(model_folder), task="masked"))


def test_a_tokenizer_without_a_mask(tmp_path):
    MODEL["BERT"].save(tmp_path)
    tokenizer = word_tokenizer()
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="expected a tokenizer with a mask token"):
        load_model(ModelConfig(name=str(tmp_path), device="cpu"))


def test_padding_that_is_read(tmp_path, monkeypatch):
    """A model that leaves its attention mask out."""
    folder = MODEL["BERT"].save(tmp_path)
    forward = transformers.BertModel.forward
    monkeypatch.setattr(
        transformers.BertModel, "forward", lambda self, ids, attention_mask=None, **more: forward(self, ids, **more)
    )
    with pytest.raises(ModelError, match="outputs that padding leaves as they are"):
        load_model(ModelConfig(name=str(folder), device="cpu"))


def test_what_pretraining_left_beside_a_masked_model_is_not_missed(tmp_path):
    """Checkpoints of BERT hold the head of next sentences, and a pooler."""
    model = transformers.BertForPreTraining(transformers.BertConfig(**BERT_LIKE))
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"architectures": ["BertForMaskedLM"]}))
    loaded = TrackedModel.load(ModelConfig(name=str(tmp_path), device="cpu"))
    assert loaded.loaded.kind.name == "masked" and len(loaded.table) == 13


def test_the_positions_of_robertas_family_begin_late(loaded):
    """Of 64 rows, one is the padding's and the first is never used."""
    assert loaded("RoBERTa").max_tokens == 63 and loaded("BERT").max_tokens == 64


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("BERT", {"form": "messages"}, "form"),
        ("BERT", {"pack": 16}, "pack"),
        ("BERT", {"label_field": "gold"}, "label_field"),
        ("BERT, one class", {"form": "text"}, "form"),
        ("BERT, one class", {"overlap": 4}, "overlap"),
        ("T5", {"text_field": "body"}, "text_field"),
        ("BERT, words", {"loss": "all"}, "loss"),
    ],
)
def test_settings_that_would_do_nothing(name, given, field, folders, corpus_file):
    config = BuildConfig(model=ModelConfig(name=str(folders(name))), corpus=CorpusConfig(**given))
    with pytest.raises(ConfigError) as caught:
        settled([str(corpus_file)], config)
    assert caught.value.field == field


def test_labels_are_of_no_use_to_a_causal_model(model_folder, corpus_file):
    for given in ({"form": "label"}, {"label_field": "gold"}, {"mask_share": 0.5}):
        config = BuildConfig(model=ModelConfig(name=str(model_folder)), corpus=CorpusConfig(**given))
        with pytest.raises(ConfigError, match="for `task` causal"):
            settled([str(corpus_file)], config)


RECORDS = {
    "no label": ("BERT, one class", {"text": "the stack"}, "the field of the form label, 'label'"),
    "null": ("BERT, one class", {"text": "the stack", "label": None}, "expected a label in the field 'label'"),
    "unknown": (
        "BERT, one class",
        {"text": "the stack", "label": "worse"},
        "bad, good, neither, or its number from 0 to 2",
    ),
    "too large": ("BERT, one class", {"text": "the stack", "label": 3}, "or its number from 0 to 2, found 3"),
    "half": ("BERT, one class", {"text": "the stack", "label": 0.5}, "found 0.5"),
    "several": ("BERT, one class", {"text": "the stack", "label": [0, 1]}, "found \\[0, 1\\]"),
    "blank": ("BERT, one class", {"text": " ", "label": 1}, "a text in the field 'text', found a blank one"),
    "value": ("RoBERTa, a value", {"text": "the stack", "label": "high"}, "expected a finite number, found 'high'"),
    "values": ("BERT, values", {"text": "the stack", "label": [1.0]}, "expected 2 finite numbers"),
    "no words": ("BERT, words", {"tokens": [], "ner_tags": []}, "and at least one, found 0 for 0"),
    "fewer labels": ("BERT, words", {"tokens": ["the", "stack"], "ner_tags": [0]}, "found 1 for 2"),
    "a tag": ("BERT, words", {"tokens": ["the"], "ner_tags": ["B-Y"]}, "word 1: expected a label of the model: O, B-X"),
    "a text": ("BERT, words", {"tokens": "the stack", "ner_tags": [0]}, "a list in the field 'tokens', found a string"),
    "no completion": ("T5", {"prompt": "the stack"}, "field of the form completion, 'completion'"),
    "turns": (
        "T5",
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
        "expected texts as prompt and completion",
    ),
    "no text": ("BERT", {"body": "the stack"}, "the text field 'text'"),
}


@pytest.mark.parametrize("which", RECORDS)
def test_records(which, folders, run, tmp_path):
    name, record, words = RECORDS[which]
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps(record) + "\n")
    found = run("build", path, "--model", folders(name), "--out", tmp_path / "index", "--device", "cpu")
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("gindex: ")]
    assert found.exit_code == CorpusError.exit_code
    assert re.search(words, line), line


QUERIES = {
    "no mask": ("BERT", Query(prompt="the stack", completion="heap"), "expected \\[MASK\\] in the prompt"),
    "nothing fills it": ("BERT", Query(prompt="the [MASK]"), "found no completion"),
    "too many": (
        "BERT",
        Query(prompt="the [MASK]", completion="stack heap"),
        "expected 1 token, one for each \\[MASK\\]",
    ),
    "too few": ("BERT", Query(prompt="[MASK] [MASK]", completion="stack"), "expected 2 tokens"),
    "a span outside": ("BERT", Query(prompt="the stack", span=(4, 40)), "characters within 0:9"),
    "a span of nothing": ("BERT", Query(prompt="the stack", span=(3, 4)), "characters of a token that can be masked"),
    "a span and a completion": (
        "BERT",
        Query(prompt="the stack", span=(0, 3), completion="a"),
        "`completion` beside `span`",
    ),
    "a label": ("BERT", Query(prompt="the [MASK]", label="good"), "label: expected a prompt with masks"),
    "messages": (
        "BERT",
        Query(messages=[{"role": "user", "content": "a"}]),
        "takes no other form \\(completion\\), found messages",
    ),
    "ids": ("T5", Query(input_ids=[5, 6]), "found tokens"),
    "long": ("BERT", Query(prompt="the [MASK] " * 40, completion="the " * 40), "at most 64 tokens"),
    "another label": (
        "BERT, one class",
        Query(prompt="the stack", label="worse"),
        "expected a label of the model: bad, good",
    ),
    "two labels": (
        "BERT, one class",
        Query(prompt="the stack", label="bad", completion="bad"),
        "one label as `label` or `completion`",
    ),
    "a span of a text": ("BERT, one class", Query(prompt="the stack", span=(0, 3)), "found a span"),
    "the same contrast": (
        "BERT, one class",
        Query(prompt="the stack", label=0, contrast="bad"),
        "another text than what was said",
    ),
    "a completion of words": ("BERT, words", Query(prompt="the stack", completion="O"), "expected a text with `label`"),
    "two labels of three": (
        "BERT, words",
        Query(prompt="the stack a", label=["O", "O"]),
        "one for each of 3 words, found 2",
    ),
    "no word": ("BERT, words", Query(prompt="the stack", span=(3, 4)), "a word in the span"),
    "no completion": ("T5", Query(prompt="the stack"), "found a prompt alone"),
    "a span past it": ("T5", Query(prompt="the", completion="a", span=(0, 9)), "characters within 0:1"),
}


@pytest.mark.parametrize("which", QUERIES)
def test_queries(which, loaded):
    name, query, words = QUERIES[which]
    with pytest.raises(QueryError, match=words):
        tokenize_query(query, loaded(name))


def test_a_causal_model_gives_no_labels(model_folder):
    loaded = load_model(ModelConfig(name=str(model_folder), device="cpu"))
    for more in ({"label": "good"}, {"pair": "a lock"}):
        with pytest.raises(QueryError, match="predicts the next token, and gives no labels"):
            tokenize_query(Query(prompt="the stack", **more), loaded)
    with pytest.raises(QueryError, match="a completion beside the span"):
        tokenize_query(Query(prompt="the stack", span=(0, 3)), loaded)
