"""A build from end to end: what is stored, and what it doesn't depend on."""

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gindex import GradientIndex
from gindex.build.run import plan_build, run_build
from gindex.documents.table import DocumentTable
from gindex.errors import ConfigError, MissingDependencyError, NonFiniteError
from gindex.search.scan import scan
from gindex.store.files import FileRecord
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.reader import VectorReader
from gindex.store.snapshot import Snapshot
from gindex.vectors.encoder import Encoder

ROUNDING = 5e-6
"""Of a vector, relative to its length: the passes sum up to 32 tokens over widths of up to 41 in float32 (6e-8 an
operation), in an order that depends on the batch's shape. Measured 3e-7; other processors sum in other orders."""

HALF = 2.0**-11
"""Rounding of a float16 code, relative to the largest coordinate of its slice."""


def manifest_of(folder: Path) -> Manifest:
    return Snapshot.open(Layout(folder)).manifest


def open_vectors(folder: Path) -> VectorReader:
    return Snapshot.open(Layout(folder)).vectors


def vectors_of(folder: Path) -> tuple[torch.Tensor, np.ndarray]:
    reader = open_vectors(folder)
    ordinals = np.arange(reader.spec.parts)
    return reader.decoded(ordinals), reader.self_influence(ordinals)


def assert_vectors_close(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to the rounding of the passes and of float16 codes."""
    largest = expected.abs().amax(1, keepdim=True)
    bound = ROUNDING * expected.norm(dim=1, keepdim=True) + 2 * HALF * largest
    assert ((got - expected).abs() <= bound).all()


def test_finished_index_holds_exactly_the_files_it_names(built):
    manifest = manifest_of(built)
    files = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert files == {file.path for file in manifest.files} | {"manifests/00000001.json"}
    for file in manifest.files:
        assert file == FileRecord.of(built, built / file.path, file.chunks)


def test_manifest_describes_the_build(built, corpus_file, make_config):
    manifest = manifest_of(built)
    with DocumentTable.open(built / "volumes/00000/documents.sqlite") as table:
        lengths = table.part_lengths()
        assert manifest.documents == {
            "documents": 150,
            "parts": len(lengths),
            "tokens": int(lengths.sum()),
            "longest_part": 32,
        }
    assert (
        len(lengths) > 3 * manifest.volumes[0].segment_parts > 0
    )  # the tests of segments have several, the last one partial
    assert manifest.settings.settings() == make_config().settings()
    assert manifest.fit.documents == 40
    assert [source.path for source in manifest.sources] == [str(corpus_file)]
    assert manifest.model.parameters == manifest.model.tracked_parameters + sum(
        weight.parameters for weight in manifest.untracked
    )
    assert manifest.skipped == {}


def test_faiss_index_is_that_of_the_stored_vectors(index, built):
    reader = open_vectors(built)
    query = torch.randn(3, reader.spec.dimension, generator=torch.Generator().manual_seed(0))
    ordinals, scores = scan(reader, query, 5)
    for got, best, score in zip(index.searcher.funnel.search(query, 5), ordinals, scores, strict=True):
        np.testing.assert_array_equal(got.ordinals, best)
        np.testing.assert_allclose(got.scores, score, rtol=1e-4)  # float32 sums of 512 products in another order


def test_documents_cut_into_parts_all_count(built):
    vectors, self_influence = vectors_of(built)
    with DocumentTable.open(built / "volumes/00000/documents.sqlite") as table:
        parts = [part for part in table.parts(range(len(vectors))) if part.document_id == "d149"]
    assert [part.part for part in parts] == list(range(len(parts))) and len(parts) > 4
    ordinals = [part.ordinal for part in parts]
    assert (vectors[ordinals].norm(dim=1) > 0).all() and (self_influence[ordinals] > 0).all()


def test_every_vector_is_of_a_loss(built):
    vectors, self_influence = vectors_of(built)
    assert (vectors.norm(dim=1) > 0).all() and (self_influence > 0).all()


def test_equal_documents_have_equal_vectors(built):
    """They lie in one batch or in two, at different places: equal up to rounding, here of 1-bit codes' scales."""
    vectors, self_influence = vectors_of(built)
    with DocumentTable.open(built / "volumes/00000/documents.sqlite") as table:
        ids = [part.document_id for part in table.parts(range(len(vectors)))]
    one, two = ids.index("d147"), ids.index("d148")
    torch.testing.assert_close(vectors[one], vectors[two], rtol=ROUNDING, atol=0)
    np.testing.assert_allclose(self_influence[one], self_influence[two], rtol=ROUNDING)


@pytest.mark.parametrize("batch_tokens", [1, 100, 100_000])
def test_vectors_do_not_depend_on_the_batches(stopped, corpus_file, make_config, batch_tokens):
    """With the same factors: a fit in other batches has other roundings, and so another basis of each eigenspace."""
    reference, folder = stopped("vectors", bits=16), stopped("vectors", bits=16)
    run_build([str(corpus_file)], reference, make_config(bits=16))
    run_build([str(corpus_file)], folder, make_config(bits=16, batch_tokens=batch_tokens))
    (got, norms), (expected, expected_norms) = vectors_of(folder), vectors_of(reference)
    assert_vectors_close(got, expected)
    np.testing.assert_allclose(norms, expected_norms, rtol=2 * ROUNDING)


def test_a_vector_depends_on_its_document_alone(stopped, tmp_path, corpus_file, make_config):
    """Another corpus with the same factors: other neighbours, another order, another place in another shard."""
    lines = corpus_file.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    fresh = [{"id": f"new{n}", "text": record["text"][::-1]} for n, record in enumerate(records[:60])]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(record) + "\n" for record in [*fresh, *records[60:][::-1]]))
    first, second = stopped("vectors", bits=16), stopped("fit covariances", bits=16, corpus=other)
    shutil.copytree(first / "factors", second / "factors")
    found = {}
    for folder, corpus in ((first, corpus_file), (second, other)):
        run_build([str(corpus)], folder, make_config(bits=16))
        vectors, _ = vectors_of(folder)
        with DocumentTable.open(folder / "volumes/00000/documents.sqlite") as table:
            found[folder] = {(p.document_id, p.part): vectors[p.ordinal] for p in table.parts(range(len(vectors)))}
    shared = sorted(found[first].keys() & found[second].keys())
    assert len(shared) > 90
    got = torch.stack([found[second][key] for key in shared])
    assert_vectors_close(got, torch.stack([found[first][key] for key in shared]))


