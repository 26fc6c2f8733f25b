"""Influence of changed documents, against documents that are added to an index as they are."""

import json

import numpy as np
import pytest

from gindex import Query
from gindex.corpus.objectives import Objective
from gindex.errors import QueryError
from gindex.lab.studies.material import Material
from gindex.lab.studies.word_order import Pair, influence_of_variants, read_pairs


def test_variants_change_the_phrases_alone():
    pair = Pair(first="the lock", second="a race", before="see: ", between=" and ", after=" today")
    variants = pair.variants(np.random.default_rng(0))
    assert variants["as written"] == "see: the lock and a race today"
    assert variants["phrases swapped"] == "see: a race and the lock today"
    assert variants["first phrase taken out"] == "see: a race today"
    assert variants["second phrase taken out"] == "see: the lock today"
    shuffled = variants["words of both shuffled"]
    assert shuffled.startswith("see: ") and shuffled.endswith(" today")
    assert sorted(shuffled.split()) == sorted(["see:", "the", "lock", "a", "race", "today"])


def test_influence_is_that_of_single_texts(index):
    """Reference: each text alone against its query, without the blocks of a study."""
    material = Material(index)
    pairs = [
        Pair(first="the compiler", second="a kernel bug"),
        Pair(first="stack heap", second="disk", after=" the file"),
    ]
    found = influence_of_variants(material, pairs, seed=0)
    for n, pair in enumerate(pairs):
        forward = material.asked(Query(prompt=pair.first, completion=f" {pair.second}"))
        backward = material.asked(Query(prompt=pair.second, completion=f" {pair.first}"))
        swapped = material.tokens_of(f"{pair.second} {pair.first}{pair.after}")
        written = material.tokens_of(f"{pair.first} {pair.second}{pair.after}")
        other = material.tokens_of(f"{pairs[1 - n].first} {pairs[1 - n].second}{pairs[1 - n].after}")
        for name, query, text in (
            ("phrases swapped", forward, swapped),
            ("as written", forward, written),
            ("another document", forward, other),
            ("as written, query reversed", backward, written),
        ):
            single = material.influence([query], [Objective.counting(text)], np.ones((1, 1), bool))[0, 0]
            assert found[name][n] == pytest.approx(float(single), rel=1e-3, abs=1e-3)


def test_report(study, built):
    record, page = study("word-order", built, "--sample", "6", "--phrase-words", "2")
    numbers = record["numbers"]
    assert numbers["pairs"] == 6
    assert numbers["relative"]["as written"] == {"mean": 1, "low": 1, "high": 1}
    means = numbers["influence"]
    for name, ratio in numbers["relative"].items():
        assert ratio["mean"] == pytest.approx(means[name]["mean"] / means["as written"]["mean"])
    assert "phrases swapped" in page


def test_pairs_of_the_readers_own(study, built, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"first": f"the {w}", "second": "a lock", "document": f"<i>the {w} has a lock"} for w in ("cache", "page")]
    lines += [{"first": "stack", "second": w} for w in ("file", "disk", "loop")]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    record, page = study("word-order", built, "--pairs", pairs)
    assert record["numbers"]["pairs"] == 5 and record["settings"]["pairs"] == "given"
    assert "<i>" not in page and "&lt;i&gt;the cache" in page


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"first": "a"}', "expected an object with first, second"),
        ('{"first": "a", "second": 3}', "expected an object with first, second"),
        ("[1]", "expected an object with first, second"),
        ("{", "expected an object with first, second"),
        ('{"first": "b", "second": "a", "document": "a b"}', "expected a document with 'b' and then 'a'"),
        ('{"first": " ", "second": "a"}', "expected a document with"),
    ],
)
def test_bad_pairs(tmp_path, line, expected):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"first": "x", "second": "y"}\n' + line + "\n")
    with pytest.raises(QueryError, match=expected) as caught:
        read_pairs(path)
    assert f"{path}:2" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "expected"),
    [
        (
            ("--phrase-words", "30", "--sample", "5"),
            2,
            "expected 5 documents of at least 90 words in the index, found 0",
        ),
        (("--sample", "2"), 2, "expected at least 5 pairs of phrases, found 2"),
        (("--pairs", "nowhere.jsonl"), 6, "expected a file of pairs"),
    ],
)
def test_bad_input(run, built, arguments, exit_code, expected):
    result = run("study", "word-order", built, "--phrase-words", "2", *arguments, "--device", "cpu")
    assert result.exit_code == exit_code and expected in result.stderr, result.stderr
