"""Word search finds words of any script, with and without spaces, and the index holds what a query looks for."""

import logging
import sqlite3
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gindex.config import CorpusConfig
from gindex.corpus import encoding
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.records import Document
from gindex.corpus.tokens import Encoding
from gindex.documents import schema
from gindex.documents.filters import parse_filter
from gindex.documents.selection import lexical_documents
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.documents.words import LONGEST_WORD, MAX_WORDS, indexed, is_cut_in_pairs, plain_words_of, words_in, words_of
from gindex.errors import QueryError
from gindex.progress import Silent

TEXTS = {
    "zh": "机器学习是一门学问。第3次跑gen-itgc前先看这里",
    "ja": "あたらしいサンドボックスの修正です。ｶﾞｲﾄﾞは別紙",
    "ko": "학교에서 한국어를 배웁니다",
    "th": "ภาษาไทยเขียนติดกัน",
    "km": "ភាសាខ្មែរសរសេរជាប់គ្នា",
    "my": "မြန်မာစာကိုဆက်ရေးသည်",
    "hi": "हिन्दी भाषा और किताब",
    "ar": "كِتابٌ جديد",
    "fa": "کتاب می\u200cخواهم",
    "vi": "Đường phố Hà Nội",
    "de": "Die Straße über den Fluß",
    "fr": "L'été à la plage, ＡＢＣ１２",
    "ru": "Мой дом и сад",
    "en": "Plain words, get_item and plain_text in English; naïve",
    "mixed": "用Python学习法写的程序",
    "rare": "𠮷野家で食べる",
}


TWO_TOKENS = Encoding(tokens=[2, 3], offsets=[(0, 1), (1, 2)], before=0, after=0)


def make(path: Path, texts: dict[str, str], **more: object) -> Path:
    documents = [Document(document_id=name, text=text, metadata={"n": len(name)}) for name, text in texts.items()]
    fill_table(path, iter(documents), DocumentEncoder(None, CorpusConfig()), Silent(), **more)
    return path


@pytest.fixture(autouse=True)
def _any_tokens(monkeypatch):
    monkeypatch.setattr(encoding, "encode_texts", lambda tokenizer, texts: [TWO_TOKENS] * len(texts))


@pytest.fixture
def table(tmp_path):
    with DocumentTable.open(make(tmp_path / "t", TEXTS)) as table:
        yield table


def found(table: DocumentTable, text: str, **more: object) -> list[str]:
    names = list(TEXTS)
    return [names[ordinal] for ordinal, _ in lexical_documents(table, text, 99, **more)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("机器学习", ["zh", "mixed"]),  # the whole first, then what has a part of it
        ("学习", ["mixed", "zh"]),  # the shorter text first
        ("itgc", ["zh"]),
        ("门", ["zh"]),
        ("里", ["zh"]),  # the last character
        ("学", ["zh", "mixed"]),  # twice in the first
        ("第3次", ["zh"]),
        ("サンドボックス", ["ja"]),
        ("ｻﾝﾄﾞﾎﾞｯｸｽ", ["ja"]),
        ("ガイド", ["ja"]),
        ("学校", []),
        ("학교", ["ko"]),
        ("한국어", ["ko"]),
        ("\u1112\u1161\u11ab국어", ["ko"]),  # the same in parts
        ("ไทย", ["th"]),
        ("ខ្មែរ", ["km"]),
        ("စာ", ["my"]),
        ("भाषा", ["hi"]),
        ("भष", []),  # the letters without their vowel signs
        ("كتاب", ["ar"]),  # with its vowel signs and without
        ("جديد", ["ar"]),
        ("میخواهم", ["fa"]),
        ("hà nội", ["vi"]),
        ("ha noi", ["vi"]),
        ("strasse", ["de"]),
        ("STRASSE ÜBER", ["de"]),
        ("uber", ["de"]),
        ("u\u0308ber", ["de"]),
        ("ete", ["fr"]),
        ("abc12", ["fr"]),
        ("мой", ["ru"]),
        ("мои", []),
        ("naive", ["en"]),
        ("get_item", ["en"]),
        ("text_plain", []),
        ("PYTHON", ["mixed"]),
        ("python学习", ["mixed", "zh"]),
        ("𠮷野", ["rare"]),
        ("𠮷", ["rare"]),
        ("野家", ["rare"]),
    ],
)
def test_words_of_any_script_are_found(table, text, expected):
    assert found(table, text) == expected


