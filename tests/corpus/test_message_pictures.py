"""Pictures of conversations, in every form in which records have them, and what is refused of them."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from gindex.config import CorpusConfig
from gindex.corpus.contents import OBJECT
from gindex.corpus.forms import read_form
from gindex.corpus.message_pictures import PictureReader
from gindex.corpus.picture_pieces import with_located_pictures
from gindex.corpus.picture_texts import PictureText
from gindex.corpus.pictures import picture_content
from gindex.errors import CorpusError
from tests.support.picture_models import picture


def encoded(seed: int = 0) -> bytes:
    file = BytesIO()
    picture("red", seed).save(file, "PNG")
    return file.getvalue()


FIRST, SECOND = encoded(1), encoded(2)


def read(messages: object, beside: object = None) -> tuple[list[str], list[bytes]]:
    """Contents with their pieces joined, and the pictures' files."""
    reader = PictureReader(beside, "record")
    (found,) = reader.read(messages)
    contents = [message.get("content", message.get("value")) for message in found]
    joined = [c if isinstance(c, str) else "".join(piece["text"] for piece in c) for c in contents]
    return joined, [content.data for content in reader.pictures]


def user(*pieces: object) -> dict:
    return {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in pieces]}


PLACE = {"type": "image"}


@pytest.mark.parametrize("beside", [[FIRST, SECOND], ({"bytes": FIRST, "path": None}, {"bytes": SECOND})])
def test_pictures_beside_go_to_their_places_in_order(beside):
    asked = [user(PLACE, "What?", PLACE)]
    assert read(asked, beside) == ([f"{OBJECT}What?{OBJECT}"], [FIRST, SECOND])


def test_pieces_hold_their_pictures_in_every_form(tmp_path):
    (tmp_path / "a.png").write_bytes(FIRST)
    address = f"data:image/png;base64,{b64encode(FIRST).decode()}"
    path = str(tmp_path / "a.png")
    for piece in ({"image": FIRST}, {"image": {"bytes": FIRST}}, {"path": path}, {"url": address}, {"image": address}):
        assert read([user({**PLACE, **piece}, "What?")]) == ([f"{OBJECT}What?"], [FIRST])
    nested = {"type": "image_url", "image_url": {"url": address}}
    assert read([user(nested)]) == ([OBJECT], [FIRST])
    # datasets fills up what other pieces have: empty fields are none.
    filled = [{"type": "image", "text": None, "image": None}, {"type": "text", "text": "What?", "image": None}]
    assert read([{"role": "user", "content": np.array(filled, object)}], FIRST) == ([f"{OBJECT}What?"], [FIRST])


def test_pictures_without_places_come_first_in_what_the_user_says_first():
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What?"}]
    assert read(asked, [FIRST, SECOND]) == (["Be kind.", f"{OBJECT}{OBJECT}What?"], [FIRST, SECOND])
    assert read([{"from": "human", "value": "What?"}], FIRST) == ([f"{OBJECT}What?"], [FIRST])


def test_tags_in_texts_are_places_where_pictures_stand_beside():
    assert read([{"from": "human", "value": "<image>\nWhat?"}], FIRST) == ([f"{OBJECT}\nWhat?"], [FIRST])
    assert read([user("<image>What?")], FIRST) == ([f"{OBJECT}What?"], [FIRST])
    assert read([{"role": "user", "content": "<image>"}]) == (["<image>"], [])


@pytest.mark.parametrize(
    ("messages", "beside", "message"),
    [
        ([user(PLACE, PLACE)], [FIRST], "as many pictures as there are places"),
        ([user(PLACE)], [FIRST, SECOND], "2 beside 1 places"),
        ([user(PLACE)], None, "as many pictures"),
        ([{"role": "user", "content": "<image> and <image>"}], [FIRST], "as many pictures"),
        ([{"role": "assistant", "content": "no user"}], [FIRST], "1 beside 0 places"),
        ([user({**PLACE, "url": "https://example.org/a.png"})], None, "an address, which is not fetched"),
        ([user({**PLACE, "url": "data:image/png;base64,?"})], None, "data that are not base64"),
        ([user({**PLACE, "image": b"no picture"})], None, "picture 1: expected a picture"),
        ([user({**PLACE, "image": FIRST[:60]})], None, "one that cannot be read"),
        ([user({**PLACE, "path": "/nowhere/a.png"})], None, "a file of a picture"),
        ([{"role": "user", "content": f"a {OBJECT}"}], FIRST, r"U\+FFFC"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(messages, beside, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read(messages, beside)
    assert str(caught.value).startswith("record")


def test_relative_paths_begin_at_the_folder_of_the_record():
    held = with_located_pictures([user({**PLACE, "path": "a.png"}, PLACE)], Path("/data"))
    assert held[0]["content"] == [{**PLACE, "image": "/data/a.png"}, PLACE]


def test_pictures_are_read_where_the_model_reads_them_alone():
    fields = {"messages": [user(PLACE, "What?"), {"role": "assistant", "content": "a cat"}], "images": [FIRST]}
    form = read_form(fields, "record", CorpusConfig(images_field="images"))
    assert form.content["messages"][0]["content"] == f"{OBJECT}What?" and form.used == {"messages", "images"}
    assert [content.data for content in form.pictures] == [FIRST]
    with pytest.raises(CorpusError, match="a model that reads pictures"):
        read_form(fields, "record", CorpusConfig())


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "What?", "completion": "a cat", "images": [FIRST]},
        {"chosen": "a cat", "rejected": "a dog", "images": [FIRST]},
    ],
)
def test_pictures_of_texts_and_preferences_are_refused(fields):
    with pytest.raises(CorpusError, match="pictures beside a conversation"):
        read_form(fields, "record", CorpusConfig(images_field="images"))


def test_a_text_with_pictures_is_kept_and_read_back():
    kept = PictureText(text=f"a {OBJECT} é", pictures=tuple(picture_content(data, "p") for data in (FIRST, SECOND)))
    assert PictureText.of(kept.content()) == kept
