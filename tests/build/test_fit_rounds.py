"""Layers fitted in rounds: the same factors, byte for byte, whatever the rounds, and however the fit was stopped."""

import itertools

import numpy as np
import pytest
from families import FAMILIES
from task_models import TASK_MODELS

from gindex.build.fit_memory import fit_bytes, fit_rounds
from gindex.build.fit_phase import Fit
from gindex.build.memory import GIGABYTE, LEAST_BATCH_TOKENS, memory_needs, rounds_of_fit
from gindex.config import BuildConfig, ModelConfig
from gindex.curvature.experts import expected_sharing
from gindex.curvature.kinds import curvature_kind
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Silent
from gindex.store.layout import Layout


@pytest.fixture(scope="module", params=["Llama", "Mixtral", "T5"])
def engine(request, tmp_path_factory, model_folder, small_tokenizer):
    """A dense model; one with experts that share factors; one whose decoder blocks read the same activations."""
    folder = tmp_path_factory.mktemp("rounds")
    if request.param == "Llama":
        return TrackedModel.load(ModelConfig(name=str(model_folder), device="cpu", layers="everything"))
    if request.param == "Mixtral":
        (family,) = (family for family in FAMILIES if family.name == "Mixtral")
        family.model().save_pretrained(folder)
        small_tokenizer.save_pretrained(folder)
    else:
        (model,) = (model for model in TASK_MODELS if model.name == "T5")
        model.save(folder)
    return TrackedModel.load(ModelConfig(name=str(folder), device="cpu"))


def fit(engine, folder, kind="ekfac", progress=None) -> Fit:
    generator = np.random.default_rng(0)
    parts = [engine.task.trial(generator.integers(4, 40, n).astype(np.uint32)) for n in (5, 20, 12, 9)]
    batches = engine.batches(parts, np.arange(len(parts)), 24)
    layout = Layout(folder)
    layout.factors.mkdir(parents=True, exist_ok=True)
    return Fit(
        layout=layout, model=engine, batches=batches, kind=curvature_kind(kind), seed=3, progress=progress or Silent()
    )


def content(folder):
    return {path.name: path.read_bytes() for path in Layout(folder).factors.iterdir()}


@pytest.mark.parametrize("kind", ["ekfac", "kfac"])
def test_factors_of_rounds_equal_those_of_one(engine, tmp_path, kind):
    table, formats = engine.table, engine.factor_formats
    whole = fit_bytes(table.layers, formats)
    fit(engine, tmp_path / "whole", kind).run([table])
    for room in (0, whole // 3, 2 * whole // 3):
        rounds = fit_rounds(table, room, formats)
        assert len(rounds) > 1
        fit(engine, tmp_path / str(room), kind).run(rounds)
        assert content(tmp_path / str(room)) == content(tmp_path / "whole")


@pytest.mark.parametrize("phase", ["fit covariances", "eigenbases", "fit eigenvalues"])
def test_rounds_that_were_stopped_go_on(engine, tmp_path, recorder, phase):
    fit(engine, tmp_path / "whole").run([engine.table])
    rounds = fit_rounds(engine.table, 0, engine.factor_formats)
    stop = recorder(f"{phase}, round 2 of {len(rounds)}", 1)
    with pytest.raises(Exception, match=phase):
        fit(engine, tmp_path / "index", progress=stop).run(rounds)
    before = {path: path.stat().st_mtime_ns for path in Layout(tmp_path / "index").factors.iterdir()}
    assert before
    fit(engine, tmp_path / "index").run(
        fit_rounds(engine.table, fit_bytes(engine.table.layers, engine.factor_formats) // 2, engine.factor_formats)
    )
    assert content(tmp_path / "index") == content(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("tokens", [0, 10**9])
def test_rounds_have_all_layers_and_keep_to_their_room(engine, tokens):
    formats = engine.factor_formats
    table = type(engine.table)(layers=expected_sharing(engine.table.layers, tokens), untracked=())
    assert [of.layers for of in fit_rounds(table, None, formats)] == [table.layers]
    least = max(fit_bytes(layers, formats) for layers in table.by_group())
    for room in range(least, fit_bytes(table.layers, formats), max(1, least // 5)):
        rounds = fit_rounds(table, room, formats)
        assert {layer.name for of in rounds for layer in of} == {layer.name for layer in table}
        assert sum(len(of) for of in rounds) == len(table)
        assert all(fit_bytes(of.layers, formats) <= room for of in rounds)
        pairs = itertools.pairwise(rounds)
        joined = [fit_bytes([*one, *more.by_group()[0]], formats) for one, more in pairs]
        assert all(size > room for size in joined)
    assert len(fit_rounds(table, 0, formats)) == len(table.groups)


def test_a_bound_makes_rounds_that_it_holds(engine):
    needed = memory_needs(engine, BuildConfig(), 100, 32).fit
    assert len(rounds_of_fit(engine, BuildConfig(), 32)) == 1
    whole = fit_bytes(engine.table.layers, engine.factor_formats)
    least = max(fit_bytes(layers, engine.factor_formats) for layers in engine.table.by_group())
    bound = needed.least(LEAST_BATCH_TOKENS) - whole + least + 1
    config = BuildConfig(memory=bound / GIGABYTE)
    rounds, need = rounds_of_fit(engine, config, 32), memory_needs(engine, config, 100, 32).fit
    assert len(rounds) > 1 and need.least(LEAST_BATCH_TOKENS) <= bound < needed.least(LEAST_BATCH_TOKENS)
