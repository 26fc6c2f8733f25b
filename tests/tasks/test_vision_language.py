"""Vision-language models: gradients of conversations with pictures against autograd, and indexes of them.

The reference is transformers' own loss of the model on what its own processor makes of a conversation, in float64, one
document at a time.
"""

from functools import partial
from io import BytesIO

import numpy as np
import pytest
import torch

from gindex import CorpusConfig, ModelConfig
from gindex.corpus.batches import pad
from gindex.corpus.objectives import Objective
from gindex.corpus.records import Record, to_document
from gindex.errors import ShapeError
from gindex.model.capture import observe
from gindex.model.tracked_model import TrackedModel
from tests.support.observers import Gradients
from tests.support.picture_models import picture
from tests.support.vision_models import FAMILIES, about, load_processor, save_vision_model

SIZES = ((20, 14), (14, 40), (30, 30))
"""Widths and heights of the pictures of the documents: processors make tensors of several shapes of them."""


def encoded(colour: str, seed: int, size: tuple[int, int] = SIZES[0]) -> bytes:
    file = BytesIO()
    picture(colour, seed, size).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_vision_model(request.param, folder)
    return folder


@pytest.fixture(scope="module")
def model(folder) -> TrackedModel:
    model = TrackedModel.load(ModelConfig(name=str(folder), device="cpu", dtype="float32"))
    model.loaded.model.double()
    return model


def read(model: TrackedModel, fields: dict, **settings) -> Objective:
    config = model.loaded.kind.corpus_config(CorpusConfig(max_tokens=256, **settings))
    document = to_document(Record(fields=fields, place="record", default_id="d"), config)
    (made,) = model.loaded.encoder(config, 0).encode([document])
    return made.parts[0].objective


def conversations() -> list[tuple[dict, list]]:
    """Records, each with the pictures of its conversation: one, two, and none."""
    two = about("red, blue")
    two[0]["content"].append({"type": "image"})
    plain = [{"role": "user", "content": "What is a compiler?"}, {"role": "assistant", "content": "a program"}]
    pictures = [[("red", 1, SIZES[0])], [("red", 2, SIZES[1]), ("blue", 3, SIZES[2])], []]
    said = [about("red"), two, plain]
    return [
        ({"messages": messages, "images": [encoded(*each) for each in of]}, [picture(*each) for each in of])
        for messages, of in zip(said, pictures, strict=True)
    ]


def in_pieces(turn: dict) -> dict:
    content = turn["content"]
    return {**turn, "content": [{"type": "text", "text": content}] if isinstance(content, str) else content}


def expected(model: TrackedModel, folder, record: dict, pictures: list) -> tuple[dict, torch.Tensor, float]:
    """Weight gradients by name, token ids and loss, by transformers alone."""
    processor, own = load_processor(folder), model.loaded.model
    text = processor.apply_chat_template([in_pieces(turn) for turn in record["messages"]])
    inputs = processor(text=[text], images=pictures or None, return_tensors="pt")
    (said,) = [in_pieces(turn) for turn in record["messages"] if turn["role"] == "assistant"]
    start = text.rfind(said["content"][0]["text"])
    end = start + len(said["content"][0]["text"]) + len(" " if "ASSISTANT" in text else "<|im_end|>")
    # No picture is behind the answer: so many tokens before the end are those of the text without pictures.
    offsets = processor.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    counted = torch.tensor([first < end and start < last for first, last in offsets])
    ids_1T = inputs["input_ids"]
    labels = torch.full_like(ids_1T, -100)
    places = ids_1T.shape[1] - len(counted) + counted.nonzero()[:, 0]
    labels[0, places] = ids_1T[0, places]
    inputs = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    own.requires_grad_(True)
    try:
        loss = own(**inputs, labels=labels).loss * len(places)
        weights = [layer.module.weight for layer in model.table.layers]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
    finally:
        own.requires_grad_(False)
    names = [layer.name for layer in model.table.layers]
    return dict(zip(names, found, strict=True)), ids_1T[0], loss.item()


