"""Fine-tuning a small language model: the training function, and the methods that come with it."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gindex.errors import ConfigError, CorpusError, QueryError
from gindex.lab.evaluations.experiments import load_experiment
from gindex.lab.evaluations.fine_tuning import FineTuning, _places


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model_folder, corpus_file):
    """Thirty documents; the queries are three of them."""
    out = tmp_path_factory.mktemp("tuning")
    shutil.copytree(model_folder, out / "model")
    lines = corpus_file.read_text().splitlines()[:30]
    (out / "documents.jsonl").write_text("\n".join(lines) + "\n")
    texts = [json.loads(line)["text"] for line in lines]
    (out / "queries.jsonl").write_text("\n".join(json.dumps({"prompt": texts[n]}) for n in (3, 8, 21)))
    (out / "recipe.json").write_text('{"epochs": 2, "batch_tokens": 64, "rate": 0.003}')
    return out


@pytest.fixture(scope="module")
def function(folder):
    return FineTuning(folder)


def test_trainings_start_afresh_and_depend_on_subset_and_seed_alone(function):
    half, other = np.arange(15), np.arange(15, 30)
    first = function(half, 0)
    assert not np.array_equal(function(other, 0), first)
    assert not np.array_equal(function(half, 1), first)
    np.testing.assert_array_equal(function(half, 0), first)


def test_training_on_a_document_lowers_its_loss(function):
    nothing = function(np.arange(0), 0)
    only = function(np.array([8]), 0)
    assert only[1] < nothing[1] and nothing[1] - only[1] == max(nothing - only)


def test_one_epoch_of_one_batch_is_one_step_of_adamw(folder, make_small_model, small_tokenizer):
    """Reference: the step written out, with the whole rate, since a warm-up of one step has none."""
    function = FineTuning(folder)
    function.recipe = type(function.recipe)(epochs=1, batch_tokens=1024, rate=1e-3)
    trained = dict(function.train(np.array([4]), 0).named_parameters())
    model = make_small_model(len(small_tokenizer))
    text = json.loads((folder / "documents.jsonl").read_text().splitlines()[4])["text"]
    ids = torch.tensor([small_tokenizer(text).input_ids])
    model(ids, labels=ids).loss.backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            moved = weight.detach() - 1e-3 * weight.grad / (weight.grad.abs() + 1e-8)
            # A gradient near eps is where rounding may change the step; a step is at most 1e-3.
            assert (trained[name] - moved).abs().median() < 1e-6, name


CHATS = [
    {"id": "asked", "messages": [{"role": "user", "content": "the heap"}, {"role": "assistant", "content": "a lock"}]},
    {"id": "answered", "prompt": "the race", "completion": " of a thread"},
    {"id": "preferred", "prompt": "the page", "chosen": " file", "rejected": " disk race"},
]


@pytest.fixture
def chats(tmp_path, chat_model):
    """Documents and queries of three forms, and a recipe of one step of one document."""
    shutil.copytree(chat_model, tmp_path / "model")
    for name in ("documents", "queries"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in CHATS))
    (tmp_path / "recipe.json").write_text('{"epochs": 1, "rate": 0.001}')
    return FineTuning(tmp_path)


def log_likelihood(model, tokenizer, before, said):
    """Of the tokens of what is said after a text, and their number."""
    prompt, ids = tokenizer(before).input_ids, tokenizer(before + said).input_ids
    assert ids[: len(prompt)] == prompt
    log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(log_p[t - 1, ids[t]] for t in range(len(prompt), len(ids))), len(ids) - len(prompt)


def reference_loss(number, model, tokenizer):
    """The mean loss of what counts in a document: of the tokens that are said, or of a preference at beta 0.1."""
    turns = "<|im_start|>user\nthe heap<|im_end|>\n<|im_start|>assistant\n"
    if number == 2:
        (chosen, _), (rejected, _) = (log_likelihood(model, tokenizer, "the page", s) for s in (" file", " disk race"))
        return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected))
    before, said = [(turns, "a lock<|im_end|>"), ("the race", " of a thread")][number]
    value, count = log_likelihood(model, tokenizer, before, said)
    return -value / count


@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_step_on_a_document_of_any_form_is_one_step_on_the_loss_of_what_counts(chats, number):
    """Reference: the loss by its definition, and AdamW's first step, which is the rate times the gradient's sign."""
    model = AutoModelForCausalLM.from_pretrained(chats.folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(chats.folder / "model")
    reference_loss(number, model, tokenizer).backward()
    trained = dict(chats.train(np.array([number]), 0).named_parameters())
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            moved = weight.detach() - 1e-3 * weight.grad / (weight.grad.abs() + 1e-8)
            # A gradient near eps is where rounding may change the step; a step is at most 1e-3.
            assert (trained[name] - moved).abs().median() < 1e-6, name


def test_queries_of_every_form_have_the_summed_loss_of_what_counts(chats):
    """Reference: the mean losses by their definitions, times the tokens; a preference has one loss."""
    chats.train(np.arange(0), 0)
    model = AutoModelForCausalLM.from_pretrained(chats.folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(chats.folder / "model")
    counted = [tokens.objective.targets for tokens in chats.query_tokens[:2]] + [1]
    with torch.no_grad():
        expected = [float(reference_loss(n, model, tokenizer)) * counted[n] for n in range(3)]
    np.testing.assert_allclose(chats.losses(), expected, rtol=1e-5)  # float32


def test_a_document_in_which_nothing_counts_is_named(chats):
    (chats.folder / "documents.jsonl").write_text(json.dumps({"id": "mute", "input_ids": [5, 6], "loss_mask": [0, 0]}))
    with pytest.raises(ConfigError, match="document 'mute': expected a token that counts"):
        FineTuning(chats.folder).train(np.array([0]), 0)


def test_methods_cover_all_documents_and_find_the_query_itself(folder, function):
    experiment = load_experiment(f"fine-tuning:{folder}")
    assert experiment.documents == 30 and json.loads(experiment.source)[0]["epochs"] == 2
    scores = {name: method() for name, method in experiment.function.methods().items()}
    assert {name: of.shape for name, of in scores.items()} == dict.fromkeys(
        ["index", "exact", "funnel", "bm25"], (3, 30)
    )
    for name in ("index", "exact", "bm25"):
        places = [list(np.argsort(-of)).index(n) for of, n in zip(scores[name], (3, 8, 21), strict=True)]
        assert max(places) < 10, name  # of 30: by chance one time in 27; random weights know little more
    assert (folder / "tuned/model.safetensors").is_file()


def test_the_funnel_places_candidates_first():
    score, exact = np.array([[5.0, 4.0, 3.0, 2.0]]), np.array([[1.0, 2.0, 9.0, 8.0]])
    assert _places(score, exact, candidates=2).tolist() == [[-1.0, 0.0, -2.0, -3.0]]
    np.testing.assert_array_equal(np.argsort(-_places(score, exact)[0]), np.argsort(-exact[0]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("documents.jsonl", "", "expected at least one document"),
        ("documents.jsonl", '{"text": 3}', "documents.jsonl:1: expected a string in the text field 'text'"),
        ("queries.jsonl", "{", "queries.jsonl:1: expected a JSON object"),
        ("recipe.json", '{"epoch": 3}', "recipe.json: expected settings"),
        ("recipe.json", '{"epochs": 0}', "recipe: expected positive numbers"),
    ],
)
def test_a_folder_that_is_not_one_is_refused(tmp_path, folder, name, content, message):
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("index", "tuned"))
    (tmp_path / "copy" / name).write_text(content)
    with pytest.raises((ConfigError, CorpusError, QueryError), match=message):
        FineTuning(tmp_path / "copy")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"documents\.jsonl"):
        load_experiment(f"fine-tuning:{tmp_path}/none")
