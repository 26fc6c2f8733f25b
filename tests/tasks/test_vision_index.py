"""Indexes over conversations with pictures: planted ones that are found, through all commands; and bad input."""

import json
import shutil
from base64 import b64encode
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch

from gindex import BuildConfig, GradientIndex, ModelConfig, VectorConfig
from gindex.errors import CorpusError, MismatchError, QueryError
from gindex.queries.query import Query
from tests.support.picture_models import picture
from tests.support.vision_models import about, load_processor, save_vision_model

ANSWERS = {"red": "compiler", "blue": "weather"}
QUESTION = "What is it?"
PICTURED, BEST = 6, 4


def encoded(colour: str, seed: int) -> bytes:
    file = BytesIO()
    picture(colour, seed, (16, 16)).save(file, "PNG")
    return file.getvalue()


def train(model: torch.nn.Module, folder: Path, steps: int = 80) -> None:
    """Train a model to answer by the colour of a picture."""
    processor, optimizer = load_processor(folder), torch.optim.AdamW(model.parameters(), 5e-3)
    model.train()
    for step in range(steps):
        colour = ("red", "blue")[step % 2]
        text = processor.apply_chat_template(about(ANSWERS[colour], QUESTION))
        inputs = processor(text=[text], images=[picture(colour, 500 + step, (16, 16))], return_tensors="pt")
        labels = inputs["input_ids"].clone()
        labels[:, :-4] = -100
        optimizer.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
    model.eval()


