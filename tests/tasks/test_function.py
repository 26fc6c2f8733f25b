"""Tasks of a user's own over tensors: a tiny Whisper, through Python and the command line."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gindex import BuildConfig, GradientIndex, ModelConfig, VectorConfig
from gindex.corpus.batches import pad
from gindex.corpus.content_documents import asked_of_tensors
from gindex.corpus.contents import Content, tensor_content, tensor_of
from gindex.corpus.objectives import Objective
from gindex.errors import ConfigError, CorpusError, ModelError, QueryError, ShapeError
from gindex.model.tracked_model import TrackedModel
from gindex.queries.query import Query
from gindex.vectors.influence import document_gradients
from tests.support import transcriptions
from tests.support.transcriptions import clip, save_clips, save_whisper, transcription

FILE = Path(transcriptions.__file__)
TASK = f"{FILE}:transcription"
PLANTED = {"planted-0", "planted-1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    save_whisper(folder)
    return folder


def objective(seed: int) -> Objective:
    tensors = {name: tensor_of(value, "clip") for name, value in clip(seed).items()}
    return Objective((asked_of_tensors(tensor_content(tensors)),))


def load(folder: Path, task: str = TASK) -> TrackedModel:
    config = ModelConfig(name=str(folder), task=task, device="cpu", dtype="float32")
    return TrackedModel.load(config, examples=lambda _loaded: [objective(2 * n) for n in range(4)])


@pytest.fixture(scope="module", params=[TASK, f"{FILE}:Drawn"])
def model(request, folder) -> TrackedModel:
    model = load(folder, request.param)
    model.loaded.model.double()
    return model


def test_gradients_of_tensors_are_those_of_autograd_alone_and_in_a_batch(model):
    seeds = (0, 2, 4)
    objectives = [objective(seed) for seed in seeds]
    batch = pad(objectives, np.arange(len(seeds)))
    G_NW, space = document_gradients(model.table.layers, len(seeds), partial(model.task.losses, batch))
    found = space.split(G_NW)
    own = model.loaded.model
    for n, seed in enumerate(seeds):
        tensors = {name: torch.tensor(value)[None] for name, value in clip(seed).items()}
        tensors["input_features"] = tensors["input_features"].double()
        own.requires_grad_(True)
        try:
            loss = transcription(own, tensors).sum()
            expected = torch.autograd.grad(loss, [layer.module.weight for layer in model.table.layers])
        finally:
            own.requires_grad_(False)
        one = pad([objectives[n]], [0])
        alone, _ = document_gradients(model.table.layers, 1, partial(model.task.losses, one))
        assert model.task.losses(batch)[n].item() == pytest.approx(loss.item(), rel=1e-10)
        # In float64, from the same float32 features: sums of a few hundred terms.
        assert float((alone[0] - G_NW[n]).norm()) <= 1e-9 * float(G_NW[n].norm())
        for layer, G in zip(model.table.layers, expected, strict=True):
            weight = found[layer.name][n][:, : layer.inputs - layer.has_bias]
            assert float((weight - G.flatten(1)).norm()) <= 1e-9 * max(float(G.norm()), 1e-6), layer.name


def test_sampled_labels_of_tensors_do_not_depend_on_the_batch(model):
    objectives = [objective(seed) for seed in (0, 2, 4)]
    together = model.task.sampled_losses(pad(objectives, np.arange(3)), [5, 6, 7]).tolist()
    alone = [model.task.sampled_losses(pad([each], [0]), [5 + n]).item() for n, each in enumerate(objectives)]
    assert together == pytest.approx(alone, rel=1e-9)
    assert together != pytest.approx(model.task.sampled_losses(pad(objectives, np.arange(3)), [1, 2, 3]).tolist())


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("mean", "losses: expected that of each document alone"),
        ("whole", r"losses of shape \[4\], one for each document, found \[\]"),
        ("detached", "losses: expected differentiable ones"),
        ("infinite", "losses: expected finite ones"),
        ("failing", r"it fails \(KeyError"),
        ("flat", r"outputs of shape \[4 documents"),
    ],
)
def test_a_function_that_gives_no_losses_of_documents_is_refused(folder, function, found):
    with pytest.raises(ModelError, match=found):
        load(folder, f"{FILE}:{function}")


@pytest.mark.parametrize(
    ("task", "found"),
    [
        (f"{FILE}:unlikely", "the likelihood 'poisson'"),
        (f"{FILE}:undrawn", "neither"),
        (f"{FILE}:number", "not called"),
        (f"{FILE}:missing", "'missing' in"),
        ("no/such/file.py:function", "a Python file"),
        ("no_such_module:function", "ModuleNotFoundError"),
    ],
)
def test_a_name_of_no_task_is_refused(folder, task, found):
    with pytest.raises(ConfigError, match=found):
        load(folder, task)


@pytest.fixture
def config(folder) -> BuildConfig:
    return BuildConfig(
        model=ModelConfig(name=str(folder), task=TASK, device="cpu"), vectors=VectorConfig(dimension=1024, bits=16)
    )


@pytest.fixture(scope="module")
def index(folder, tmp_path_factory) -> GradientIndex:
    place = tmp_path_factory.mktemp("clips")
    save_clips(place / "clips.jsonl", 24, planted=clip(1000))
    model = ModelConfig(name=str(folder), task=TASK, device="cpu")
    config = BuildConfig(model=model, vectors=VectorConfig(dimension=1024, bits=16))
    return GradientIndex.build([str(place / "clips.jsonl")], place / "index", config)


@pytest.mark.parametrize("exact", [False, True])
def test_a_query_of_tensors_leads_to_the_documents_that_say_the_same(index, exact):
    result = index.search(Query(tensors=clip(1000)), k=2, exact=exact)
    assert {hit.document_id for hit in result.hits} == PLANTED
    assert result.hits[0].text == "input_features [8 x 20], labels [4]" and result.hits[0].metadata == {"speaker": 9}


def test_a_document_of_the_index_is_a_query(index):
    asked = index.search(Query(document="planted-0"), k=5, exact=True)
    given = index.search(Query(tensors=clip(1000)), k=5, exact=True)
    assert [(hit.document_id, hit.influence) for hit in asked.hits] == [
        (hit.document_id, hit.influence) for hit in given.hits
    ]
    with pytest.raises(QueryError, match="no-such"):
        index.search(Query(document="no-such"))
    explanation = index.explain("planted-1", Query(document="planted-0"))
    assert explanation.influence == pytest.approx(asked.hits[0].influence, rel=1e-4)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(prompt="a text"), "none"),
        (Query(tensors={"labels": [3, 4]}), "found labels"),
        (Query(tensors=clip(0) | {"labels": [[1], [2, 3]]}), "several lengths"),
        (Query(tensors=clip(0) | {"labels": ["a"]}), "values of <U1"),
    ],
)
def test_a_query_without_the_tensors_of_the_task_is_refused(index, query, found):
    with pytest.raises(QueryError, match=found):
        index.search(query)


def test_an_index_runs_no_function_by_itself(index, monkeypatch):
    """Neither opening nor asking imports it, until the user names it, and no other one."""
    monkeypatch.delitem(sys.modules, FILE.stem)
    opened = GradientIndex.open(index.path, device="cpu")
    opened.info()
    for task in (None, f"{FILE}:Drawn"):
        with pytest.raises(ConfigError, match=r"the function of a user's own that the index was built with"):
            GradientIndex.open(index.path, device="cpu", task=task).search(Query(document="planted-0"))
    assert FILE.stem not in sys.modules
    named = GradientIndex.open(index.path, device="cpu", task=TASK)
    assert {hit.document_id for hit in named.search(Query(document="planted-0"), k=2).hits} == PLANTED


def test_the_command_line_names_the_function_each_time(folder, tmp_path, run):
    save_clips(tmp_path / "clips.jsonl", 24, planted=clip(1000))
    index = tmp_path / "index"
    built = run(
        "build", tmp_path / "clips.jsonl", "--model", folder, "--task", TASK, "--out", index, "--dimension", 1024,
        "--device", "cpu",
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    refused = run("search", index, "--document", "planted-0")
    assert refused.exit_code == 2 and "--task" in refused.output
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": "planted-2", **clip(1000)}))
    added = run("add", index, tmp_path / "more.jsonl", "--task", TASK)
    assert added.exit_code == 0, added.output
    found = run("search", index, "--document", "planted-0", "--task", TASK, "-k", 3, "--exact", "--json")
    assert found.exit_code == 0, found.output
    assert {hit["document_id"] for hit in json.loads(found.stdout)["hits"]} == {*PLANTED, "planted-2"}
    explained = run("explain", index, "planted-1", "--document", "planted-0", "--task", TASK)
    assert explained.exit_code == 0 and "influence +" in explained.output


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"labels": [1, 2]}, "'input_features'"),
        (clip(0) | {"labels": [[1], [2, 3]]}, "several lengths"),
        (clip(0) | {"labels": "text"}, "values of <U4"),
        (clip(0) | {"labels": None}, "none"),
    ],
)
def test_a_record_without_the_columns_of_the_task_is_refused(tmp_path, config, record, found):
    (tmp_path / "clips.jsonl").write_text(json.dumps(clip(1)) + "\n" + json.dumps(record))
    with pytest.raises(CorpusError, match=f":2.*{found}"):
        GradientIndex.build([str(tmp_path / "clips.jsonl")], tmp_path / "index", config)


def test_damaged_tensors_are_an_error():
    with pytest.raises(ShapeError, match="the bytes of tensors"):
        Content("application/x-safetensors", b"damaged").tensors()
