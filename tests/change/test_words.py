"""Words of scripts without spaces through the life of an index, from one that was built before gindex kept them."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gindex import GradientIndex
from gindex.build.run import run_build
from gindex.change.compact import compact
from gindex.change.verify import _structure, verify
from gindex.documents import schema
from gindex.errors import QueryError
from gindex.store.layout import Layout

TEXTS = {
    "zh": "机器学习是一门学问。重跑gen-itgc后看",
    "ja": "あたらしいサンドボックスの修正です",
    "ko": "학교에서 한국어를 배웁니다",
    "th": "ภาษาไทยเขียนติดกัน",
    "en": "the stack and the heap",
}
ASKED = {"学习": "zh", "itgc": "zh", "サンドボックス": "ja", "학교": "ko", "ไทย": "th", "heap": "en"}


def write(path: Path, texts: dict[str, str]) -> str:
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    return str(path)


@pytest.fixture
def old(tmp_path, make_config, monkeypatch) -> Path:
    """An index as it was built before."""
    with monkeypatch.context() as before:
        plain = schema.SCHEMA.replace(f"user_version = {schema.TEXT_VERSION}", f"user_version = {schema.PLAIN_WORDS}")
        plain = plain.replace(schema.FULL_TEXT, "fts5(text, content = 'documents', content_rowid = 'ordinal')")
        before.setattr(schema, "SCHEMA", plain)
        before.setattr(schema, "indexed", lambda text: text)
        run_build([write(tmp_path / "corpus.jsonl", TEXTS)], tmp_path / "index", make_config())
    return tmp_path / "index"


def found(folder: Path, text: str, **more: object) -> list[str]:
    hits = (
        GradientIndex.open(folder, device="cpu")
        .search("the stack", k=99, **{"words": "filter"} | more, words_text=text)
        .hits
    )
    return sorted({hit.document_id for hit in hits if hit.lexical})


def test_an_older_index_answers_refuses_by_name_and_is_made_new(old, tmp_path, caplog):
    assert verify(Layout(old), deep=True)["problems"] == []
    assert found(old, "heap") == ["en"]
    for more in ({}, {"words": "rank"}):
        with pytest.raises(QueryError, match="gindex compact makes them"):
            found(old, "学习", **more)
    hits = GradientIndex.open(old, device="cpu").search("学习 学习", k=5, exact=True).hits  # words only add candidates
    assert len(hits) == 5 and "gindex compact makes them" in caplog.text
    assert compact(Layout(old)).version == 2
    assert {asked: found(old, asked) for asked in ASKED} == {asked: [name] for asked, name in ASKED.items()}
    assert verify(Layout(old), deep=True)["problems"] == []
    assert compact(Layout(old)).version == 2  # nothing is left to do


def test_words_of_what_is_added_deleted_and_compacted(old, tmp_path):
    compact(Layout(old))
    index = GradientIndex.open(old, device="cpu")
    index.add([write(tmp_path / "more.jsonl", {"zh2": "深度学习入门", "th2": "ไทย"})])
    assert found(old, "学习") == ["zh", "zh2"] and found(old, "ไทย") == ["th", "th2"]
    index.refresh().delete(["zh"])
    assert found(old, "学习") == ["zh2"] and found(old, "itgc") == []
    compact(Layout(old))
    assert found(old, "学习") == ["zh2"] and found(old, "ไทย") == ["th", "th2"] and found(old, "itgc") == []
    assert verify(Layout(old), deep=True)["problems"] == []


def test_ranks_by_words_and_exact_take_the_words_of_the_query(old):
    compact(Layout(old))
    index = GradientIndex.open(old, device="cpu")
    ranked = index.search("サンドボックス です", k=20, words="rank").hits
    assert {hit.document_id for hit in ranked if hit.lexical} == {"ja"}
    for asked, name in ASKED.items():  # one candidate: the document that is first by words, wherever its score puts it
        (hit,) = index.search(f"{asked} {asked}", k=1, exact=True, candidates=1).hits
        assert hit.document_id == name


@pytest.mark.parametrize(
    "change", ["INSERT INTO words(rowid, text) VALUES (3, '学问 问')", "UPDATE documents SET text = '机'"]
)
def test_words_that_are_not_those_of_the_texts_are_seen(old, tmp_path, change):
    """What only a fault of gindex could write, since checksums guard the file."""
    compact(Layout(old))
    (volume,) = GradientIndex.open(old, device="cpu").manifest.volumes
    path = Path(shutil.copyfile(Layout(old).volume(volume.number).documents, tmp_path / "documents.sqlite"))
    with closing(schema.connect(path)) as connection:
        assert list(_structure(connection)) == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    with closing(schema.connect(path)) as connection:
        assert list(_structure(connection)) == ["full-text index: expected the words of the documents, found others"]
