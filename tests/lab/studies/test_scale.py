"""Two models over one corpus."""

import json
import math

import numpy as np
import pytest

from gindex import GradientIndex
from gindex.documents.selection import lexical_documents
from gindex.lab.studies.config import ScaleConfig
from gindex.lab.studies.material import Material
from gindex.lab.studies.scale import document_influence, find_common, lexical_scores, shared_words


@pytest.fixture(scope="session")
def larger(tmp_path_factory, corpus_file, make_config, make_small_model, small_tokenizer):
    """Index of the same corpus by a model of the same width with more weights in its attention: no grouped queries."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("larger")
    small = make_small_model(len(small_tokenizer)).config
    config = LlamaConfig(**small.to_dict() | {"hidden_size": 24, "intermediate_size": 48, "head_dim": 6})
    LlamaForCausalLM(config).eval().save_pretrained(folder / "model")
    small_tokenizer.save_pretrained(folder / "model")
    GradientIndex.build([str(corpus_file)], folder / "index", make_config(name=str(folder / "model"), fit_documents=20))
    return folder / "index"


def test_report(study, built, larger, model_folder):
    models = ["--model", str(model_folder), str(larger.parent / "model")]
    record, page = study("scale", built, larger, "--sample", "4", "--query-words", "6", "--top", "5", *models)
    numbers = record["numbers"]
    assert numbers["documents"] == record["sources"][0]["documents"] == record["sources"][1]["documents"]
    assert numbers["weights"]["smaller"] < numbers["weights"]["larger"]
    small, large = (numbers["shared_words"][size]["mean"] for size in ("smaller", "larger"))
    assert numbers["larger_minus_smaller"]["mean"] == pytest.approx(large - small)
    assert numbers["shared_words"]["BM25"]["mean"] > numbers["shared_words"]["chance"]["mean"]
    assert "first for the larger model" in page


def test_what_is_compared(index):
    """Shared words by counting, BM25 as the search has it, and influence as an explanation has it."""
    material = Material(index)
    common = find_common((material, material), ScaleConfig(sample=2, query_words=6, top=5))
    assert common.ids == sorted(common.ids)
    shared_QD, bm25_QD = shared_words(common), lexical_scores(material, common)
    texts = [index.document(name).text.lower().split() for name in common.ids]
    query = f"{common.queries[0].prompt}{common.queries[0].completion}"
    assert query.split() == texts[common.own[0]][:6]
    rarity = {w: math.log(len(texts) / sum(w in own for own in texts)) for own in texts for w in own}
    for place in (0, 5, int(common.own[0])):
        words = set(query.lower().split())
        expected = sum(rarity[w] for w in words if w in texts[place]) / sum(rarity[w] for w in words)
        assert shared_QD[0, place] == pytest.approx(expected)
    assert shared_QD[0, common.own[0]] == pytest.approx(1)
    best = lexical_documents(material.table, query, 3)
    assert sorted(bm25_QD[0])[-3:][::-1] == pytest.approx([score for _, score in best])
    influence_QD = document_influence(material, common)
    many_parts = common.ids.index("d149")
    explained = index.explain("d149", common.queries[1].prompt, common.queries[1].completion)
    assert len(explained.parts) > 1
    assert influence_QD[1, many_parts] == pytest.approx(explained.influence, rel=1e-3)


def test_documents_are_drawn(index):
    material = Material(index)
    config = ScaleConfig(sample=2, query_words=4, documents=60, top=5)
    drawn = find_common((material, material), config)
    assert len(drawn.ids) == 60 and drawn.ids == find_common((material, material), config).ids
    assert np.unique(drawn.own).size == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--documents", "30"), "expected at least 50 documents, found 30"),
        (("--query-words", "500"), "expected 32 documents of at least 500 words, found 0"),
        (("--query-words", "1"), "expected 32 documents of at least 2 words"),
    ],
)
def test_bad_input(run, built, larger, options, expected):
    result = run("study", "scale", built, larger, *options, "--device", "cpu")
    assert result.exit_code == 2 and expected in result.stderr, result.stderr


def test_wrong_way_round_and_other_corpora(run, built, larger, tmp_path, corpus_file, make_config):
    result = run("study", "scale", larger, built, "--device", "cpu")
    assert result.exit_code == 2 and "expected the model of the second index to be larger" in result.stderr
    lines = corpus_file.read_text().splitlines()
    other = [*lines[:60], json.dumps({"id": "new", "text": "the lock the race"})]
    (tmp_path / "other.jsonl").write_text("\n".join(other))
    GradientIndex.build([str(tmp_path / "other.jsonl")], tmp_path / "index", make_config(fit_documents=10))
    result = run("study", "scale", tmp_path / "index", larger, "--device", "cpu")
    assert result.exit_code == 2 and "expected two indexes of the same documents, found" in result.stderr
