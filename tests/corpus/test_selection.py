"""`limit` and `sample`: which documents of a corpus are taken, and what is told of it."""

import json
import logging
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from gindex.config import CorpusConfig
from gindex.corpus.readers import read_corpus
from gindex.corpus.selection import drawn
from gindex.errors import ConfigError, CorpusChangedError, CorpusError


@pytest.fixture
def corpus(tmp_path) -> Path:
    for name in ("a", "b"):
        lines = [json.dumps({"text": "word", "id": f"{name}{n}"}) + "\n" for n in range(10)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    (tmp_path / "c.jsonl").touch()
    return tmp_path


ALL = [f"{name}{n}" for name in "ab" for n in range(10)]


def ids(path: Path, seed: int = 0, **options: int) -> list[str]:
    return [document.document_id for document in read_corpus([str(path)], CorpusConfig(**options), seed)]


@pytest.mark.parametrize("count", [1, 10, 12, 20])
def test_limit_takes_the_beginning(corpus, caplog, count):
    assert ids(corpus, limit=count) == ALL[:count]
    assert f"the first {count} documents taken, by `limit`; what follows is not read" in caplog.text


def test_nothing_after_the_limit_is_read(corpus):
    (corpus / "b.jsonl").write_text("broken")
    assert ids(corpus, limit=10) == ALL[:10]


def test_limit_beyond_the_corpus(corpus, caplog):
    assert ids(corpus, limit=1234) == ALL
    assert "all 20 documents taken: the corpus has fewer than the `limit` of 1,234" in caplog.text


def test_sample_is_a_part_in_order_and_decided_by_the_seed(corpus, caplog):
    taken = ids(corpus, sample=7)
    assert len(taken) == 7 and taken == [each for each in ALL if each in taken]
    assert "7 of 20 documents taken, by `sample`" in caplog.text
    assert ids(corpus, sample=7) == taken
    assert len({tuple(ids(corpus, seed, sample=7)) for seed in range(5)}) > 1


def test_sample_does_not_depend_on_the_files(corpus):
    """The draw is by number: the same documents in one file are the same draw."""
    taken = ids(corpus, 3, sample=5)
    whole = corpus / "whole.jsonl"
    whole.write_text((corpus / "a.jsonl").read_text() + (corpus / "b.jsonl").read_text())
    assert ids(whole, 3, sample=5) == taken


@pytest.mark.parametrize("count", [20, 21])
def test_sample_of_all_and_more(corpus, caplog, count):
    assert ids(corpus, sample=count) == ALL
    told = "20 of 20 documents taken" if count == 20 else "the corpus has fewer than the `sample` of 21"
    assert told in caplog.text


def test_warnings_are_told_once(corpus, caplog):
    ids(corpus, sample=3)
    assert sum("no record in it" in record.getMessage() for record in caplog.records) == 1


def test_every_set_is_as_likely():
    """All 10 sets of 2 of 5, over 5,000 seeds: chi-squared of 9 degrees of freedom is under 27.9 with p = .999."""
    logging.disable(logging.WARNING)
    try:
        drawings = Counter(tuple(drawn(iter("abcde"), iter("abcde"), 2, seed)) for seed in range(5000))
    finally:
        logging.disable(logging.NOTSET)
    assert drawings.keys() == set(combinations("abcde", 2))
    assert sum((count - 500) ** 2 / 500 for count in drawings.values()) < 27.9


@pytest.mark.parametrize("again", ["abc", "abcdefg"])
def test_corpus_that_changes_between_the_passes(again):
    with pytest.raises(
        CorpusChangedError, match=f"expected 5 documents, as when they were counted, found {len(again)}"
    ):
        list(drawn(iter("abcde"), iter(again), 2, 0))


def test_errors_anywhere_in_the_corpus(corpus):
    """The draw is from the whole corpus, so it must be readable as a whole."""
    with (corpus / "b.jsonl").open("a") as lines:
        lines.write('{"text": "word", "id": "a1"}\n')
    with pytest.raises(CorpusError, match=r"'a1' again after .*a\.jsonl:2"):
        ids(corpus, sample=1)


def test_both_are_refused():
    with pytest.raises(ConfigError, match="limit and sample: expected one of them, found two"):
        CorpusConfig(limit=1, sample=1)


@pytest.mark.parametrize("name", ["limit", "sample"])
def test_less_than_one_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}: expected at least 1, found 0"):
        CorpusConfig(**{name: 0})
