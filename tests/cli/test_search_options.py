"""The commands and options of searching: what they print, and how they fail."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from gindex_cli.render import certificate_text

from gindex.exact.certificate import Certificate

PROMPT, COMPLETION = "the compiler race", " bug the stack"
CONFIG, QUERY, STORE = 2, 6, 8


def records(result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_option_of_search_at_once(run, built):
    (record,) = records(
        run(
            "search", built, PROMPT, "--completion", COMPLETION, "-k", 3, "--both", "--where", "number < 100",
            "--words", "rank", "--words-text", "stack", "--words-documents", 20, "--normalise", "relatif",
            "--hits", "document", "--document-score", "sum", "--dedupe", 0.95, "--layers", "--exact",
            "--candidates", 20, "--scan", "--json",
        )
    )  # fmt: skip
    assert list(record) == ["query", "hits", "negative_hits", "reranked", "coverage", "timing_ms"]
    for end in ("hits", "negative_hits"):
        assert [hit["rank"] for hit in record[end]] == [1, 2, 3]
        for hit in record[end]:
            assert hit["metadata"]["number"] < 100 and hit["parts"] >= 1 and hit["influence"] is not None
            assert sum(hit["layers"].values()) == pytest.approx(hit["score"], rel=1e-3)


def test_search_as_text(run, built):
    flags = [
        "--both",
        "--layers",
        "--hits",
        "document",
        "--words",
        "filter",
        "--words-text",
        "stack heap",
        "--dedupe",
        0.9,
    ]
    result = run("search", built, PROMPT, "-k", 2, *flags)
    assert result.exit_code == 0 and "most negative" in result.stdout and "BM25 " in result.stdout
    assert " of 1" in result.stdout and re.search(r"model\.layers\.\d [+-]", result.stdout)


def test_filter_that_nothing_passes_is_an_empty_list(run, built):
    (record,) = records(run("search", built, PROMPT, "--where", "number > 1000", "--json"))
    assert record["hits"] == []
    assert "no hits" in run("search", built, PROMPT, "--where", "number > 1000").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--where", "number >"], QUERY, "--where, position 9: expected text in quotes"),
        (["--where", "colour = 'red'"], QUERY, "position 1: expected a field of the documents (number)"),
        (["--both", "--negative"], CONFIG, "--negative and --both"),
        (["--dedupe", "2"], CONFIG, "--dedupe: expected a number in (0, 1], found 2.0"),
        (["--words", "filter", "--words-text", "?"], QUERY, "--words-text: expected text with at least one word"),
        (["-k", "0"], CONFIG, "-k: expected at least 1, found 0"),
        (["--certainty", "0.5"], CONFIG, "--certainty: expected --exact beside it, found none"),
        (["--exact", "--certainty", "1"], CONFIG, "--certainty: expected a number in (0, 0.999], found 1.0"),
        (["--normalise", "l2"], CONFIG, "'l2' is not one of"),
    ],
)
def test_bad_options_of_search(fails, built, arguments, code, expected):
    assert expected in fails(code, "search", built, PROMPT, *arguments)


def test_explain(run, built, tmp_path):
    page = tmp_path / "page.html"
    arguments = ["explain", built, "d149", PROMPT, "--completion", COMPLETION]
    (record,) = records(run(*arguments, "--json", "--html", page))
    assert record["document_id"] == "d149" and len(record["parts"]) > 1
    assert sum(record["groups"].values()) == pytest.approx(record["influence"], rel=1e-4)
    content = page.read_text()

    class Check(HTMLParser):
        texts: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attributes):
            assert tag not in ("script", "link", "img", "iframe") and not {"src", "href"} & dict(attributes).keys()

        def handle_data(self, data):
            self.texts.append(data)

    Check().feed(content)
    assert all(layer in content for layer in record["layers"]) and content.count("<span") > 50
    text = run(*arguments).stdout
    assert "influence" in text and "model.layers.1" in text
    assert "influence" in run(*arguments, "--html", page).stdout


def test_explain_of_what_is_not_there(fails, built):
    assert "found no 'nobody'" in fails(STORE, "explain", built, "nobody", PROMPT)
    assert "expected a token to predict" in fails(QUERY, "explain", built, "d1", "")


def test_page_escapes_what_it_shows():
    from gindex_cli.explain_page import page

    from gindex.exact.explain import Explanation, PartExplanation, TokenInfluence
    from gindex.queries.query import Query

    token = TokenInfluence(text="<script>", influence=0.0, context=False)
    content = page(
        Explanation(
            document_id="<b>",
            query=Query(prompt="<i>", completion="&"),
            influence=0.0,
            parts=(PartExplanation(part=0, influence=0.0, tokens=(token,)),),
            layers={"<u>": 0.0},
            groups={},
        )
    )
    assert not set(re.findall(r"<(script|b|i|u)>", content)) - {"b"} and "&lt;script&gt;" in content
    assert "<b>&amp;</b>" in content and "&lt;b&gt;" in content


def test_outliers(run, built):
    found = records(run("outliers", built, "-k", 4, "--json"))
    values = [record["self_influence"] for record in found]
    assert values == sorted(values, reverse=True) and len(values) == 4
    assert "self-influence" in run("outliers", built, "--per-token", "--where", "number = 3").stdout


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


def test_index_is_rebuilt_whatever_its_file_looks_like(run, fails, copy):
    before = [hit["score"] for hit in records(run("search", copy, PROMPT, "-k", 3, "--json"))[0]["hits"]]
    (copy / "search/00000001.faiss").write_bytes(b"not an index")
    assert "00000001.faiss: expected" in fails(STORE, "search", copy, PROMPT)
    (record,) = records(run("reindex", copy, "--type", "rabitq", "--json"))
    assert record["kind"] == "rabitq" and 0 < record["recall"]["at_10"] <= 1
    assert record["file"] == "search/00000002.faiss" and (copy / record["file"]).is_file()
    hits = records(run("search", copy, PROMPT, "-k", 3, "--json"))[0]["hits"]
    assert [hit["score"] for hit in hits] == pytest.approx(before, rel=1e-4)
    (copy / record["file"]).unlink()
    text = run("reindex", copy).stdout
    assert "00000003.faiss: flat, recall@10 1.000" in text
    assert "FAISS flat" in run("info", copy).stdout


def test_gpu_type_searches_on_the_cpu_with_one_line(run, copy, caplog, monkeypatch):
    import faiss

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    assert run("reindex", copy, "--type", "gpu").exit_code == 0
    caplog.clear()
    (record,) = records(run("search", copy, PROMPT, "-k", 2, "--json"))
    lines = [line for line in caplog.messages if "GPU" in line]
    assert len(record["hits"]) == 2 and len(lines) == 1 and "searching on the CPU" in lines[0]


def test_index_of_what_is_not_one(fails, tmp_path):
    assert "make one with gindex build" in fails(STORE, "reindex", tmp_path)


def test_the_address_of_a_service_where_a_folder_is_expected(fails):
    assert "found the address of a service" in fails(STORE, "info", "http://127.0.0.1:8080/corpus")
    assert "found the address of a service" in fails(STORE, "explain", "https://host/corpus", "d1", PROMPT)


def test_the_certificate_is_shown(run, built):
    asked = ["search", built, PROMPT, "--completion", COMPLETION, "--exact", "--candidates"]
    text = run(*asked, "1000").stdout
    assert "\ncertain: the influence of every part that may be found was recomputed\n" in text
    text = run(*asked, "30").stdout
    (record,) = records(run(*asked, "30", "--json"))
    found = Certificate(**record["certificate"])
    assert certificate_text(found) in text and 0 < found.outside < 200


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (
            Certificate(probability=1.0, outside=0),
            "certain: the influence of every part that may be found was recomputed",
        ),
        (
            Certificate(probability=0.9721, outside=1),
            "none of the true best is missing, with probability 0.972 (1 part not recomputed)",
        ),
        (
            Certificate(probability=0.641, outside=1702, candidates=750),
            "none of the true best is missing, with probability 0.64 only (1,702 parts not recomputed); "
            "about --candidates 750 would make it .95",
        ),
        (
            Certificate(probability=1e-7, outside=1702, candidates=2000),
            "uncertain: some of the true best may well be missing (1,702 parts not recomputed); "
            "about --candidates 2000 would make the probability of none .95",
        ),
    ],
)
def test_a_certificate_in_words(certificate, text):
    assert certificate_text(certificate) == text


def test_the_time_of_several_queries_is_told_once(run, built, tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in (PROMPT, "the heap a lock", "a parser")))
    text = run("search", built, "--queries", file, "--exact", "--candidates", "20", "-k", "2").stdout
    (told,) = [line for line in text.splitlines() if line.startswith(("gradient ", "3 queries together: gradient "))]
    assert told.startswith("3 queries together: ") and ", re-rank of 60 parts " in told
    assert text.rindex(told) > text.rindex("influence ")