def test_a_whole_sentence_finds_what_it_is_about(table):
    """No text repeats it, and a language without spaces does not say which words it has."""
    assert found(table, "我想知道什么是机器学习这门学问以及它是怎么来的") == ["zh", "mixed"]


def test_filters_restrict_words_of_scripts_without_spaces(table):
    assert found(table, "学习", where=parse_filter("n = 2")) == ["zh"]


@pytest.mark.parametrize("text", ["", " ", "。！", "\u200b", "___", '"', "\0", "\u0301 - *"])
def test_text_without_words_is_refused(table, text):
    assert words_of(text) == []
    with pytest.raises(QueryError, match="at least one word"):
        lexical_documents(table, text, 9)


characters = st.sampled_from(
    [*"abZ1 _-\"'*字学習ーガｶﾞ한กำ่क्षéEßſİ𠮷😀\0\u0301\u200d\u00ad\ufeff、。ﬃ½", "AND", "OR", "NEAR("]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(characters, max_size=12).map("".join), min_size=1, max_size=4), st.data())
def test_a_text_is_found_by_what_is_looked_for_of_it(texts, data):
    """Whatever is in it, and by every part that stands between spaces: the two ways of cutting agree."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute(f"CREATE VIRTUAL TABLE words USING {schema.FULL_TEXT}")
        for ordinal, text in enumerate(texts):
            schema.index_words(connection, ordinal, text)
        chosen = data.draw(st.integers(0, len(texts) - 1))
        for piece in [texts[chosen], *texts[chosen].split()]:
            for phrase in words_of(piece):
                rows = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (phrase,)).fetchall()
                assert (chosen,) in rows, phrase


@given(st.text(st.characters(min_codepoint=0, max_codepoint=127)))
def test_ascii_is_cut_as_before(text):
    """By FTS5's own tokenizer, which older tables have."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE VIRTUAL TABLE plain USING fts5(text)")
        connection.execute(f"CREATE VIRTUAL TABLE words USING {schema.FULL_TEXT}")
        connection.execute("INSERT INTO plain VALUES (?)", (text,))
        schema.index_words(connection, 1, text)
        for name in ("plain", "words"):
            connection.execute(f"CREATE VIRTUAL TABLE {name}_found USING fts5vocab({name}, instance)")
        plain, words = (connection.execute(f"SELECT * FROM {name}_found").fetchall() for name in ("plain", "words"))
        assert plain == words
    assert words_of(text) == [word for word in plain_words_of(text) if word.strip('_"')]


def test_accents_of_western_letters_are_left_out_as_before():
    letters = [chr(code) for code in range(0xC0, 0x180) if chr(code).isalpha()]
    letters = [c for c in letters if normalize("NFKC", c) == c and len(c.casefold()) == 1]  # not ß, ŀ and the like
    assert len(letters) > 150
    with sqlite3.connect(":memory:") as connection:
        for name, options in (("plain", ""), ("words", ", tokenize = 'ascii'")):
            connection.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(text{options})")
            connection.execute(f"CREATE VIRTUAL TABLE {name}_found USING fts5vocab({name}, instance)")
        connection.execute("INSERT INTO plain VALUES (?)", (" ".join(letters),))
        connection.execute("INSERT INTO words VALUES (?)", (indexed(" ".join(letters)),))
        plain, words = (connection.execute(f"SELECT * FROM {name}_found").fetchall() for name in ("plain", "words"))
    assert plain == words


def test_how_a_run_is_cut():
    assert indexed("Python学习法").split() == ["python", "学习", "习法", "法"]
    assert words_of("Python学习法 字") == ['"python"', '"学习 习法"', '"学习"', '"习法"', '"字"*']
    assert indexed("plain AS IT is") == "plain AS IT is"  # ASCII goes to FTS5 uncopied
    long = "".join(chr(0x4E00 + n) for n in range(LONGEST_WORD + 1))
    assert len(words_of(long)) == LONGEST_WORD and all(len(word) == 4 for word in words_of(long))
    many = "".join(chr(0x4E00 + n) for n in range(MAX_WORDS + 50))
    assert len(words_of(many)) == MAX_WORDS and len(words_of(" ".join(f"w{n}" for n in range(999)))) == MAX_WORDS
    assert [is_cut_in_pairs(text) for text in ("plain", "été भाषा", "x字", "ไ", "가", "ｶ")] == [False] * 2 + [True] * 4


