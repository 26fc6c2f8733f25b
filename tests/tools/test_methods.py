"""The tool that compares methods: other packages read what gindex trains on, and rises are of the right losses."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.lab.evaluations.training import Experiment
from gindex.lab.evaluations.work_folder import WorkFolder

FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """The tool and a part of its peers, whose folders are on the path where they are run."""
    sys.path[:0] = [str(FOLDER), str(FOLDER / "peers")]
    try:
        return importlib.import_module("methods"), importlib.import_module("padded")
    finally:
        del sys.path[:2]


@pytest.fixture
def methods(modules):
    return modules[0]


def objective(ids, weights):
    return Objective((WeightedTokens(np.array(ids, np.uint32), np.array(weights, np.float32)),))


def test_tokens_that_do_not_count_have_the_label_that_is_ignored(methods):
    row = methods.labelled(objective([5, 7, 9], [0, 0, 1]), "a text")
    assert row == {"input_ids": [5, 7, 9], "labels": [-100, -100, 9], "length": 3, "text": "a text"}


def test_weights_that_a_label_cannot_say_are_refused(methods):
    with pytest.raises(ValueError, match="fully or not at all"):
        methods.labelled(objective([5, 7, 9], [0, 0.5, 1]), "a text")


def test_padding_has_no_label(modules, tmp_path):
    methods, padded = modules
    rows = [methods.labelled(objective(ids, [0] + [1] * (len(ids) - 1)), "") for ids in ([1, 2, 3], [4, 5])]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids_NT, labels_NT, mask_NT = padded.padded(tmp_path / "documents.jsonl")
    assert ids_NT.tolist() == [[1, 2, 3], [4, 5, 0]] and labels_NT.tolist() == [[-100, 2, 3], [-100, 5, -100]]
    assert mask_NT.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_rises_are_those_of_the_query_whose_documents_are_left_out(methods, tmp_path):
    """A document n takes 2^n off the loss of query 0, and n off that of query 1: sums say which were left out."""
    documents = np.arange(10)

    def train(subset, seed):
        return [5000 - float((2.0**subset).sum()), 500 - float(subset.sum())]

    work = WorkFolder(Experiment(name="sums", source="", function=train, documents=10), tmp_path / "work")
    scores = {"largest": np.stack([documents, documents]), "first": -np.stack([documents, documents])[:1]}
    rises = methods.loss_rise(work, scores, 2, [1, 3])
    assert {name: {n: list(of) for n, of in found.items()} for name, found in rises.items()} == {
        "largest": {1: [512, 9], 3: [512 + 256 + 128, 9 + 8 + 7]},
        "first": {1: [1], 3: [1 + 2 + 4]},
    }


def test_a_peer_is_run_by_its_own_interpreter_and_its_scores_are_kept(methods, tmp_path, monkeypatch):
    """The peer here is a script that writes ones, so that nothing has to be installed."""
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "by_ones.py").write_text(
        "import sys, numpy\n"
        "assert sys.argv[1].endswith('case')\n"
        "numpy.save(sys.argv[2], numpy.ones((2, int(sys.argv[3]))))\n"
    )
    monkeypatch.setattr(methods, "__file__", str(tmp_path / "methods.py"))
    methods.score_peer(tmp_path / "out", "ones", sys.executable, ["by_ones", "CASE", "OUT", "3"])
    assert np.load(tmp_path / "out" / "scores" / "ones.npy").tolist() == [[1, 1, 1]] * 2
    assert json.loads((tmp_path / "out" / "scores" / "ones.json").read_text())["seconds"] > 0