def test_seed_decides_the_projection_and_the_fit(tmp_path, built, corpus_file, make_config):
    manifest = run_build([str(corpus_file)], tmp_path / "index", make_config(seed=1))
    assert manifest.projection.fingerprint != manifest_of(built).projection.fingerprint


def test_more_bits_are_closer(stopped, corpus_file, make_config, built):
    def finished(bits: int) -> torch.Tensor:
        folder = stopped("vectors", bits=bits)
        run_build([str(corpus_file)], folder, make_config(bits=bits))
        return vectors_of(folder)[0]

    fine = finished(16)
    kept = [
        torch.nn.functional.cosine_similarity(vectors, fine)[fine.norm(dim=1) > 0].mean()
        for vectors in (vectors_of(built)[0], finished(2), finished(8))
    ]
    # 8 bits err by half a step of 2 / 255 of the largest coordinate: a cosine above .99 even if most are far smaller.
    assert 0 < kept[0] < kept[1] < kept[2] and kept[2] > 0.99


# NaN


@pytest.fixture
def nan_corpus(tmp_path, corpus_file) -> Path:
    path = tmp_path / "corpus.jsonl"
    bad = {"id": "bad one", "text": "the stack ~ the heap"}
    lines = corpus_file.read_text().splitlines()
    path.write_text("\n".join([*lines[:70], json.dumps(bad), *lines[70:]]) + "\n")
    return path


