"""Indexes over pictures: gradients against autograd, and mislabelled pictures that are found, through all commands."""

import json
from functools import partial
from io import BytesIO

import numpy as np
import pytest
import torch
import transformers

from gindex import BuildConfig, GradientIndex, ModelConfig, VectorConfig
from gindex.corpus.batches import pad
from gindex.corpus.contents import positions
from gindex.corpus.objectives import Objective
from gindex.corpus.pictures import picture_content
from gindex.errors import CorpusError, MismatchError, ModelError, QueryError
from gindex.model.tasks.image_classification import ReadPicture
from gindex.model.tracked_model import TrackedModel
from gindex.queries.query import FailedQuery, Query, query_record
from gindex.vectors.influence import document_gradients
from tests.support.picture_models import MODELS, SIZE, picture, save_picture_model, save_pictures, train

COLOURS = ("red", "blue", "blue")
WRONG = ("blue/red-0.png", "blue/red-1.png")
"""The pictures that are labelled wrongly in the corpus of the tests."""


@pytest.fixture(scope="module", params=MODELS)
def loaded(request, tmp_path_factory) -> TrackedModel:
    folder = tmp_path_factory.mktemp("model")
    save_picture_model(request.param, folder)
    model = TrackedModel.load(ModelConfig(name=str(folder), device="cpu", dtype="float32"))
    model.loaded.model.double()
    return model


def asked(model: TrackedModel, n: int) -> Objective:
    content = picture_content(picture(COLOURS[n], n, (20 + n, 14)), "picture")
    read = ReadPicture(content=content, positions=positions(3 * SIZE**2))
    return Objective((read.asked(np.array([n % 2], np.float32)),))


def expected(model: TrackedModel, n: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients by transformers' own loss and processor, and autograd."""
    own, image = model.loaded.model, picture(COLOURS[n], n, (20 + n, 14))
    pixels = model.loaded.tokenizer(images=[image], return_tensors="pt")["pixel_values"].double()
    own.requires_grad_(True)
    try:
        loss = own(pixel_values=pixels, labels=torch.tensor([n % 2])).loss
        weights = [layer.module.weight for layer in model.table.layers]
        found = torch.autograd.grad(loss, weights)
    finally:
        own.requires_grad_(False)
    names = [layer.name for layer in model.table.layers]
    return loss.item(), {name: G.flatten(1) for name, G in zip(names, found, strict=True)}


def gradients(model: TrackedModel, objectives: list[Objective]) -> tuple[list[float], dict[str, torch.Tensor]]:
    batch = pad(objectives, np.arange(len(objectives)))
    G_NW, space = document_gradients(model.table.layers, len(objectives), partial(model.task.losses, batch))
    return model.task.losses(batch).tolist(), space.split(G_NW)


def test_gradients_of_pictures_are_those_of_autograd_alone_and_in_a_batch(loaded):
    objectives = [asked(loaded, n) for n in range(len(COLOURS))]
    losses, G = gradients(loaded, objectives)
    for n, each in enumerate(objectives):
        loss, wanted = expected(loaded, n)
        alone_loss, alone = gradients(loaded, [each])
        # In float64; the processor gives the same float32 pixels to both.
        assert losses[n] == pytest.approx(loss, rel=1e-10) and alone_loss[0] == pytest.approx(loss, rel=1e-10)
        for layer in loaded.table.layers:
            for found in (G[layer.name][n], alone[layer.name][0]):
                weight = found[:, : layer.inputs - layer.has_bias]
                size = max(float(wanted[layer.name].norm()), 1e-6)
                assert float((weight - wanted[layer.name]).norm()) <= 1e-9 * size, layer.name


def test_sampled_labels_of_pictures_do_not_depend_on_the_batch(loaded):
    objectives = [asked(loaded, n) for n in range(len(COLOURS))]
    together = loaded.task.sampled_losses(pad(objectives, np.arange(3)), [5, 6, 7]).tolist()
    alone = [loaded.task.sampled_losses(pad([each], [0]), [5 + n]).item() for n, each in enumerate(objectives)]
    assert together == pytest.approx(alone, rel=1e-9)


def encoded(colour: str, seed: int) -> bytes:
    file = BytesIO()
    picture(colour, seed).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    model = save_picture_model("resnet", folder)
    train(model, 16)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def config(model_folder) -> BuildConfig:
    return BuildConfig(
        model=ModelConfig(name=str(model_folder), device="cpu"), vectors=VectorConfig(dimension=1024, bits=16)
    )


@pytest.fixture(scope="module")
def index(model_folder, tmp_path_factory) -> GradientIndex:
    folder = tmp_path_factory.mktemp("index")
    save_pictures(folder / "pictures", 14, wrong=2)
    built = BuildConfig(
        model=ModelConfig(name=str(model_folder), device="cpu"), vectors=VectorConfig(dimension=1024, bits=16)
    )
    return GradientIndex.build([str(folder / "pictures")], folder / "index", built)


def test_mislabelled_pictures_have_the_largest_self_influence(index):
    assert {outlier.document_id for outlier in index.outliers(2)} == set(WRONG)


@pytest.mark.parametrize("exact", [False, True])
def test_a_query_leads_to_the_mislabelled_pictures_that_it_resembles(index, exact):
    """A red picture that is called blue: those that taught it to are red ones among the blue."""
    result = index.search(Query(image=picture("red", 5000), label="blue"), k=2, exact=exact)
    assert {hit.document_id for hit in result.hits} == set(WRONG)
    assert result.hits[0].text.startswith("[blue] red-") and result.hits[0].metadata == {"label": "blue"}


def test_a_query_without_a_label_asks_for_what_the_model_says(index):
    result = index.search(Query(image=encoded("blue", 5001)), k=1)
    named = index.search(Query(image=encoded("blue", 5001), label="blue"), k=1)
    assert any("the label is what the model says: blue" in note for note in result.notes)
    assert result.hits[0].score == named.hits[0].score


def test_a_contrast_is_another_label(index):
    query = Query(image=encoded("red", 5002), label="blue", contrast="red")
    result = index.search(query, k=2, exact=True)
    assert {hit.document_id for hit in result.hits} == set(WRONG)


def test_an_explanation_tells_a_picture_apart_by_layers(index):
    query = Query(image=picture("red", 5003), label="blue")
    hit = index.search(query, k=1, exact=True).hits[0]
    explanation = index.explain(hit.document_id, query)
    assert explanation.influence == pytest.approx(hit.influence, rel=1e-4)
    assert sum(explanation.groups.values()) == pytest.approx(explanation.influence, rel=1e-4)
    assert explanation.parts[0].tokens == ()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(prompt="a text"), "none"),
        (Query(prompt="a text", image=encoded("red", 1)), "a text beside it"),
        (Query(image=encoded("red", 1), label="green"), "'green'"),
        (Query(image=b"no picture"), "cannot be read"),
        (Query(messages=[{"role": "user", "content": "x"}]), "messages"),
    ],
)
def test_a_query_that_is_no_picture_or_has_no_label_of_the_model_is_refused(index, query, found):
    with pytest.raises(QueryError, match=found):
        index.search(query)


