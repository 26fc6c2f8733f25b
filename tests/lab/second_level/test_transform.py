"""Switching the second level of curvature, and what every command makes of it: R of the vectors that are stored."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gindex import GradientIndex
from gindex.change.compact import compact
from gindex.change.history import prune
from gindex.change.reindex import reindex
from gindex.change.repair import repair
from gindex.change.rollback import rollback
from gindex.change.verify import verify
from gindex.errors import ConfigError, CorruptStoreError
from gindex.index import run_build
from gindex.lab.second_level import curvature as curvature
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.snapshot import Snapshot

KINDS = ("flat", "fp16", "rabitq", "ivf")
MU = 0.2


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory, corpus_file, make_config) -> Path:
    """The small index at four bits a coordinate, built once, with the second level on."""
    out = tmp_path_factory.mktemp("four") / "index"
    run_build([str(corpus_file)], out, make_config(bits=4))
    reindex(Layout(out), transform="second-level", transform_settings={"mu": MU})
    return out


@pytest.fixture
def folder(four_bits, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(four_bits, tmp_path / "index")


def dense_level(folder: Path, mu: float = MU) -> np.ndarray:
    """R [D, D] by numpy in float64, from the decoded vectors of the parts that can be found."""
    version = Snapshot.open(Layout(folder))
    usable = np.setdiff1d(np.arange(version.manifest.stored_parts), version.excluded)
    vectors = version.vectors.decoded(usable).double().numpy()
    C = vectors.T @ vectors
    values, basis = np.linalg.eigh(C / (np.trace(C) / len(C)) + mu * np.eye(len(C)))
    return np.asarray(basis @ np.diag(((1 + mu) / values) ** 0.5) @ basis.T)


def queries(folder: Path, count: int = 4) -> torch.Tensor:
    """Query vectors: sums of stored ones and noise."""
    vectors = Snapshot.open(Layout(folder)).vectors.decoded(np.arange(2 * count))
    noise = torch.randn(count, vectors.shape[1], generator=torch.Generator().manual_seed(5))
    return vectors[:count] + 0.5 * vectors[count:] + noise * vectors.std()


def check(folder: Path, mu: float = MU, complete: bool = True, rtol: float = 1e-3, **settings: object) -> None:
    """Hits are the best by <R q, R v>, computed densely, with these scores; where not complete, the best one is."""
    index, R, asked = GradientIndex.open(folder), dense_level(folder, mu), queries(folder)
    version = Snapshot.open(Layout(folder))
    vectors = version.vectors.decoded(np.arange(version.manifest.stored_parts)).double().numpy()
    scores = (asked.double().numpy() @ R) @ (vectors @ R).T
    scores[:, version.excluded] = -np.inf
    for result, row in zip(index.search_vectors(asked, k=5, **settings), scores, strict=True):
        best = np.sort(row)[::-1][:5]
        # Products are float32; scores of opposite signs cancel in them.
        count = 5 if complete else 1
        found = [hit.score for hit in result.hits[:count]]
        np.testing.assert_allclose(found, best[:count], rtol=rtol, atol=1e-4 * np.abs(best).max())


@pytest.mark.parametrize("kind", KINDS)
def test_searches_score_with_it_on_both_sides(folder, kind):
    reindex(Layout(folder), kind)
    assert Manifest.read(Layout(folder), 3).search.transform.settings == {"mu": MU}  # kept where nothing is said of it
    check(folder, complete=kind != "ivf")  # of its lists a query searches some
    check(folder, scan=True)
    assert verify(Layout(folder), deep=True)["problems"] == []


def test_vectors_of_one_bit_are_whitened_as_they_decode(built, tmp_path):
    folder = Path(shutil.copytree(built, tmp_path / "index"))
    reindex(Layout(folder), "rabitq", transform="second-level", transform_settings={"mu": MU})
    check(folder)
    check(folder, scan=True)


def test_leading_directions_of_more_dimensions_than_parts_are_all_there_is(folder, monkeypatch):
    monkeypatch.setattr(curvature, "DENSE_DIMENSION", 64)
    made = reindex(Layout(folder)).search.transform.measures
    usable = made["directions"]
    assert 150 < usable <= Manifest.read(Layout(folder), 3).stored_parts and made["share"] > 0.998
    # The vectors differ in length by orders of magnitude: the least directions drown in the rounding of float32.
    check(folder, rtol=5e-3)


def test_layers_add_up_and_unit_scores_are_cosines(folder):
    index, R, asked = GradientIndex.open(folder), dense_level(folder), queries(folder, 1)
    for hit in index.search_vectors(asked, k=5, layers=True)[0].hits:
        assert sum(hit.layers.values()) == pytest.approx(hit.score, rel=1e-4)
    vectors = Snapshot.open(Layout(folder)).vectors.decoded(np.arange(index.manifest.stored_parts)).numpy()
    seen, query = vectors.astype(np.float64) @ R, asked[0].double().numpy() @ R
    cosines = seen @ query / np.maximum(np.linalg.norm(seen, axis=1), 1e-30) / np.linalg.norm(query)
    found = [hit.score for hit in index.search_vectors(asked, k=5, normalise="unit")[0].hits]
    np.testing.assert_allclose(found, np.sort(cosines)[::-1][:5], rtol=1e-3)
    np.testing.assert_allclose(np.sort(index.scores(asked)[0]), np.sort(seen @ query), rtol=1e-3, atol=1e-3)


def test_switching_leaves_the_vectors_and_the_answers_as_they_were(folder):
    asked = queries(folder)
    before = rollback(Layout(folder), 1)
    plain = [[hit.score for hit in r.hits] for r in GradientIndex.open(folder).search_vectors(asked)]
    assert before.search.transform is None
    on = reindex(Layout(folder), transform="second-level")
    assert on.search.transform.settings == {"mu": 0.1}
    assert {f.path for f in on.lasting} == {f.path for f in before.lasting}
    check(folder, 0.1)
    changed = [[hit.score for hit in r.hits] for r in GradientIndex.open(folder).search_vectors(asked)]
    assert not np.allclose(plain, changed, rtol=0.01)
    off = reindex(Layout(folder), transform="none")
    assert off.search.transform is None and off.derived == [off.search.main.file]
    again = [[hit.score for hit in r.hits] for r in GradientIndex.open(folder).search_vectors(asked)]
    np.testing.assert_allclose(again, plain, rtol=1e-6)


def test_add_delete_and_compact_take_all_that_is_stored(folder, more, model_folder):
    index = GradientIndex.open(folder, device="cpu")
    index.add([str(more({f"new{n}": "the race the lock the heap " * (n + 1) for n in range(3)}))])
    assert Manifest.read(Layout(folder), 3).search.transform.settings == {"mu": MU}
    check(folder)
    index.refresh().delete(["d1", "new0"])
    compact(Layout(folder))
    assert Manifest.read(Layout(folder), 5).search.transform.settings == {"mu": MU}
    check(folder)
    assert prune(Layout(folder))["versions"] == 4
    assert verify(Layout(folder), deep=True) | {"checked_bytes": 0} == {
        "version": 5,
        "problems": [],
        "unnamed": [],
        "checked_bytes": 0,
    }


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-8] + b"altered!")]
)
def test_a_damaged_file_is_found_and_built_again(folder, change):
    layout = Layout(folder)
    level = folder / Manifest.read(layout, 2).search.transform.file
    change(level)
    (problem,) = verify(layout)["problems"]
    assert str(level) in problem
    with pytest.raises(CorruptStoreError, match="second-level"):
        GradientIndex.open(folder).search_vectors(queries_of(folder))
    degraded = GradientIndex.open(folder, allow_degraded=True)
    assert level.name in degraded.problems[0]
    repaired = repair(layout)
    assert (
        repaired.rebuilt == ("search/00000003.faiss", "search/00000003.second-level.safetensors")
        and not repaired.beyond
    )
    check(folder)


def queries_of(folder: Path) -> torch.Tensor:
    """A query that needs no stored vector."""
    return torch.ones(1, Manifest.read(Layout(folder), 2).projection.dimension)


def test_degraded_searches_have_the_second_level_of_what_is_left(folder):
    layout = Layout(folder)
    (folder / Manifest.read(layout, 2).search.main.file).unlink()
    asked = queries(rolled(folder))
    whole = GradientIndex.open(folder, version=2, allow_degraded=True).search_vectors(asked)
    fresh = GradientIndex.open(rolled(folder, on=True)).search_vectors(asked)
    for a, b in zip(whole, fresh, strict=True):
        np.testing.assert_allclose([hit.score for hit in a.hits], [hit.score for hit in b.hits], rtol=1e-4)


def rolled(folder: Path, on: bool = False) -> Path:
    """The index as it was before the second level; with it again, where it is on."""
    if not on:
        rollback(Layout(folder), 1)
        return folder
    reindex(Layout(folder), transform="second-level", transform_settings={"mu": MU})
    return folder


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"transform": "none", "transform_settings": {"mu": 0.1}}, "mu: expected `transform` beside it"),
        ({"transform": "second-level", "transform_settings": {"mu": 0.0}}, "mu: expected a positive"),
        ({"transform_settings": {"mu": float("nan")}}, "mu: expected a positive"),
    ],
)
def test_bad_settings_are_refused_and_change_nothing(folder, settings, found):
    with pytest.raises(ConfigError, match=found):
        reindex(Layout(folder), **settings)
    assert Snapshot.open(Layout(folder)).manifest.version == 2
