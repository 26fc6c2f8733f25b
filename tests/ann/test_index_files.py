"""Several FAISS files, asked as one, against one of all parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gindex.ann import spec as faiss_types
from gindex.ann.build import LARGEST, build_faiss
from gindex.ann.index import FaissIndex
from gindex.ann.index_files import LEAST_LARGEST, IndexFiles
from gindex.search.funnel import Funnel
from gindex.search.scan import scan

RUNS = {
    "halves": [range(1000), range(1000, 2000)],
    "large and small": [range(1700), range(1700, 1960), range(1960, 1999), range(1999, 2000)],
}
BYTES = 2000 * 768 // 8
"""Of the signs of 2000 vectors."""


@pytest.fixture(params=RUNS)
def runs(request) -> list[range]:
    return RUNS[request.param]


def joined(folder: Path, reader, projection, runs: list[range], kinds: list[str]) -> IndexFiles:
    files = []
    for number, (run, kind) in enumerate(zip(runs, kinds, strict=True)):
        path = folder / f"{number}.faiss"
        spec = build_faiss(path, reader, projection, kind=kind, run=run)
        files.append(FaissIndex(path, spec, projection, len(run)))
    return IndexFiles(files)


@pytest.mark.parametrize(("kind", "folds"), [("flat", 0), ("rabitq", 0), ("rabitq", 1), ("fp16", 0)])
def test_candidates_are_those_of_one_file(tmp_path, reader, projection, queries, runs, kind, folds, monkeypatch):
    monkeypatch.setattr(faiss_types, "RABITQ_BYTES", BYTES >> folds)
    monkeypatch.setattr(FaissIndex, "_sieve", None)
    several = joined(tmp_path, reader, projection, runs, [kind] * len(runs))
    path = tmp_path / "one.faiss"
    one = FaissIndex(path, build_faiss(path, reader, projection, kind=kind), projection, 2000)
    assert several.lossless == one.spec.lossless and one.spec.folds == folds
    flags = np.random.default_rng(0).random(2000) < 0.5
    nothing_of_the_first = np.arange(2000) >= len(runs[0])
    for allowed in (None, flags, nothing_of_the_first):
        found, expected = several.candidates(queries, 50, allowed), one.candidates(queries, 50, allowed)
        for (got, scores), (best, others) in zip(found, expected, strict=True):
            # Sums of floats in blocks that depend on the number of vectors, float16 in another unit: what changes
            # places is within their rounding of the last one.
            assert np.isin(got, best).mean() >= (0.96 if kind == "fp16" else 0.98)
            assert len(got) == min(50, 2000 if allowed is None else int(allowed.sum())) and len(np.unique(got)) == 50
            assert (np.diff(scores) <= 0).all() and (allowed is None or allowed[got].all())
            unit = 1.0 if one.spec.lossless else one.spec.unit
            np.testing.assert_allclose(scores, others / unit, rtol=2e-3, atol=1e-3 * np.abs(others / unit).max())


def test_recall_with_sieves_is_that_of_one_file(tmp_path, make_reader, projection, queries):
    """Each sieve passes as many as one of all parts would, so no less is found."""
    parts = 9000
    many = make_reader(parts, bits=1)
    best, _ = scan(many, queries, 10)

    def recall(runs: list[range]) -> float:
        files = joined(tmp_path, many, projection, runs, ["rabitq"] * len(runs))
        found = Funnel(files, many, ()).search(queries, 10)
        return float(np.mean([np.isin(b, of.ordinals).mean() for of, b in zip(found, best, strict=True)]))

    one = recall([range(parts)])
    assert recall([range(6000), range(6000, 8950), range(8950, parts)]) >= one - 0.02 and one > 0.9


@pytest.mark.parametrize("kinds", [("flat", "rabitq"), ("rabitq", "flat"), ("fp16", "rabitq"), ("ivf", "rabitq")])
def test_files_of_several_forms_give_the_best_of_all(tmp_path, reader, projection, queries, kinds, monkeypatch):
    monkeypatch.setattr(faiss_types, "RABITQ_BYTES", BYTES // 2)  # one is folded, the other not
    files = joined(tmp_path, reader, projection, RUNS["halves"], list(kinds))
    assert not files.lossless
    found = Funnel(files, reader, ()).search(queries, 10)
    best, scores = scan(reader, queries, 10)
    assert np.mean([np.isin(of.ordinals, b).mean() for of, b in zip(found, best, strict=True)]) >= 0.95
    tolerance = 1e-5 * np.abs(scores).max()  # of sums of 768 float32 products
    for of, query in zip(found, queries, strict=True):
        expected = reader.decoded(of.ordinals).double() @ query.double()
        np.testing.assert_allclose(of.scores, expected.numpy(), rtol=0, atol=tolerance)


def test_scores_are_in_the_unit_of_the_vectors(tmp_path, reader, projection, queries):
    """Means over the parts of a query's scores by the index and by the vectors, of codes that estimate them."""
    for kind in ("flat", "fp16", "rabitq"):
        files = joined(tmp_path, reader, projection, RUNS["halves"], [kind, kind])
        for (ordinals, scores), query in zip(files.candidates(queries, 2000), queries, strict=True):
            true = (reader.decoded(ordinals).double() @ query.double()).numpy()
            slope = float(scores.astype(np.float64) @ true / (true @ true))
            assert slope == pytest.approx(1, abs=0.15 if kind == "rabitq" else 1e-3)


def test_largest_are_of_each_file_in_proportion(tmp_path, reader, projection):
    norms = reader.norms(np.arange(2000))
    one = joined(tmp_path, reader, projection, [range(2000)], ["rabitq"])
    np.testing.assert_array_equal(one.largest, np.argsort(-norms, kind="stable")[:LARGEST])
    runs = RUNS["large and small"]
    several = joined(tmp_path, reader, projection, runs, ["rabitq"] * 4)
    for run in runs:
        of_run = [ordinal for ordinal in several.largest if ordinal in run]
        share = min(len(run), max(LEAST_LARGEST, -(-LARGEST * len(run) // 2000)))
        np.testing.assert_array_equal(of_run, run.start + np.argsort(-norms[run.start : run.stop])[:share])
    mixed = joined(tmp_path, reader, projection, RUNS["halves"], ["flat", "rabitq"])
    assert mixed.largest.min() >= 1000 and torch.is_tensor(reader.decoded(mixed.largest))
