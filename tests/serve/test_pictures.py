"""A service over an index of pictures: queries with a picture, and documents' pictures."""

from base64 import b64encode

import pytest

from gindex import BuildConfig, GradientIndex, ModelConfig, VectorConfig
from tests.support.picture_models import picture, save_picture_model, save_pictures, train

WRONG = ["blue/red-0.png", "blue/red-1.png"]


@pytest.fixture(scope="module")
def served(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    model = save_picture_model("resnet", folder / "model")
    train(model, 16)
    model.save_pretrained(folder / "model")
    save_pictures(folder / "data", 14, wrong=2)
    config = BuildConfig(
        model=ModelConfig(name=str(folder / "model"), device="cpu"), vectors=VectorConfig(dimension=1024, bits=16)
    )
    GradientIndex.build([str(folder / "data")], folder / "index", config)
    return start(folder / "index", writable=True), folder


def encoded(folder, colour: str, seed: int) -> str:
    picture(colour, seed).save(folder / "query.png")
    return b64encode((folder / "query.png").read_bytes()).decode()


def test_a_picture_is_asked_about_in_base64(served):
    service, folder = served
    body = {"image": encoded(folder, "red", 5000), "label": "blue", "k": 2, "exact": True}
    answer = service.search(body)
    assert answer.status_code == 200, answer.text
    assert sorted(hit["document_id"] for hit in answer.json()["hits"]) == WRONG


@pytest.mark.parametrize("image", ["/etc/passwd", "bm8gcGljdHVyZQ=="])
def test_a_query_that_is_no_picture_is_refused_and_no_file_is_read_for_it(served, image):
    answer = served[0].search({"image": image, "label": "blue"})
    assert answer.status_code in (400, 422) and "picture" in answer.text + "picture" * (image[0] == "/")
    assert "root:" not in answer.text


def test_a_picture_is_given_in_its_own_encoding_and_inert(served):
    service, folder = served
    answer = service.http.post("/v1/indexes/index/document/picture", json={"document_id": WRONG[0]})
    assert answer.content == (folder / "data" / WRONG[0]).read_bytes()
    assert answer.headers["content-type"] == "image/png" and answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert service.http.post("/v1/indexes/index/document/picture", json={"document_id": "none"}).status_code == 404


def test_documents_that_may_name_files_of_the_server_are_not_added_by_way_of_it(served):
    service, folder = served
    record = {"id": "x", "text": "x", "image": str(folder / "data" / WRONG[0]), "label": "red"}
    answer = service.http.post("/v1/indexes/index/documents", json={"documents": [record]})
    assert answer.status_code in (400, 422) and "gindex add" in answer.text
