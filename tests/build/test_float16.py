"""An index built in float16 answers as one in float32 does, and names the documents that float16 does not hold."""

import json
import logging

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from gindex import GradientIndex


@pytest.fixture(scope="module")
def narrow_index(tmp_path_factory, corpus_file, make_config) -> GradientIndex:
    folder = tmp_path_factory.mktemp("narrow") / "index"
    return GradientIndex.build([str(corpus_file)], folder, make_config(dtype="float16", memory=4.0))


def test_it_is_recorded_and_opened_again(narrow_index):
    index = GradientIndex.open(narrow_index.path, device="cpu")
    assert index.manifest.model.dtype == "float16"
    assert index.model.tracked.dtype == torch.float16 and not index.manifest.volumes[0].skipped


def test_searches_exact_influence_and_explanations_are_those_of_float32(index, narrow_index):
    """The labels of the fits are drawn from slightly other probabilities: a few per cent of the influence."""
    text = index.document("d7").text
    found, expected = (of.search("", completion=text, k=20, exact=True).hits for of in (narrow_index, index))
    assert found[0].document_id == expected[0].document_id == "d7"
    influence = [{hit.document_id: hit.influence for hit in hits} for hits in (found, expected)]
    common = sorted(influence[0].keys() & influence[1].keys())
    assert len(common) >= 15
    pair = np.array([[of[name] for name in common] for of in influence])
    assert np.corrcoef(pair)[0, 1] > 0.99 and np.abs(pair[0] / pair[1] - 1).max() < 0.25


@pytest.fixture
def overflowing_folder(tmp_path, model_folder):
    """A model that adds 40,000 to a feature in its first block, which the token ~ already has 40,000 of."""
    model, tokenizer = (kind.from_pretrained(model_folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer("~").input_ids[-1], 0] = 4e4
        model.model.layers[0].self_attn.o_proj.bias[0] = 4e4
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_document_whose_activations_overflow_is_named_with_what_may_take_it(
    overflowing_folder, tmp_path, corpus_file, make_config, caplog
):
    corpus = tmp_path / "corpus.jsonl"
    bad = {"id": "bad one", "text": "the stack ~ the heap"}
    corpus.write_text("\n".join([json.dumps(bad), *corpus_file.read_text().splitlines()[:60]]))
    config = make_config(name=str(overflowing_folder), dtype="float16", fit_documents=None, memory=4.0)
    with caplog.at_level(logging.WARNING):
        index = GradientIndex.build([str(corpus)], tmp_path / "index", config)
    skipped = index.info()["skipped"]
    assert len(skipped) == 1 and "'bad one'" in skipped[0] and "NaN or infinity in float16" in skipped[0]
    assert "`dtype` bfloat16 or float32 may take it" in caplog.text
    hits = index.search("the stack", " the heap", k=1000, exact=True).hits
    found = {hit.document_id for hit in hits}
    assert len(found) == index.info()["documents"] - 1 and "bad one" not in found
    assert all(np.isfinite([hit.score, hit.influence]).all() for hit in hits)
