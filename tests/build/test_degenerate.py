"""Corpora and models in which something is missing or repeated: a defined result, or a clear error."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from gindex import GradientIndex
from gindex.errors import CorpusError
from gindex.store.layout import Layout
from gindex.store.snapshot import Snapshot

PROMPT, COMPLETION = "the compiler race", " bug the stack"
DEAD = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def write(path: Path, texts: list[str]) -> str:
    """Write a corpus of these documents and return its name."""
    lines = [json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


# Documents of one token


@pytest.mark.parametrize("count", [1, 40])
def test_corpus_in_which_nothing_is_predicted(tmp_path, make_config, count):
    corpus = write(tmp_path / "corpus.jsonl", ["a"] * count)
    with pytest.raises(CorpusError, match=f"at least one document with a token that counts, found none in {count}"):
        GradientIndex.build([corpus], tmp_path / "index", make_config())


def test_documents_without_a_gradient_are_left_out_by_name(tmp_path, make_config, caplog):
    corpus = write(tmp_path / "corpus.jsonl", ["the kernel test", "loop the parser", *["a"] * 100])
    index = GradientIndex.build([corpus], tmp_path / "index", make_config(fit_documents=2))
    assert index.info()["fit"]["documents"] == 2
    assert index.ids() == ["d0", "d1"]
    assert "100 documents have no token that counts and are left out: 'd2', 'd3'" in caplog.text


# Repeated documents


def test_corpus_of_one_text(tmp_path, make_config):
    """Nothing to choose between: calibration and fidelity still end, and all documents score the same."""
    corpus = write(tmp_path / "corpus.jsonl", ["the stack the heap"] * 60)
    config = make_config(rank_fraction=None, index_damping=None)
    index = GradientIndex.build([corpus], tmp_path / "index", config)
    hits = index.search(PROMPT, COMPLETION, k=60, exact=True, candidates=60).hits
    assert len(hits) == 60
    for value in ("score", "influence"):
        found = np.array([getattr(hit, value) for hit in hits])
        # Batches of other shapes round otherwise, and a coordinate near zero may take the other sign.
        np.testing.assert_allclose(found, found[0], rtol=1e-2)


def test_repeats_crowd_nothing_out_of_the_sample(tmp_path, make_config):
    """Fifty copies and five others: the others keep scores of their own, and copies are folded on request."""
    others = ["a kernel test", "loop the parser", "the bug file", "page cache lock", "a thread race"]
    corpus = write(tmp_path / "corpus.jsonl", ["the stack the heap"] * 50 + others)
    index = GradientIndex.build([corpus], tmp_path / "index", make_config())
    hits = index.search(PROMPT, COMPLETION, k=10, dedupe=0.9).hits
    assert len(hits) == 6
    assert {hit.document_id for hit in hits} >= {f"d{n}" for n in range(50, 55)}


# Layers without activations or gradients


@pytest.fixture(scope="module")
def dead_model(tmp_path_factory, model_folder) -> Path:
    """The small model with a first MLP whose output is zero whatever comes in: its activations and gradients vanish."""
    folder = tmp_path_factory.mktemp("dead") / "model"
    shutil.copytree(model_folder, folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name in ("gate_proj", "up_proj"):
            getattr(model.model.layers[0].mlp, name).weight.zero_()
    model.save_pretrained(folder)
    return folder


def test_dead_layer_has_no_influence_and_spoils_none(tmp_path, corpus_file, make_config, dead_model):
    """Gate and up at zero: down reads zeros and up and gate pass no gradient on, so A of one and S of two are zero."""
    folder = tmp_path / "index"
    config = make_config(name=str(dead_model), bits=16, rank_fraction=None, index_damping=None)
    index = GradientIndex.build([str(corpus_file)], folder, config)
    means = {layer.name: layer.mean_eigenvalue for layer in Snapshot.open(Layout(folder)).manifest.layers}
    dead = {name for name, mean in means.items() if mean == 0}
    assert dead == {f"model.layers.0.{name}" for name in DEAD}
    hits = index.search(PROMPT, COMPLETION, k=20, exact=True, candidates=150).hits
    assert all(np.isfinite([hit.score, hit.influence]).all() for hit in hits)
    explained = index.explain(hits[0].document_id, PROMPT, COMPLETION)
    assert explained.parts[hits[0].part].influence == pytest.approx(hits[0].influence, rel=1e-4)
    assert {name for name, value in explained.layers.items() if value == 0} == dead
    scores = np.array([hit.score for hit in hits])
    assert np.corrcoef(scores, [hit.influence for hit in hits])[0, 1] > 0.5