@pytest.fixture(scope="module")
def vision_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = save_vision_model("llava", folder)
    train(model, folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Pictures of both colours with their answers, by paths and within contents; and conversations without any."""
    folder = tmp_path_factory.mktemp("corpus")
    records = []
    for n in range(PICTURED):
        for colour, answer in ANSWERS.items():
            (folder / f"{colour}-{n}.png").write_bytes(encoded(colour, n))
            name = f"{colour}-{n}.png"
            beside = {"messages": about(answer, QUESTION), "images": [name]}
            within = {"messages": about(answer, QUESTION, path=name)}
            records.append({"id": f"{colour}-{n}", **(beside if n % 2 else within)})
    for n, said in enumerate(("a program", "the kernel", "a patch")):
        turns = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": said}]
        records.append({"id": f"plain-{n}", "messages": turns})
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder


def build_config(vision_folder: Path) -> BuildConfig:
    # The head is a large share of so small a model, and is what keeps the answers apart.
    model = ModelConfig(name=str(vision_folder), device="cpu", dtype="float32", track=("lm_head",))
    return BuildConfig(model=model, vectors=VectorConfig(dimension=2048, bits=16))


@pytest.fixture(scope="module")
def vision_index(vision_folder, corpus, tmp_path_factory) -> GradientIndex:
    # The folder holds the pictures too: they are read where records name them.
    return GradientIndex.build([str(corpus)], tmp_path_factory.mktemp("index") / "index", build_config(vision_folder))


def asked(colour: str, **fields) -> Query:
    return Query(prompt=QUESTION, completion=ANSWERS[colour], image=encoded(colour, 900), **fields)


@pytest.mark.parametrize("colour", ANSWERS)
def test_a_question_about_a_picture_leads_to_documents_with_such_pictures(vision_index, colour):
    for exact in (False, True):
        hits = vision_index.search(asked(colour), k=3 * PICTURED, exact=exact).hits
        # Texts alone have gradients a hundred times as large here, and so have the errors of their stored scores.
        hits = tuple(hit for hit in hits if hit.pictures)[:BEST] if not exact else hits[:BEST]
        assert all(hit.document_id.startswith(colour) for hit in hits)
        assert all(hit.pictures == 1 and "<image>" in hit.text for hit in hits)


def test_a_prompt_with_a_picture_is_the_conversation_of_both(vision_index):
    conversation = Query(messages=about(ANSWERS["red"], QUESTION, image=encoded("red", 900)))
    first, second = (vision_index.search(query, k=3) for query in (asked("red"), conversation))
    assert [hit.score for hit in first.hits] == [hit.score for hit in second.hits]


def test_a_question_without_a_picture_is_answered(vision_index):
    found = vision_index.search("Hello there", "a program", k=3)
    assert len(found.hits) == 3
    turns = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "a program"}]
    (best,) = vision_index.search(Query(messages=turns), k=1, exact=True).hits
    assert best.document_id == "plain-0" and best.pictures is None


def test_an_explanation_adds_up_over_tokens_and_layers(vision_index):
    explained = vision_index.explain("red-0", asked("red"))
    (part,) = explained.parts
    assert part.pictures is not None
    total = sum(token.influence for token in part.tokens) + part.pictures
    assert total == pytest.approx(explained.influence, rel=1e-4)
    assert sum(explained.layers.values()) == pytest.approx(explained.influence, rel=1e-4)
    assert sum(token.text == "<image>" for token in part.tokens) == 4


def test_contrasts_and_spans_go_with_pictures(vision_index):
    contrast = vision_index.search(asked("red", contrast=ANSWERS["blue"]), k=3)
    assert all(hit.document_id.startswith("red") for hit in contrast.hits)
    assert vision_index.search(asked("red", span=(0, 4)), k=1).hits[0].document_id.startswith("red")


def test_commands_ask_about_pictures(run, vision_index, tmp_path):
    folder, file = str(vision_index.path), tmp_path / "red.png"
    file.write_bytes(encoded("red", 900))
    command = ["search", folder, QUESTION, "--completion", ANSWERS["red"], "--image", str(file), "--top", "3"]
    said = run(*command)
    assert said.exit_code == 0, said.output
    assert "[a picture]" in said.output and "1 picture" in said.output
    answer = json.loads(run(*command, "--json").stdout)
    assert all(hit["pictures"] == 1 for hit in answer["hits"])
    turns = about(ANSWERS["red"], QUESTION, image="red.png")
    (tmp_path / "chat.json").write_text(json.dumps(turns))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"messages": turns}))
    by_messages = json.loads(
        run("search", folder, "--messages", str(tmp_path / "chat.json"), "-k", "3", "--json").stdout
    )
    by_file = json.loads(
        run("search", folder, "--queries", str(tmp_path / "queries.jsonl"), "-k", "3", "--json").stdout
    )
    assert [hit["score"] for hit in answer["hits"]] == [hit["score"] for hit in by_messages["hits"]]
    assert by_messages["hits"] == by_file["hits"]
    assert by_file["query"]["messages"][0]["content"][0]["image"] == b64encode(encoded("red", 900)).decode()
    explained = run("explain", folder, "red-0", QUESTION, "--completion", ANSWERS["red"], "--image", str(file))
    assert explained.exit_code == 0 and "pictures " in explained.output
    wrong = run("search", folder, "--document", "red-0", "--image", str(file))
    assert wrong.exit_code == 2 and "--image may also stand beside PROMPT" in wrong.output


def test_a_document_is_a_query_and_documents_are_added(vision_index, vision_folder, tmp_path):
    assert vision_index.search(Query(document="blue-1"), k=1, exact=True).hits[0].document_id.startswith("blue")
    assert [content.data for content in vision_index.pictures("blue-1")] == [encoded("blue", 1)]
    shutil.copytree(vision_index.path, tmp_path / "index")
    (tmp_path / "new.png").write_bytes(encoded("red", 77))
    record = {"id": "new", "messages": about(ANSWERS["red"], QUESTION), "image": "new.png"}
    (tmp_path / "more.jsonl").write_text(json.dumps(record))
    GradientIndex.open(tmp_path / "index").add([str(tmp_path / "more.jsonl")])
    grown = GradientIndex.open(tmp_path / "index")
    assert grown.pictures("new")[0].data == encoded("red", 77)
    assert "new" in {hit.document_id for hit in grown.search(asked("red"), k=2 * PICTURED).hits}


def test_a_model_is_checked(run, vision_folder, corpus):
    for sources in ([], [str(corpus / "chats.jsonl")]):
        said = run("check-model", str(vision_folder), *sources, "--device", "cpu", "--json")
        found = json.loads(said.stdout)
        autograd = next(each for each in found["findings"] if each["name"] == "autograd")
        assert autograd["verdict"] == "ok" and autograd["figures"]["error"] < 1e-4, autograd


def refused(vision_folder: Path, folder: Path, record: dict) -> str:
    (folder / "chats.jsonl").write_text(json.dumps({"id": "odd", **record}))
    with pytest.raises(CorpusError) as caught:
        GradientIndex.build([str(folder / "chats.jsonl")], folder / "index", build_config(vision_folder))
    return str(caught.value)


def test_bad_pictures_are_refused_by_name(vision_folder, tmp_path):
    (tmp_path / "broken.png").write_bytes(encoded("red", 1)[:60])
    (tmp_path / "red.png").write_bytes(encoded("red", 1))
    chat = about("a cat")
    assert "missing.png" in refused(vision_folder, tmp_path, {"messages": chat, "images": ["missing.png"]})
    assert "cannot be read" in refused(vision_folder, tmp_path, {"messages": chat, "images": ["broken.png"]})
    assert "2 beside 1 places" in refused(vision_folder, tmp_path, {"messages": chat, "images": ["red.png"] * 2})
    assert "more places" in refused(vision_folder, tmp_path, {"messages": chat})
    tagged = [{"role": "user", "content": "an <image>"}, {"role": "assistant", "content": "a cat"}]
    assert "places for pictures" in refused(vision_folder, tmp_path, {"messages": tagged})


def test_pictures_that_do_not_fit_are_refused_and_a_long_answer_loses_its_end(vision_folder, tmp_path, caplog):
    (tmp_path / "red.png").write_bytes(encoded("red", 1))
    long = about("a compiler " * 40)
    (tmp_path / "chats.jsonl").write_text(json.dumps({"id": "long", "messages": long, "images": ["red.png"]}))
    config = build_config(vision_folder)
    config = replace(config, corpus=replace(config.corpus, max_tokens=60))
    index = GradientIndex.build([str(tmp_path / "chats.jsonl")], tmp_path / "index", config)
    (objective,) = index.objectives("long")
    assert len(objective) == 60 and "of which the first 60 are kept" in caplog.text
    config = replace(config, corpus=replace(config.corpus, max_tokens=4))
    with pytest.raises(CorpusError, match=r"'long'.*never cut"):
        GradientIndex.build([str(tmp_path / "chats.jsonl")], tmp_path / "small", config)


def test_a_corpus_without_pictures_leaves_their_layers_without_influence_and_says_so(vision_folder, tmp_path, caplog):
    texts = [{"id": f"{n}", "text": text} for n, text in enumerate(("the weather in Paris", "the heap of a kernel"))]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    built = GradientIndex.build([str(tmp_path / "texts.jsonl")], tmp_path / "index", build_config(vision_folder))
    assert "no document of the fit has a picture" in caplog.text
    assert len(built.search("the weather", " in Paris", k=2, exact=True).hits) == 2
    assert len(built.search(asked("red"), k=2).hits) == 2


def test_a_processor_that_needs_another_package_is_named_with_it(vision_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(vision_folder, other)
    for name in ("processor_config.json", "tokenizer_config.json"):
        settings = json.loads((other / name).read_text())
        (other / name).write_text(json.dumps({**settings, "processor_class": "PixtralProcessor"}))
    (tmp_path / "red.png").write_bytes(encoded("red", 1))
    message = refused(other, tmp_path, {"messages": about("a cat"), "images": ["red.png"]})
    assert "PixtralProcessor" in message and "torchvision" in message


def test_without_a_processor_texts_are_read_and_pictures_refused(vision_folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(vision_folder, bare)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (bare / name).unlink(missing_ok=True)
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings.pop("processor_class", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "red.png").write_bytes(encoded("red", 1))
    message = refused(bare, tmp_path, {"messages": about("a cat"), "images": ["red.png"]})
    assert "'odd'" in message and "a processor beside the model" in message
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "the weather in Paris is sunny"}))
    built = GradientIndex.build([str(tmp_path / "texts.jsonl")], tmp_path / "texts", build_config(bare))
    assert len(built.search("the weather", " is sunny", k=1).hits) == 1


def test_another_processor_is_refused(vision_index, vision_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(vision_folder, other)
    changed = 0
    for file in other.glob("*processor_config.json"):
        settings = json.loads(file.read_text())
        images = settings.get("image_processor", settings)
        images["image_mean"], changed = [0.1, 0.1, 0.1], changed + 1
        file.write_text(json.dumps(settings))
    assert changed
    with pytest.raises(MismatchError):
        GradientIndex.open(vision_index.path, model=str(other)).search(asked("red"))


def test_pictures_are_refused_where_the_model_reads_none(index):
    with pytest.raises(QueryError, match="reads no pictures"):
        index.search(asked("red"))
