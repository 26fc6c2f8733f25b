"""Each study from the command line, its numbers against direct computation."""

import numpy as np
import pytest

from gindex.corpus.objectives import Objective
from gindex.lab.studies.layers import shares_by_layer
from gindex.lab.studies.material import Material
from gindex.lab.studies.sparsity import gaussian_share
from gindex.queries.tokens import QueryTokens


@pytest.fixture(scope="session")
def material(index):
    return Material(index)


def test_sparsity(study, built, material):
    record, page = study("sparsity", built, "--sample", "3", "--resamples", "5")
    numbers = record["numbers"]
    assert numbers["queries"] == 3 and numbers["parts"] == record["sources"][0]["parts"] == len(material.usable)
    drawn = material.queries(3, 0)
    influence = material.index.reranker.influence(drawn.tokens, [material.usable] * 3, material.progress)
    shares = []
    for row, document in zip(influence, drawn.documents, strict=True):
        values = sorted((float(v) for v, d in zip(row, material.table.part_documents()[material.usable], strict=True)
                         if d != document), reverse=True)  # fmt: skip
        shares.append(sum(max(v, 0.0) for v in values[: len(values) // 10]) / sum(v for v in values if v > 0))
    assert numbers["top_share"]["0.1"]["mean"] == pytest.approx(np.mean(shares), rel=1e-4)
    assert numbers["top_share"]["0.0001"] is None and "less than one part" in page
    assert all(1 < fit["low"] <= fit["high"] and fit["tail"] >= 25 for fit in numbers["fits"])


def test_gaussian_share_is_that_of_gaussian_numbers():
    """A million numbers: their noise is well below the tolerance."""
    values = np.sort(np.random.default_rng(0).normal(size=10**6))[::-1]
    for fraction in (0.01, 0.1):
        share = values[: int(fraction * 10**6)].sum() / values[values > 0].sum()
        assert gaussian_share(fraction) == pytest.approx(share, rel=0.01)


def test_queries_of_the_readers_own(study, built, tmp_path):
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"prompt": "the compiler", "completion": " lock"}\n{"prompt": "a race"}\n')
    record, _ = study("sparsity", built, "--queries", queries, "--resamples", "2")
    assert record["numbers"]["queries"] == 2 and record["settings"]["queries"] == "given"
    record, page = study("layers", built, "--queries", f"<b>facts</b>={queries}", "--queries", f"code={queries}")
    assert record["numbers"]["queries"] == {"<b>facts</b>": 2, "code": 2}
    assert "<b>facts" not in page and "&lt;b&gt;facts" in page


def test_layers(study, built, material):
    record, _ = study("layers", built, "--sample", "6", "--top", "5")
    numbers, layers = record["numbers"], material.index.manifest.layers
    assert numbers["queries"]["words shuffled"] == 6 and sum(numbers["queries"].values()) == 12
    for shares in (*numbers["groups"].values(), *numbers["kinds"].values()):
        assert sum(share["mean"] for share in shares.values()) == pytest.approx(1)
    assert sum(numbers["weights"].values()) == pytest.approx(1)
    assert list(numbers["weights"]) == list(dict.fromkeys(layer.group for layer in layers))


def test_layers_add_up_and_are_those_of_an_explanation(material):
    """Reference: the influence of whole parts, and `explain`, which takes another path to the layers."""
    index, drawn = material.index, material.queries(2, 1)
    ranked = material.rank(drawn, 30, 0, by_layer=True)
    whole = np.stack(index.reranker.influence(drawn.tokens, [ranked.parts] * 2, material.progress))
    np.testing.assert_allclose(ranked.influence.sum(0), whole, rtol=1e-3, atol=1e-4 * np.abs(whole).max())
    text = "the stack the heap"
    query = QueryTokens(Objective.counting(material.tokens_of(text)))
    explained = index.explain("d147", text)
    texts = [Objective.counting(material.tokens_of(index.document("d147").text))]
    by_layer = material.influence([query], texts, np.ones((1, 1), bool), by_layer=True)[:, 0, 0]
    np.testing.assert_allclose(by_layer, list(explained.layers.values()), rtol=1e-3, atol=1e-4 * np.abs(by_layer).max())


def test_shares_are_of_the_top_parts_alone(material):
    ranked = material.rank(material.queries(2, 2), 40, 0, by_layer=True)
    shares_QL = shares_by_layer(ranked, 3)
    for query in range(2):
        total = {n: float(ranked.influence[:, query, n].sum()) for n in np.flatnonzero(ranked.counted[query])}
        best = sorted(total, key=lambda n: -total[n])[:3]
        expected = ranked.influence[:, query, best].sum(1) / sum(total[n] for n in best)
        np.testing.assert_allclose(shares_QL[query], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("sparsity", "--parts", "60"), "expected at least 100 parts to rank, found 60"),
        (("sparsity", "--sample", "9999"), "expected 9999 documents of at least two tokens in the index, found 1"),
        (("sparsity", "--resamples", "0"), "resamples: expected at least 1, found 0"),
        (("layers", "--top", "1000"), "top: expected at most"),
        (("layers", "--sample", "5"), "sample: expected at least 6 queries for three types, found 5"),
        (
            ("layers", "--sample", "6", "--parts", "5", "--top", "2"),
            "expected at least 20 parts of other documents to rank, found",
        ),
        (("layers", "--queries", "facts"), "expected TYPE=FILE, found 'facts'"),
        (("sparsity", "--out", "report.pdf"), "expected a file ending in .html"),
        (("sparsity", "--out", "nowhere/report.html"), "expected an existing folder"),
    ],
)
def test_bad_input(run, built, arguments, expected):
    name, *rest = arguments
    result = run("study", name, built, *rest, "--device", "cpu")
    assert result.exit_code == 2 and expected in result.stderr and "Traceback" not in result.stderr


def test_matplotlib_is_asked_for_by_its_extra(run, built, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    result = run("study", "sparsity", built, "--device", "cpu")
    assert result.exit_code == 3 and "[plots]" in result.stderr