def test_pictures_are_added_deleted_compacted_and_verified(index, tmp_path, config, run):
    save_pictures(tmp_path / "pictures", 14, wrong=2)
    own = GradientIndex.build([str(tmp_path / "pictures")], tmp_path / "index", config)
    (tmp_path / "more/blue").mkdir(parents=True)
    (tmp_path / "more/blue/new.png").write_bytes(encoded("red", 0))
    own.add([str(tmp_path / "more")])
    own.refresh().delete([WRONG[0]])
    assert run("compact", tmp_path / "index").exit_code == 0
    assert run("verify", tmp_path / "index").exit_code == 0
    found = GradientIndex.open(tmp_path / "index", device="cpu")
    (stored,) = found.objectives("blue/new.png")
    assert stored.texts[0].content.data == encoded("red", 0)
    query = Query(image=picture("red", 5000), label="blue")
    hits = {hit.document_id for hit in found.search(query, k=2, exact=True).hits}
    assert hits == {WRONG[1], "blue/new.png"}


def test_the_command_line_asks_about_a_picture(index, tmp_path, run):
    (tmp_path / "query.png").write_bytes(encoded("red", 5000))
    asked = ("--image", tmp_path / "query.png", "--label", "blue")
    result = run("search", index.path, *asked, "-k", 2, "--exact", "--json")
    assert result.exit_code == 0, result.output
    assert {hit["document_id"] for hit in json.loads(result.stdout)["hits"]} == set(WRONG)
    shown = run("search", index.path, *asked)
    assert shown.exit_code == 0 and "[blue] red-" in shown.output
    explained = run("explain", index.path, WRONG[0], *asked)
    assert explained.exit_code == 0 and "influence +" in explained.output
    queries = tmp_path / "queries.jsonl"
    queries.write_text(json.dumps({"image": json.loads(result.stdout)["query"]["image"], "label": "blue"}))
    again = run("search", index.path, "--queries", queries, "-k", 2, "--json")
    assert again.exit_code == 0, again.output
    scored = run("score", index.path, "--queries", queries, "--out", tmp_path / "scores.jsonl")
    assert scored.exit_code == 0, scored.output


def test_labels_that_the_model_lacks_are_refused_with_the_document(tmp_path, config):
    save_pictures(tmp_path / "pictures", 2)
    (tmp_path / "pictures/blue").rename(tmp_path / "pictures/green")
    with pytest.raises(CorpusError, match=r"green/blue-0\.png.*red, blue.*'green'"):
        GradientIndex.build([str(tmp_path / "pictures")], tmp_path / "index", config)


def test_an_image_processor_that_makes_pictures_of_several_sizes_is_refused(tmp_path):
    save_picture_model("resnet", tmp_path)
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 384})
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    varying = {"image_processor_type": "BitImageProcessor", "do_center_crop": False, "size": {"shortest_edge": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | varying))
    with pytest.raises(ModelError, match="all pictures of one size"):
        TrackedModel.load(ModelConfig(name=str(tmp_path)))


def test_a_query_that_fails_is_told_as_it_was_asked(index):
    """A picture or a path that cannot be read is shown in the place of its bytes."""
    for image in (b"no picture", "not/there.png", 7):
        query = Query(image=image, label="red")
        (failed,) = index.search_each([query])
        assert isinstance(failed, FailedQuery) and json.dumps(query_record(query))


def test_a_model_without_an_image_processor_is_refused(tmp_path):
    save_picture_model("resnet", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="an image processor beside the model"):
        TrackedModel.load(ModelConfig(name=str(tmp_path)))


def test_another_image_processor_is_not_that_of_the_index(index, model_folder, tmp_path):
    save_picture_model("resnet", tmp_path)
    for file in ("model.safetensors", "config.json"):
        (tmp_path / file).write_bytes((model_folder / file).read_bytes())
    transformers.ViTImageProcessorPil(size={"height": SIZE + 2, "width": SIZE}).save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match="that the index was built with"):
        GradientIndex.open(index.path, model=str(tmp_path)).search(Query(image=encoded("red", 1)))