def gradients(model: TrackedModel, objectives: list[Objective], batch_tokens: int) -> list[tuple[float, dict]]:
    """Losses and gradients of documents, from the batches that a build runs."""
    found: dict[int, tuple[float, dict]] = {}
    for batch in model.batches(objectives, np.arange(len(objectives)), batch_tokens):
        observer = Gradients()
        losses = observe(
            model.table.layers, observer, len(batch.ordinals), partial(model.task.losses, batch), batch.texts
        )
        for row, n in enumerate(batch.ordinals):
            found[int(n)] = losses[row].item(), {name: G[row] for name, G in observer.found.items()}
    return [found[n] for n in range(len(objectives))]


def test_gradients_of_conversations_with_pictures_are_those_of_autograd(model, folder):
    """Both of each document alone, and of all in the batches of a build, which hold text-only documents together."""
    cases = conversations()
    objectives = [read(model, record) for record, _ in cases]
    objectives.append(objectives[-1])  # a second text without pictures, in one batch with the first
    alone = [gradients(model, [each], 1)[0] for each in objectives]
    together = gradients(model, objectives, 1 << 12)
    for n, (record, pictures) in enumerate(cases):
        wanted, ids, loss = expected(model, folder, record, pictures)
        assert objectives[n].texts[0].ids.tolist() == ids.tolist()
        for found_loss, G in (alone[n], together[n]):
            # In float64; some classes narrow their logits to float32 for the loss.
            assert found_loss == pytest.approx(loss, rel=1e-6)
            for layer in model.table.layers:
                weight = G[layer.name][:, : layer.inputs - layer.has_bias]
                reference = torch.zeros_like(weight) if wanted[layer.name] is None else wanted[layer.name].flatten(1)
                size = max(float(reference.norm()), 1e-6)
                assert float((weight - reference).norm()) <= 1e-5 * size, layer.name


def test_the_layers_that_read_pictures_are_tracked_and_text_alone_leaves_them_without_gradient(model):
    alone = [layer for layer in model.table.layers if layer.alone]
    assert any("vision" in layer.name or "visual" in layer.name for layer in alone)
    pictured, plain = (read(model, conversations()[n][0]) for n in (0, 2))
    (_, seen), (_, unseen) = gradients(model, [pictured, plain], 1 << 12)
    assert all(float(seen[layer.name].norm()) > 0 for layer in alone)
    assert all(float(unseen[layer.name].abs().sum()) == 0 for layer in alone)


def test_no_token_of_a_picture_counts(model):
    text = read(model, conversations()[1][0]).texts[0]
    said = model.loaded.tokenizer.decode(text.ids[text.counted])
    assert said.replace("<|im_end|>", "").strip() == "red, blue"
    everything = read(model, conversations()[0][0], loss="all").texts[0]
    placeholder = model.loaded.kind.texts.placeholder
    assert everything.counted.sum() > text.counted.sum()
    assert placeholder not in model.loaded.tokenizer.decode(everything.ids[everything.counted])


def test_sampled_losses_are_those_of_the_same_seed_in_any_batch(model):
    objectives = [read(model, record) for record, _ in conversations()]
    batches = model.batches(objectives, np.arange(3), 1 << 12)
    found = {int(b.ordinals[0]): model.task.sampled_losses(b, [int(b.ordinals[0])]).item() for b in batches}
    for n, each in enumerate(objectives):
        assert found[n] == pytest.approx(model.task.sampled_losses(pad([each], [n]), [n]).item(), rel=1e-9)


def test_pictures_have_batches_of_their_own(model):
    pictured = read(model, conversations()[0][0])
    assert [len(batch.ordinals) for batch in model.batches([pictured, pictured], np.arange(2), 1 << 20)] == [1, 1]
    with pytest.raises(ShapeError, match="one text with pictures"):
        pad([pictured, pictured], [0, 1])
