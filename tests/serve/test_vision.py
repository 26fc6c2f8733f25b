"""A service over an index of conversations with pictures: queries with some, and the pictures of documents."""

import json
from base64 import b64encode
from io import BytesIO

import pytest

from gindex import BuildConfig, GradientIndex, ModelConfig, VectorConfig
from gindex.client import Client
from gindex.queries.query import Query
from tests.support.picture_models import picture
from tests.support.vision_models import about, save_vision_model

PLACES = "/v1/indexes/index/document/picture"


def encoded(colour: str, seed: int) -> bytes:
    file = BytesIO()
    picture(colour, seed, (16, 16)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    save_vision_model("llava", folder / "model")
    records = []
    for n, colour in enumerate(("red", "blue", "red")):
        (folder / f"{n}.png").write_bytes(encoded(colour, n))
        records.append({"id": f"chat-{n}", "messages": about(colour), "images": [f"{n}.png"]})
    both = about("both")
    both[0]["content"].append({"type": "image"})
    records.append({"id": "both", "messages": both, "images": ["0.png", "1.png"]})
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, records)))
    config = BuildConfig(
        model=ModelConfig(name=str(folder / "model"), device="cpu"), vectors=VectorConfig(dimension=1024, bits=16)
    )
    GradientIndex.build([str(folder / "chats.jsonl")], folder / "index", config)
    return folder


@pytest.fixture(scope="module")
def running(start, made):
    return start(made / "index", writable=True)


def test_pictures_are_asked_about_in_base64_beside_a_prompt_or_in_messages(running):
    image = b64encode(encoded("red", 9)).decode()
    beside = running.search({"prompt": "What colour?", "completion": "red", "image": image, "k": 4})
    assert beside.status_code == 200, beside.text
    within = running.search({"messages": about("red", image=image), "k": 4})
    assert beside.json()["hits"] == within.json()["hits"]
    assert {hit["document_id"]: hit["pictures"] for hit in within.json()["hits"]}["both"] == 2


def test_the_client_sends_pictures(running):
    with Client(f"{running.url}/index") as client:
        found = client.search(Query(messages=about("red", image=encoded("red", 9))), k=1)
    assert found.hits[0].pictures in (1, 2)


def test_no_query_names_a_file_of_the_server(running, made):
    answer = running.search({"messages": about("red", path=str(made / "0.png"))})
    assert answer.status_code in (400, 422) and "base64" in answer.text


def test_each_picture_of_a_document_is_given(running, made):
    for number in (0, 1):
        answer = running.http.post(PLACES, json={"document_id": "both", "number": number})
        assert answer.content == (made / f"{number}.png").read_bytes() and answer.headers["content-type"] == "image/png"
    assert running.http.post(PLACES, json={"document_id": "both", "number": 2}).status_code == 404


def test_documents_that_may_name_files_of_the_server_are_not_added_by_way_of_it(running, made):
    record = {"id": "x", "text": "x", "images": [str(made / "0.png")]}
    answer = running.http.post("/v1/indexes/index/documents", json={"documents": [record]})
    assert answer.status_code in (400, 422) and "gindex add" in answer.text


def test_the_page_shows_the_pictures_of_hits(page, running):
    page.goto(running.url)
    page.fill("#prompt", "What colour?")
    page.fill("#completion", "red")
    page.click("#go")
    page.wait_for_selector("#positive .hit")
    page.locator("#positive .hit").first.scroll_into_view_if_needed()  # what is out of sight is not read
    page.wait_for_selector("#positive .hit .pictures img")
    assert page.locator("#positive .hit .pictures img").first.get_attribute("src").startswith("data:image/png;base64,")
