"""Fine-tuning a small language model: the training function, and the methods that come with it."""

import json
import shutil

import numpy as np
import pytest
import torch

from gindex.errors import ConfigError, CorpusError
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
        ("queries.jsonl", "{", "expected JSON lines with 'prompt'"),
        ("recipe.json", '{"epoch": 3}', "recipe.json: expected settings"),
        ("recipe.json", '{"epochs": 0}', "recipe: expected positive numbers"),
    ],
)
def test_a_folder_that_is_not_one_is_refused(tmp_path, folder, name, content, message):
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("index", "tuned"))
    (tmp_path / "copy" / name).write_text(content)
    with pytest.raises((ConfigError, CorpusError), match=message):
        FineTuning(tmp_path / "copy")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"documents\.jsonl"):
        load_experiment(f"fine-tuning:{tmp_path}/none")