def test_document_that_is_not_finite_is_named_and_left_out(tmp_path, nan_corpus, nan_model_folder, make_config, caplog):
    # Fitted on everything, so the document is in the fit as well.
    config = make_config(name=str(nan_model_folder), fit_documents=None, bits=16)
    with caplog.at_level(logging.WARNING):
        index = GradientIndex.build([str(nan_corpus)], tmp_path / "index", config)
    assert "'bad one', part 0: expected a finite loss" in caplog.text and "left out of the index" in caplog.text
    info = index.info()
    assert info["skipped_parts"] == 1 and "'bad one'" in info["skipped"][0]
    for negative in (False, True):
        hits = index.search("the stack", " the heap", k=10_000, negative=negative).hits
        assert len(hits) == info["parts"] - 1
        assert "bad one" not in {hit.document_id for hit in hits}
    vectors, self_influence = vectors_of(tmp_path / "index")
    assert vectors.isfinite().all() and np.isfinite(self_influence).all()
    (skipped,) = (int(ordinal) for ordinal in index.manifest.skipped)
    assert not vectors[skipped].any()
    with pytest.raises(NonFiniteError, match="query 'the ~'"):
        index.search("the ~", k=1)


def test_strict_stops_and_a_build_without_it_goes_on(tmp_path, nan_corpus, nan_model_folder, make_config):
    config, out = make_config(name=str(nan_model_folder)), tmp_path / "index"
    with pytest.raises(NonFiniteError, match=r"document 'bad one', part 0: .* without `strict`"):
        run_build([str(nan_corpus)], out, config, strict=True)
    assert not (out / "manifests").exists() and (out / "volumes/00000/segments/00000.json").exists()
    assert len(run_build([str(nan_corpus)], out, config).skipped) == 1


# The plan


def test_plan_leaves_nothing_behind(tmp_path, corpus_file, make_config, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plan = plan_build([str(corpus_file)], make_config())
    assert list(tmp_path.iterdir()) == []
    assert plan.documents == 150 and plan.fit_documents == 40 and plan.parts > 150
    assert plan.tracked_layers == 14 and 0 < plan.tracked_parameters < plan.parameters
    assert sum(weight.parameters for weight in plan.untracked) == plan.parameters - plan.tracked_parameters
    assert all(weight.name and weight.reason for weight in plan.untracked)
    assert all(seconds > 0 for seconds in plan.seconds.values()) and plan.memory_bytes > 0


def test_planned_disk_is_what_is_used(tmp_path, corpus_file, make_config, index):
    plan, used = plan_build([str(corpus_file)], make_config()).disk_bytes, index.info()["disk_bytes"]
    # Zarr and safetensors headers, chunks filled up to 64 rows: a few kilobytes each on so small an index.
    assert plan["factors"] == pytest.approx(used["factors"], abs=20_000)
    assert plan["vectors"] == pytest.approx(used["vectors"], abs=20_000)
    assert plan["search index"] == pytest.approx(used["search"], abs=100)
    assert plan["documents"] == used["documents"]


# Settings that don't suit the model are refused before any work


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dimension": 8}, "dimension: expected a multiple of 8"),
        ({"max_tokens": 65}, "max_tokens: expected at most 64"),
    ],
)
def test_settings_that_do_not_suit_the_model(tmp_path, corpus_file, make_config, monkeypatch, changes, named):
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("work was done"))
    for act in (
        lambda: plan_build([str(corpus_file)], make_config(**changes)),
        lambda: run_build([str(corpus_file)], tmp_path / "index", make_config(**changes)),
    ):
        with pytest.raises(ConfigError, match=named):
            act()
    assert not (tmp_path / "index").exists()


def test_parts_are_as_long_as_the_model_takes_where_nothing_is_said(tmp_path, corpus_file, make_config):
    """64 tokens, where the usual 512 would be refused; and a build says what it took, so that it goes on by it."""
    config = make_config(max_tokens=None)
    assert plan_build([str(corpus_file)], config).parts < plan_build([str(corpus_file)], make_config()).parts
    manifest = run_build([str(corpus_file)], tmp_path / "index", config)
    assert manifest.settings.corpus.max_tokens == 64
    assert max(volume.longest_part for volume in manifest.volumes) == 64
    for same in (config, make_config(max_tokens=64)):
        assert run_build([str(corpus_file)], tmp_path / "index", same).created == manifest.created


def test_missing_faiss_is_found_before_any_work(tmp_path, corpus_file, make_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"\[cpu\]"):
        run_build([str(corpus_file)], tmp_path / "index", make_config())
    assert not (tmp_path / "index").exists()
