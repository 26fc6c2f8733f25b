"""Pictures that are read from records and files: what is taken as it is, and what is refused by name."""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gindex.config import PICTURE, CorpusConfig
from gindex.corpus.pictures import decoded, picture_content, picture_size
from gindex.corpus.readers import read_corpus
from gindex.errors import CorpusError, MissingDependencyError
from tests.support.picture_models import picture

CONFIG = CorpusConfig(form=PICTURE)


def encoded(image: Image.Image, kind: str = "PNG", **more) -> bytes:
    file = BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def read(path) -> list:
    return list(read_corpus([str(path)], CONFIG))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_is_kept_in_its_own_encoding(kind):
    data = encoded(picture("red", 0), kind)
    content = picture_content(data, "picture")
    assert content.data == data and content.type == f"image/{kind.lower()}" and content.is_picture
    assert picture_size(content, "picture") == (20, 14)


def test_bytes_paths_objects_and_arrays_give_the_same_pixels(tmp_path):
    image = picture("blue", 1)
    (tmp_path / "a.png").write_bytes(encoded(image))
    forms = [
        encoded(image), tmp_path / "a.png", str(tmp_path / "a.png"), {"bytes": encoded(image), "path": None},
        {"bytes": None, "path": str(tmp_path / "a.png")}, image, np.asarray(image),
    ]  # fmt: skip
    for form in forms:
        assert np.array_equal(np.asarray(decoded(picture_content(form, "picture"), "picture")), np.asarray(image))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
def test_other_modes_become_what_pillow_converts_them_to(mode):
    image = picture("red", 2).convert("RGBA" if mode in ("RGBA", "LA") else "RGB").convert(mode)
    content = picture_content(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), "picture")
    assert np.array_equal(np.asarray(decoded(content, "picture")), np.asarray(image.convert("RGB")))


def test_a_picture_is_turned_as_its_exif_data_say():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    content = picture_content(encoded(picture("red", 3), exif=exif), "picture")
    assert picture_size(content, "picture") == (14, 20)
    expected = np.rot90(np.asarray(picture("red", 3)), -1)
    assert np.array_equal(np.asarray(decoded(content, "picture")), expected)


def animated(kind: str) -> bytes:
    frames = [picture("red", 4), picture("blue", 4)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


SIXTEEN_BITS = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"no picture at all", "cannot be read"),
        (encoded(picture("red", 5))[:200], "cannot be read"),
        (encoded(picture("red", 5), "JPEG")[:300], "cannot be read"),
        (animated("GIF"), "2 frames"),
        (animated("TIFF"), "2 frames"),
        (animated("WEBP"), "2 frames"),
        (encoded(SIXTEEN_BITS), "16 bits"),
        (encoded(SIXTEEN_BITS, "TIFF"), "16 bits"),
        (None, "none"),
        (7, "int"),
        (np.zeros((4, 4, 3), np.float32), "float32 of shape (4, 4, 3)"),
        (np.zeros((4, 4, 2), np.uint8), "uint8 of shape (4, 4, 2)"),
        ("not/there.png", "No such file"),
    ],
)
def test_what_is_no_single_picture_of_8_bits_is_refused_by_name(data, found):
    with pytest.raises(CorpusError, match="record 3") as caught:
        picture_content(data, "record 3")
    assert found in str(caught.value)


def test_a_folder_of_pictures_has_a_document_for_each_with_its_folder_as_label(tmp_path):
    for name in ("cats/a.png", "dogs/b.PNG", "train/dogs/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(picture("red", 6)))
    found = {document.document_id: document for document in read(tmp_path)}
    assert {name: document.content["label"] for name, document in found.items()} == {
        "cats/a.png": "cats", "dogs/b.PNG": "dogs", "train/dogs/c.png": "dogs",
    }  # fmt: skip
    assert found["cats/a.png"].content["file"] == "a.png" and found["cats/a.png"].metadata == {"label": "cats"}
    assert found["cats/a.png"].file.data == encoded(picture("red", 6))


def test_a_picture_without_a_label_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(picture("red", 7)))
    with pytest.raises(CorpusError, match=r"a\.png.*'label'"):
        read(tmp_path)


def test_a_picture_is_refused_where_the_model_reads_none(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(picture("red", 7)))
    with pytest.raises(CorpusError, match="classifies pictures"):
        list(read_corpus([str(tmp_path)], CorpusConfig()))


def test_paths_in_a_file_begin_at_its_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(encoded(picture("red", 8)))
    records = [{"id": "x", "image": "images/a.png", "label": 1, "taken": 1999}]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, records)))
    (document,) = read(tmp_path / "data.jsonl")
    assert document.file.data == encoded(picture("red", 8)) and document.metadata == {"label": 1, "taken": 1999}
    (tmp_path / "data.jsonl").write_text(json.dumps({"image": "images/b.png", "label": 1}))
    with pytest.raises(CorpusError, match=r"data\.jsonl:1"):
        read(tmp_path / "data.jsonl")


def test_a_saved_dataset_gives_pictures_as_they_are_stored_and_labels_by_name(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["red", "blue"])})
    data = encoded(picture("blue", 9), "JPEG")
    rows = {"image": [{"bytes": data, "path": "b.jpg"}, picture("red", 9)], "label": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    first, second = read(tmp_path / "saved")
    assert (first.content, first.file.data) == ({"label": "blue", "file": "b.jpg"}, data)
    assert second.content["label"] == "red" and second.content["label"].number == 0
    assert np.array_equal(np.asarray(decoded(second.file, "second")), np.asarray(picture("red", 9)))


def test_parquet_holds_bytes_of_pictures(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    data = encoded(picture("red", 10))
    table = arrow.table({"image": [{"bytes": data, "path": "a.png"}, {"bytes": data, "path": None}], "label": [0, 1]})
    parquet.write_table(table, tmp_path / "a.parquet")
    parquet.write_table(arrow.table({"image": [data], "label": ["red"]}), tmp_path / "b.parquet")
    assert [document.file.data for document in read(tmp_path)] == [data] * 3


def test_the_package_that_decodes_pictures_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingDependencyError, match=r"PIL.*images"):
        picture_content(b"any", "record 1")
