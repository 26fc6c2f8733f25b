"""Translations in an index of its own, with known relations."""

import json
from pathlib import Path

import numpy as np
import pytest

from gindex import GradientIndex
from gindex.lab.studies.config import CrossLingualConfig
from gindex.lab.studies.cross_lingual import find_parallel, language_shares, translation_ranks, without
from gindex.lab.studies.material import Material

WORDS = ["compiler", "kernel", "stack", "heap", "lock", "thread", "race", "cache", "page", "file", "disk", "bug"]


@pytest.fixture(scope="session")
def parallel(tmp_path_factory: pytest.TempPathFactory, make_config) -> Path:
    """Index of 12 passages in two languages, one more in a single language; the last passage has two parts."""
    folder = tmp_path_factory.mktemp("parallel")
    lines = []
    for n in range(13):
        words = [WORDS[(n * k + k * k) % len(WORDS)] for k in range(1, 60 if n == 11 else 9)]
        for language, article in (("en", "the"), ("xx", "a"))[: 1 if n == 12 else 2]:
            text = " ".join(f"{article} {word}" for word in words)
            lines.append({"id": f"{n}:{language}", "text": text, "language": language, "passage": f"<b>{n}</b>"})
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    GradientIndex.build([str(folder / "corpus.jsonl")], folder / "index", make_config(fit_documents=10))
    return folder / "index"


def test_only_passages_in_every_language_are_taken(parallel):
    found = find_parallel(Material(GradientIndex.open(parallel, device="cpu")), CrossLingualConfig(sample=12))
    assert found.languages == ["en", "xx"] and len(found.passages) == 12 and "<b>12</b>" not in found.passages
    assert [len(parts) for parts in found.parts[11]] > [1, 1]


def test_report(study, parallel):
    record, page = study("cross-lingual", parallel, "--sample", "4")
    numbers = record["numbers"]
    assert numbers["passages"] == 12 and numbers["languages"] == ["en", "xx"]
    assert numbers["by_languages"]["influence"]["en"]["en"] is None
    above = [numbers["by_languages"]["influence"][a][b] for a, b in (("en", "xx"), ("xx", "en"))]
    assert numbers["translation_above"]["influence"]["mean"] == pytest.approx(np.mean(above))
    assert all(sum(shares.values()) == pytest.approx(1) for shares in numbers["shares"].values())
    assert "What is indexed" in page


def test_influence_of_a_document_is_that_of_its_parts(parallel):
    from gindex.lab.studies.cross_lingual import _influence

    index = GradientIndex.open(parallel, device="cpu")
    material = Material(index)
    found = find_parallel(material, CrossLingualConfig(sample=2))
    influence_QPL = _influence(material, found, np.array([3, 7]))
    assert influence_QPL.shape == (4, 12, 2)
    query = index.document("7:xx").text
    for name, passage, language in (("11:en", 11, 0), ("2:xx", 2, 1)):
        explained = index.explain(name, query)
        assert influence_QPL[3, passage, language] == pytest.approx(explained.influence, rel=1e-3)


def test_ranks_and_shares_by_hand():
    """Two drawn passages (0 and 2) of three in two languages: queries 0a, 0b, 2a, 2b."""
    scores = np.zeros((4, 3, 2))
    scores[0] = [[9, 2], [1, 1], [1, 3]]  # 0a: its translation is above one of two
    scores[1] = [[5, 9], [1, 1], [2, 1]]  # 0b: above both
    scores[2] = [[1, -4], [1, 2], [9, -1]]  # 2a: above one
    scores[3] = [[1, 0], [1, 0], [1, 9]]  # 2b: even with both
    drawn = np.array([0, 2])
    ranks = translation_ranks(scores, drawn, 2)
    assert np.isnan(ranks[0, 0]).all() and ranks[0, 1].tolist() == [0.5, 0.5] and ranks[1, 0].tolist() == [1.0, 0.5]
    shares = language_shares(scores, drawn, 2)
    assert shares[0, :, 0].tolist() == [2 / 6, 4 / 6] and shares[0, :, 1].tolist() == [0.5, 0.5]


def test_without_leaves_no_correlation():
    generator = np.random.default_rng(0)
    overlap = generator.random((2, 30, 2))
    rest = without(3 * overlap + generator.random((2, 30, 2)), overlap)
    for query in range(2):
        for language in range(2):
            assert np.corrcoef(rest[query, :, language], overlap[query, :, language])[0, 1] == pytest.approx(
                0, abs=1e-9
            )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ("--language-field", "tongue"),
            "with metadata fields 'tongue' and 'passage', found 0 and the fields language",
        ),
        (("--sample", "13"), "expected at least 13 passages in all of en, xx, found 12"),
    ],
)
def test_bad_input(run, parallel, options, expected):
    result = run("study", "cross-lingual", parallel, *options, "--device", "cpu")
    assert result.exit_code == 2 and expected in result.stderr, result.stderr


def test_an_index_without_the_fields(run, built):
    result = run("study", "cross-lingual", built, "--device", "cpu")
    assert result.exit_code == 2 and "found 0 and the fields number" in result.stderr