# Tables that were made before


OLD = schema.SCHEMA.replace(f"user_version = {schema.TEXT_VERSION}", "user_version = 1").replace(
    schema.FULL_TEXT, "fts5(text, content = 'documents', content_rowid = 'ordinal')"
)


@pytest.fixture
def older(monkeypatch):
    """Make tables as they were made before."""
    monkeypatch.setattr(schema, "SCHEMA", OLD)
    monkeypatch.setattr(schema, "indexed", lambda text: text)
    yield
    monkeypatch.undo()


@pytest.fixture
def old(older, tmp_path, monkeypatch):
    path = make(tmp_path / "old", TEXTS)
    monkeypatch.undo()
    return path


def test_an_older_table_answers_what_it_can(old):
    with DocumentTable.open(old) as table:
        assert table.versions == {1}
        for text, expected in {"plain": ["en"], "uber": ["de"], "get_item": ["en"], "мой": ["ru"], "itgc": []}.items():
            assert found(table, text) == expected


@pytest.mark.parametrize("text", ["学习", "python学习", "サンド", "학교", "ไทย"])
def test_an_older_table_says_what_it_lacks(old, text, caplog):
    with DocumentTable.open(old) as table:
        with pytest.raises(QueryError, match=r"scripts without spaces, found one made before .* gindex compact makes"):
            found(table, text)
        with caplog.at_level(logging.WARNING):
            found(table, text, partly=True)
    assert "gindex compact makes them" in caplog.text


def test_an_older_table_without_hits_says_why_that_may_be(old, caplog):
    """There `gen-itgc后50条` is two words, and `itgc` neither of them."""
    with DocumentTable.open(old) as table, caplog.at_level(logging.WARNING):
        assert found(table, "plain") == ["en"] and not caplog.messages
        assert found(table, "itgc") == [] and "gindex compact" in caplog.text


def test_tables_of_both_kinds_are_searched_together(old, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "encode_texts", lambda tokenizer, texts: [TWO_TOKENS] * len(texts))
    more = {"first_document": len(TEXTS), "first_part": len(TEXTS)}
    new = make(tmp_path / "new", {"new": "plain words über Straßen, die Straße"}, **more)
    with DocumentTable.open(old, new) as table:
        assert table.versions == {1, 2}
        both = [ordinal for ordinal, _ in lexical_documents(table, "plain Straße", 9)]
        assert sorted(both) == [list(TEXTS).index("de"), list(TEXTS).index("en"), len(TEXTS)]
        with pytest.raises(QueryError, match="gindex compact"):
            lexical_documents(table, "学习", 9)


def test_words_of_a_text_in_order():
    """As they are shared between texts: in one form, those that come again too, pairs where nothing divides words."""
    assert list(words_in("The lock, the RACE_condition")) == ["the", "lock", "the", "race_condition"]
    assert list(words_in("Python学习法 é ｶﾞ 法")) == ["python", "学习", "习法", "e", "ガ", "法"]
    assert list(words_in(" ,. ")) == []


def test_the_best_documents_are_those_of_a_full_sort_without_the_deleted(tmp_path, tokenizer):
    texts = ["a " * (1 + n % 5) + "b " * (n % 3) + "c" for n in range(40)]
    stored = (Document(document_id=str(n), text=text, metadata={}) for n, text in enumerate(texts))
    path, deleted = tmp_path / "documents.sqlite", [(0, 7), (11, 12), (30, 38)]
    fill_table(path, stored, DocumentEncoder(tokenizer, CorpusConfig(max_tokens=100)), Silent())
    with sqlite3.connect(path) as plain:
        statement = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH 'a OR b'"
        ranked = sorted(plain.execute(statement), key=lambda entry: (-entry[1], entry[0]))
    plain.close()
    alive = [entry for entry in ranked if not any(start <= entry[0] < stop for start, stop in deleted)]
    assert len(alive) == 24
    with DocumentTable.open(path, deleted=deleted) as table:
        for count in (1, 3, 10, 24, 100):
            assert lexical_documents(table, "a b", count) == alive[:count]
